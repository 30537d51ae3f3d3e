//! What the tests of stores are made of.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use tempfile::TempDir;

use crate::clock::Timestamp;
use crate::policy::binding::Bind;
use crate::policy::binding::Binding;
use crate::policy::binding::BindingRules;
use crate::policy::binding::OnMismatch;
use crate::policy::chain::Chain;
use crate::policy::dbsc::DeviceBound;
use crate::policy::session::Handle;
use crate::policy::session::Identity;
use crate::policy::session::Record;
use crate::policy::session::SessionId;
use crate::policy::session::SessionRules;
use crate::policy::session::UserName;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultChange;
use crate::policy::vault::VaultCookie;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

/// How long all sessions may idle.
pub(super) const IDLE: Duration = Duration::from_secs(1800);

/// The site of all records.
pub(super) const SITE: &str = "https://app.test";

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(super) fn handle(number: u8) -> Handle {
    SessionId::from_random([number; 32]).handle()
}

pub(super) fn rules() -> SessionRules {
    SessionRules {
        idle: Duration::from_secs(1800),
        absolute: Duration::from_secs(8 * 3600),
        anonymous: Duration::from_secs(1800),
        rotate_every: None,
        rotation_grace: Duration::from_secs(30),
        max_per_user: None,
        binding: BindingRules { bind: Bind::Off, on_mismatch: OnMismatch::Log, on_user_agent_change: OnMismatch::Log },
        device_bound: DeviceBound::Off,
    }
}

/// A session of this user, who has just logged in.
pub(super) fn of(user: &str) -> Record {
    let user = UserName::parse(user).unwrap();
    let identity = Identity { user, authenticated: at(0), session_ref: handle(1).key().session_ref() };
    let binding = Binding::new([127, 0, 0, 1].into(), None);
    let chain = Chain::begin(&[0; 16], at(0));
    Record::authenticated(Arc::from(SITE), identity, binding, chain, Vault::default(), &rules(), at(0))
}

/// A cookie for the vault.
pub(in crate::store) fn put(value: &'static str) -> VaultChange {
    VaultChange::Put(VaultCookie {
        name: Bytes::from_static(b"sid"),
        value: Bytes::from_static(value.as_bytes()),
        path: "/".into(),
        domain: None,
        expires: None,
        same_site: None,
        created: at(0),
        used: at(0),
    })
}

/// `redis-server` or `redis-cli`, or what the environment names in its place (`REDIS_SERVER`, `REDIS_CLI`): a Valkey.
pub(super) fn program(name: &str) -> Command {
    let variable = name.to_uppercase().replace('-', "_");
    Command::new(std::env::var(variable).unwrap_or_else(|_| name.to_owned()))
}

/// A Redis of its own for a test.
pub(super) struct Redis {
    server: Child,
    _place: TempDir,
    form: Form,
    address: ServerAddress,
}

impl Redis {
    pub(super) fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("redis.sock");
        let mut command = program("redis-server");
        command.args(["--port", "0", "--unixsocket"]).arg(&socket);
        let started = Self::run(command, place, Form::Single, ServerAddress::Unix(socket.clone()));
        eventually(|| UnixStream::connect(&socket).is_ok());
        started
    }

    /// The only node of a cluster.
    pub(super) fn cluster() -> Self {
        let place = tempfile::tempdir().unwrap();
        let [port, bus] = [(); 2]
            .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
            .map(|socket| socket.local_addr().unwrap().port());
        let mut command = program("redis-server");
        command.args(["--bind", "127.0.0.1", "--cluster-enabled", "yes"]);
        command.args(["--port", &port.to_string(), "--cluster-port", &bus.to_string()]);
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
        let started = Self::run(command, place, Form::Cluster, address);
        let says = |words: &[&str], expected: &str| {
            let output = program("redis-cli").args(["-p", &port.to_string(), "CLUSTER"]).args(words).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains(expected)
        };
        eventually(|| says(&["ADDSLOTSRANGE", "0", "16383"], "OK"));
        eventually(|| says(&["INFO"], "cluster_state:ok"));
        started
    }

    fn run(mut command: Command, place: TempDir, form: Form, address: ServerAddress) -> Self {
        command.args(["--save", "", "--dir"]).arg(place.path());
        let server = command.stdout(Stdio::null()).spawn().expect("run tests/setup.sh first");
        Self { server, _place: place, form, address }
    }

    pub(super) fn settings(&self) -> RedisSettings {
        RedisSettings {
            form: self.form.clone(),
            servers: vec![self.address.clone()],
            tls: false,
            allow_plaintext: false,
            ca: None,
            user: None,
            password: None,
            database: 0,
            prefix: "vestibule".to_owned(),
        }
    }
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "redis-server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have gone already.
        let _gone = self.server.kill();
        let _gone = self.server.wait();
    }
}
