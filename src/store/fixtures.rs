//! What the tests of stores are made of.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::clock::Timestamp;
use crate::policy::binding::Bind;
use crate::policy::binding::Binding;
use crate::policy::binding::BindingRules;
use crate::policy::binding::OnMismatch;
use crate::policy::chain::Chain;
use crate::policy::session::Handle;
use crate::policy::session::Identity;
use crate::policy::session::Record;
use crate::policy::session::SessionId;
use crate::policy::session::SessionRules;
use crate::policy::session::UserName;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

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
    }
}

/// A session of this user, who has just logged in.
pub(super) fn of(user: &str) -> Record {
    let identity = Identity::new(UserName::parse(user).unwrap(), at(0), Arc::from("ref"));
    let binding = Binding::new([127, 0, 0, 1].into(), None);
    let chain = Chain::begin(&[0; 16], at(0));
    Record::authenticated(Arc::from(SITE), Arc::new(identity), binding, chain, Arc::default(), &rules(), at(0))
}

/// A Redis of its own for a test.
pub(super) struct Redis {
    server: Child,
    place: TempDir,
}

impl Redis {
    pub(super) fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(place.path().join("redis.sock"));
        let server = command.stdout(Stdio::null()).spawn().expect("run tests/setup.sh first");
        let started = Self { server, place };
        let deadline = Instant::now() + Duration::from_secs(30);
        while UnixStream::connect(started.socket()).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        started
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("redis.sock")
    }

    pub(super) fn settings(&self) -> RedisSettings {
        RedisSettings {
            form: Form::Single,
            servers: vec![ServerAddress::Unix(self.socket())],
            tls: false,
            ca: None,
            user: None,
            password: None,
            database: 0,
            prefix: "vestibule".to_owned(),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have gone already.
        let _gone = self.server.kill();
        let _gone = self.server.wait();
    }
}
