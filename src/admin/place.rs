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
    if config.admin.listen == AdminListen::Usual && config.store == StoreSettings::File(None) {
        all.push(ListenAddress::Unix(Path::new(SYSTEMD_STATE).join("admin.sock")));
    }
    all
}

fn usual(config: &Config) -> Option<PathBuf> {
    match &config.store {
        StoreSettings::File(Some(path)) => Some(path.with_file_name("admin.sock")),
        StoreSettings::File(None) => Some(store::usual_directory()?.join("admin.sock")),
        StoreSettings::Memory | StoreSettings::Redis(_) => {
            Some(runtime_directory()?.join(format!("admin-{}.sock", name(&config.file))))
        }
    }
}

fn runtime_directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("RUNTIME_DIRECTORY")
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|directory| directory.join("vestibule")))
        .or_else(store::usual_directory)
}

/// Eight characters for a file: several servers of one user must not be taken for each other.
fn name(file: &Path) -> String {
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let hash = digest::digest(&digest::SHA256, file.as_os_str().as_encoded_bytes());
    hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
