//! The structure: which module may name which, and what each must never name. The sources are read
//! as text; it works because every `use` names one module a line.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;

/// A module of `src/`, and what it may know.
pub struct Layer {
    pub module: &'static str,
    /// Modules, or parts of them, that it may name beside itself; each stands below it in the table.
    pub may: &'static [&'static str],
    /// Names that must not occur in any path.
    never: &'static [&'static str],
}

const SOCKETS: [&str; 5] = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener"];
const NO_IO: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_rustls",
    "hyper",
    "hyper_util",
    "rustls",
    "socket2",
    "tracing",
    "dashmap",
    "arc_swap",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "now_utc",
    "rand",
];
const NO_HTTP: &[&str] = &["http", "http_body", "http_body_util", "hyper", "hyper_util", "cookie", "url"];

/// From the top; the invariants of `lib.rs` are the `never` of `policy` and `store`.
#[rustfmt::skip]
pub const LAYERS: &[Layer] = &[
    Layer { module: "main", may: &["cli"], never: &[] },
    Layer { module: "cli", may: &["admin", "app", "cert", "clock", "config", "demo", "telemetry"], never: &[] },
    Layer { module: "demo", may: &["app", "cert", "clock", "config", "telemetry"], never: &[] },
    Layer { module: "app", may: &["admin", "clock", "config", "proxy", "secret", "server", "store"], never: &[] },
    Layer { module: "admin", may: &["clock", "config", "metrics", "policy", "proxy", "server", "store", "telemetry"], never: &[] },
    Layer { module: "server", may: &["clock", "config", "crypto", "http1", "metrics", "policy", "proxy", "telemetry", "write"], never: &[] },
    Layer { module: "proxy", may: &["clock", "config", "crypto", "http1", "metrics", "policy", "signing", "store", "telemetry", "write"], never: &[] },
    Layer { module: "telemetry", may: &["config", "policy", "store"], never: &["tokio", "hyper"] },
    Layer { module: "config", may: &["policy", "secret", "store::StoreSettings", "store::redis::settings"], never: &["tokio", "hyper", "rustls"] },
    Layer { module: "signing", may: &["clock", "policy", "store"], never: NO_HTTP },
    Layer { module: "store", may: &["clock", "crypto", "metrics", "policy::session", "policy::binding", "policy::chain", "policy::cookie::SameSite", "policy::dbsc", "policy::vault", "secret"], never: NO_HTTP },
    Layer { module: "policy", may: &["clock::Timestamp"], never: NO_IO },
    Layer { module: "http1", may: &[], never: NO_IO },
    Layer { module: "cert", may: &[], never: &["tokio", "hyper"] },
    Layer { module: "crypto", may: &[], never: NO_HTTP },
    Layer { module: "secret", may: &[], never: NO_HTTP },
    Layer { module: "metrics", may: &[], never: NO_HTTP },
    Layer { module: "clock", may: &[], never: &["hyper"] },
    Layer { module: "write", may: &[], never: NO_HTTP },
];

