//! Where the admin surface is: for the server that opens it, and for the command line that looks for
//! it.

use std::path::Path;
use std::path::PathBuf;

use aws_lc_rs::digest;

use crate::config::AdminListen;
use crate::config::Config;
use crate::config::ListenAddress;
use crate::store;
use crate::store::StoreSettings;

/// Where our unit file keeps state: whoever asks has not its environment.
const SYSTEMD_STATE: &str = "/var/lib/vestibule";

/// Where it listens; nowhere when it is off, or the environment names no directory for it.
pub fn places(config: &Config) -> Vec<ListenAddress> {
    match &config.admin.listen {
        AdminListen::At(places) => places.clone(),
        AdminListen::Usual => usual(config).map(ListenAddress::Unix).into_iter().collect(),
    }
}

/// Where a server with this configuration may listen, the likeliest first.
pub fn places_to_ask(config: &Config) -> Vec<ListenAddress> {
    let mut all = places(config);
    // Needs no token, and is where nobody else can listen.
    all.sort_by_key(|place| matches!(place, ListenAddress::Tcp(_)));
    if config.admin.listen == AdminListen::Usual {
        all.extend(in_service(config).map(ListenAddress::Unix));
        all.dedup();
    }
    all
}

/// The usual place of a server that our unit file started.
fn in_service(config: &Config) -> Option<PathBuf> {
    let state = Path::new(SYSTEMD_STATE);
    match &config.store {
        StoreSettings::File(Some(_)) => None,
        StoreSettings::File(None) => Some(state.join("admin.sock")),
        StoreSettings::Memory | StoreSettings::Redis(_) => Some(state.join(file_name(config))),
    }
}

fn usual(config: &Config) -> Option<PathBuf> {
    match &config.store {
        StoreSettings::File(Some(path)) => Some(path.with_file_name("admin.sock")),
        StoreSettings::File(None) => Some(store::usual_directory()?.join("admin.sock")),
        StoreSettings::Memory | StoreSettings::Redis(_) => Some(runtime_directory()?.join(file_name(config))),
    }
}

fn runtime_directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("RUNTIME_DIRECTORY")
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|directory| directory.join("vestibule")))
        .or_else(store::usual_directory)
}

/// With eight characters for the configuration: several servers of one user must not be taken for each
/// other.
fn file_name(config: &Config) -> String {
    let file = std::fs::canonicalize(&config.file).unwrap_or_else(|_| config.file.clone());
    let hash = digest::digest(&digest::SHA256, file.as_os_str().as_encoded_bytes());
    let name: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("admin-{name}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_found_from_a_shell_whatever_store_it_has() {
        for (store, expected) in [
            ("", "/var/lib/vestibule/admin.sock"),
            ("[store]\nurl = \"memory:\"", "/var/lib/vestibule/admin-"),
            ("[store]\nurl = \"redis://localhost\"", "/var/lib/vestibule/admin-"),
        ] {
            let text = format!(
                "[listen]\nhttps = \"127.0.0.1:1\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n{store}\n[[site]]\n\
                 origin = \"https://app.test\"\nupstream = \"http://127.0.0.1:2\"\n"
            );
            let config = Config::parse(Path::new("proxy.toml"), &text).unwrap();

            let last = places_to_ask(&config).pop().unwrap().to_string();

            assert!(last.starts_with(&format!("unix:{expected}")), "{last}");
        }
    }
}
