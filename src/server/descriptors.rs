//! File descriptors: a connection takes one, and so does each connection to an application. Systems give
//! most programs 1024 for the sake of those that use select(2), and let them have more (S173).

use crate::config::Config;

/// What is neither a client nor an application: listening sockets, files, runtimes.
const OTHERS: usize = 64;

/// Takes as many as the system lets us have. Returns what is wrong if these are too few for what the
/// limits of the configuration allow.
pub fn take_all(config: &Config) -> Option<String> {
    let needed = needed(config);
    // A system that does not say how many there are may have enough.
    let available = rlimit::increase_nofile_limit(u64::MAX).ok()?;
    (available < needed as u64).then(|| {
        format!(
            "limits: as many connections as are allowed need {needed} file descriptors, and the system gives \
             {available}: raise LimitNOFILE (systemd) or ulimit -n, or lower limits.connections"
        )
    })
}

/// How many may be open at a time.
fn needed(config: &Config) -> usize {
    let upstream = config.sites.iter().map(|site| site.upstreams.len() * site.limits.upstream_connections);
    OTHERS + config.limits.connections + upstream.sum::<usize>()
}