#[test]
fn modules_name_only_what_they_may() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut modules = BTreeSet::new();
    for path in rust_files(&sources) {
        let name = path.strip_prefix(sources.parent().unwrap()).unwrap().display().to_string();
        let module = module_of(&name);
        modules.insert(module.clone());
        if module != "lib" {
            found.extend(violations(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }

    assert!(found.is_empty(), "{}", found.join("\n"));
    let known: BTreeSet<_> = LAYERS.iter().map(|layer| layer.module.to_owned()).chain(["lib".to_owned()]).collect();
    assert_eq!(modules, known, "every module stands in the table");
}

#[test]
fn every_row_names_only_rows_below_it() {
    for (place, layer) in LAYERS.iter().enumerate() {
        for may in layer.may {
            let module = may.split("::").next().unwrap();
            assert!(LAYERS[place + 1..].iter().any(|below| below.module == module), "{} names {module}", layer.module);
        }
    }
}

#[test]
fn a_planted_violation_is_found() {
    for (file, line, expected) in [
        ("src/policy/x.rs", "use crate::store::Found;", "src/policy/x.rs:2: policy must not use store::Found"),
        ("src/policy/x.rs", "fn f(now: crate::clock::SystemClock) {}", "policy must not use clock::SystemClock"),
        ("src/policy/a/b.rs", "    let now = std::time::SystemTime::now();", "policy must not use SystemTime"),
        ("src/policy/x.rs", "use std::time::Instant;", "policy must not use Instant"),
        ("src/policy/x.rs", "use tokio::net::TcpStream;", "policy must not use tokio"),
        ("src/policy/x.rs", "use std::net::TcpStream;", "policy must not use TcpStream"),
        ("src/policy/x.rs", "aws_lc_rs::rand::fill(&mut bytes)", "policy must not use rand"),
        ("src/policy/x.rs", "use std::fs;", "policy must not use std::fs"),
        ("src/policy/x.rs", "pub async fn decide() {}", "policy must not use async"),
        ("src/policy/x.rs", "use std::{fs, net};", "one module a line"),
        ("src/policy/x.rs", "use super::super::store::Found;", "policy must not use super::super"),
        ("src/store/x.rs", "use http::HeaderMap;", "store must not use http"),
        ("src/store/x.rs", "use crate::policy::cookie::SetCookie;", "store must not use policy::cookie::SetCookie"),
        ("src/proxy/x.rs", "use toml::de::DeTable;", "proxy must not use toml"),
        ("src/server/x.rs", "use crate::app::Running;", "server must not use app::Running"),
        ("src/config/x.rs", "use crate::store::SessionStore;", "config must not use store::SessionStore"),
    ] {
        let found = violations(file, &format!("//! A module.\n{line}\n"));
        assert!(found.iter().any(|found| found.contains(expected)), "{line}: {found:?}");
    }
    for (file, line) in [
        ("src/policy/x.rs", "use std::net::IpAddr;"),
        ("src/policy/x.rs", "use crate::clock::Timestamp;"),
        ("src/policy/x.rs", "// Unlike crate::store, tokio::net and std::time::SystemTime are not named here."),
        ("src/policy/x.rs", "let url = \"http://store.example\";"),
        ("src/config/x.rs", "use toml::Spanned;"),
        ("src/store/x.rs", "use crate::policy::session::Record;"),
    ] {
        assert_eq!(violations(file, line), Vec::<String>::new(), "{line}");
    }
}

/// `src/policy/x.rs` and `src/policy.rs` belong to `policy`.
fn module_of(file: &str) -> String {
    let name = file.strip_prefix("src/").unwrap().split('/').next().unwrap();
    name.trim_end_matches(".rs").to_owned()
}

static GROUPED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\buse [a-z_][a-z_:]*\{").unwrap());
static PATH: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[A-Za-z_]\w*(?:::[A-Za-z_]\w*)+|\buse [a-z_]\w*;|\basync\b").unwrap());

/// What is wrong with a file: `src/policy/x.rs:88: policy must not use store`.
fn violations(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let layer = LAYERS.iter().find(|layer| layer.module == module).unwrap_or_else(|| panic!("{module} is not listed"));
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = if line.trim_start().starts_with("//") { "" } else { line.split(" // ").next().unwrap() };
        let mut report = |what: String| found.push(format!("{file}:{}: {what}", at + 1));
        if GROUPED.is_match(code) {
            report("a `use` names one module a line".to_owned());
        }
        for path in PATH.find_iter(code) {
            let path = path.as_str().trim_start_matches("use ").trim_end_matches(';');
            let problem = match path.strip_prefix("crate::") {
                Some(named) => (!layer.knows(named)).then(|| named.to_owned()),
                None => layer.forbids(path),
            };
            if let Some(what) = problem {
                report(format!("{module} must not use {what}"));
            }
        }
    }
    found
}

impl Layer {
    fn knows(&self, named: &str) -> bool {
        let is_below = |allowed: &str| named == allowed || named.starts_with(&format!("{allowed}::"));
        is_below(self.module) || self.may.iter().any(|allowed| is_below(allowed))
    }

    /// The forbidden name that occurs in this path.
    fn forbids(&self, path: &str) -> Option<String> {
        let everywhere: &[&str] = if self.module == "config" { &["super::super"] } else { &["super::super", "toml"] };
        let pure: &[&str] = if self.module == "policy" { &["async"] } else { &[] };
        let sockets: &[&str] = if matches!(self.module, "policy" | "config") { &SOCKETS } else { &[] };
        let bounded = format!("::{path}::");
        let mut all = [self.never, everywhere, pure, sockets].into_iter().flatten();
        all.find(|name| bounded.contains(&format!("::{name}::"))).map(|name| (*name).to_owned())
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
