//! The composition root: parts are built here, in one readable function, from one `Config`; parts do
//! not find each other.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;

/// A running Vestibule.
pub struct Running {
    /// Where TLS is served (ports resolved).
    pub https: Vec<SocketAddr>,
    /// Where plain HTTP is redirected (ports resolved).
    pub http: Vec<SocketAddr>,
}

/// Why it does not start, or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Starts everything: workers on their own threads, the control runtime on another.
///
/// # Errors
/// When something the configuration names cannot be used.
pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    let _ = (config, clock);
    Ok(Running { https: Vec::new(), http: Vec::new() })
}

impl Running {
    /// Takes a new configuration, all or nothing; sessions and connections stay.
    ///
    /// # Errors
    /// When it cannot be used; nothing was changed then.
    pub fn reload(&self, config: Config) -> Result<(), StartError> {
        let _ = config;
        Ok(())
    }

    /// Stops accepting, lets requests finish up to the `drain` timeout, cuts the rest, returns when
    /// all threads have ended.
    pub fn stop(self) {}
}
