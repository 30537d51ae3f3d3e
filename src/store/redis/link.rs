//! One connection to one server: commands from all threads go over it, and the server says on it which
//! records have changed. What is kept of records is exact as long as the connection is heard from, and the
//! server is a master that may change them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use redis::AsyncConnectionConfig;
use redis::Cmd;
use redis::ErrorKind;
use redis::ProtocolVersion;
use redis::PushInfo;
use redis::PushKind;
use redis::RedisConnectionInfo;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::store::redis::answer;
use crate::store::redis::cache::Cache;
use crate::store::redis::clock::ServerClock;
use crate::store::redis::names::Names;
use crate::store::redis::script;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

/// From connecting to the end of the handshakes.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the server is asked whether it is there, and still a master that is followed.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// After that long without a word a connection is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// What is known of records holds that long after the server has last proven that it is master (S185).
const TRUST: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// No connection, or none any more.
    #[error("{address}: no connection")]
    Connect {
        address: ServerAddress,
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{address}: no answer in time")]
    Silent { address: ServerAddress },
    /// The password is not where it should be.
    #[error("the password of the session store cannot be read")]
    Password(#[source] io::Error),
    /// What the server or the client library says, which names its cause itself.
    #[error("{address}: {error}")]
    Redis { address: ServerAddress, error: RedisError },
    /// A server that a sentinel or a cluster named is on another machine (S180).
    #[error("{address}: would be spoken to without TLS: write rediss:// in store.url, or store.allow_plaintext = true")]
    Plaintext { address: ServerAddress },
    /// A replica cannot be written to, and may be behind.
    #[error("{address}: not a master")]
    Replica { address: ServerAddress },
    /// It may go on without knowing that.
    #[error("{address}: {by} is master now")]
    Replaced { address: ServerAddress, by: ServerAddress },
    /// No sentinel names a master.
    #[error("no sentinel knows the master {master:?}")]
    NoMaster {
        master: String,
        #[source]
        source: Option<Box<LinkError>>,
    },
    /// It has been so for a while: nobody waits for it any more.
    #[error("{place}: not connected")]
    Down { place: String },
    /// Nobody serves that part of the cluster.
    #[error("no node of the cluster serves slot {slot}")]
    Slot { slot: u16 },
    /// The server said something that the program does not understand.
    #[error("{0}")]
    Odd(&'static str),
}

impl LinkError {
    /// The first word of what the server said.
    #[allow(clippy::wildcard_enum_match_arm)] // All others say nothing of a server's.
    fn code(&self) -> Option<&str> {
        match self {
            Self::Redis { error, .. } => error.code(),
            _ => None,
        }
    }

    /// Whether there is something else in the place of what we keep under a key.
    pub(super) fn is_wrong_type(&self) -> bool {
        self.code() == Some("WRONGTYPE")
    }

    /// Whether the server has fewer replicas than its `min-replicas-to-write`.
    pub(super) fn is_lack_of_replicas(&self) -> bool {
        self.code() == Some("NOREPLICAS")
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How connections are made.
pub(super) struct Dialer {
    pub(super) settings: RedisSettings,
    pub(super) tls: Option<TlsConnector>,
    /// Told what time it is at the server.
    pub(super) clock: Arc<ServerClock>,
}

impl Dialer {
    /// A connection for a question or two. Sentinels are asked without saying who we are: the user is one
    /// of the master.
    pub(super) async fn ask(&self, address: &ServerAddress, is_sentinel: bool) -> Result<Asked, LinkError> {
        let (connection, driver) = self.connect(address, None, !is_sentinel).await?;
        Ok(Asked { connection, driver, address: address.clone() })
    }

    async fn connect(
        &self,
        address: &ServerAddress,
        pushes: Option<(Arc<Cache>, CancellationToken)>,
        is_identified: bool,
    ) -> Result<(MultiplexedConnection, JoinHandle<()>), LinkError> {
        // Here for all of them: which ones there are, the file does not say.
        if !self.settings.may_speak_to(address) {
            return Err(LinkError::Plaintext { address: address.clone() });
        }
        let timed = tokio::time::timeout(CONNECT, async {
            let stream =
                self.dial(address).await.map_err(|source| LinkError::Connect { address: address.clone(), source })?;
            let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
            if is_identified {
                info = self.identified(info)?;
            }
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
            let config = match pushes {
                Some((cache, lost)) => config.set_push_sender(move |push| heard(&cache, &lost, push)),
                None => config,
            };
            let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
            let (connection, driver) = opened.map_err(|source| failed(address, source))?;
            Ok((connection, tokio::spawn(driver)))
        });
        timed.await.unwrap_or_else(|_| Err(LinkError::Silent { address: address.clone() }))
    }

    fn identified(&self, mut info: RedisConnectionInfo) -> Result<RedisConnectionInfo, LinkError> {
        if let Some(user) = &self.settings.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.settings.password {
            info = info.set_password(password.read().map_err(LinkError::Password)?);
        }
        Ok(info.set_db(self.settings.database.into()))
    }

    async fn dial(&self, address: &ServerAddress) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match address {
            ServerAddress::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            ServerAddress::Tcp { host, port } => (host, *port),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        // Without it a small command can wait for the delayed acknowledgement of the one before.
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// What the server says on its own account: which records have changed, or that all may have. The end of
/// the connection is told the same way.
fn heard(cache: &Cache, lost: &CancellationToken, push: PushInfo) -> Result<(), LinkError> {
    if push.kind == PushKind::Invalidate {
        match push.data.into_iter().next().and_then(answer::members) {
            Some(names) => names.into_iter().filter_map(answer::bytes).for_each(|name| cache.forget_named(&name)),
            // `FLUSHALL`, `FLUSHDB`
            None => cache.forget_all(),
        }
    } else if push.kind == PushKind::Disconnection {
        lost.cancel();
        cache.forget_all();
    }
    Ok(())
}

/// A connection that ends when it is dropped.
pub(super) struct Asked {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    address: ServerAddress,
}

impl Asked {
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, LinkError> {
        answered(&self.address, self.connection.clone().send_packed_command(command).await)
    }

    /// Whether it may speak for its cluster.
    pub(super) async fn prove(&self, names: &Names, number: u32) -> Result<(), LinkError> {
        proven(self.ask(&proof(names, number)).await)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection that commands go over.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    pub(super) address: ServerAddress,
    born: Instant,
    /// Until when what it said holds; milliseconds since `born`.
    trusted_until: AtomicU64,
    /// Whether it owes an answer for so long that nobody else should wait for one.
    is_stalled: AtomicBool,
    /// The connection has ended.
    lost: CancellationToken,
    names: Names,
    /// The number of the proof that it serves.
    proof: Arc<AtomicU32>,
    cache: Arc<Cache>,
    clock: Arc<ServerClock>,
}

impl Link {
    /// Connects to a master, and has it say what changes.
    pub(super) async fn open(
        dialer: &Dialer,
        address: ServerAddress,
        cache: &Arc<Cache>,
        proof: &Arc<AtomicU32>,
    ) -> Result<Self, LinkError> {
        let lost = CancellationToken::new();
        let pushes = (Arc::clone(cache), lost.clone());
        let (connection, driver) = dialer.connect(&address, Some(pushes), true).await?;
        let link = Self {
            connection,
            driver,
            address,
            born: Instant::now(),
            trusted_until: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            lost,
            names: Names::new(&dialer.settings.prefix),
            proof: Arc::clone(proof),
            cache: Arc::clone(cache),
            clock: Arc::clone(&dialer.clock),
        };
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(link.names.records());
        link.send(&track).await?;
        link.announce().await?;
        link.beat().await?;
        Ok(link)
    }

    /// Has the server know our scripts.
    pub(super) async fn announce(&self) -> Result<(), LinkError> {
        for script in script::ALL {
            self.send(redis::cmd("SCRIPT").arg("LOAD").arg(script.text)).await?;
        }
        Ok(())
    }

    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, LinkError> {
        self.noted(answered(&self.address, self.connection.clone().send_packed_command(command).await))
    }

    /// Several commands in one go; one that fails fails all.
    pub(super) async fn send_all(&self, commands: &redis::Pipeline, skip: usize) -> Result<Vec<Value>, LinkError> {
        let count = commands.len() - skip;
        let answers = self.connection.clone().send_packed_commands(commands, skip, count).await;
        let answers = self.noted(answers.map_err(|source| failed(&self.address, source)))?;
        answers.into_iter().map(|answer| answered(&self.address, Ok(answer))).collect()
    }

    /// Who asks again is not to be given the connection that has just failed.
    fn noted<T>(&self, answer: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(LinkError::Redis { error, .. }) = &answer
            && error.kind() == ErrorKind::Io
        {
            self.lost.cancel();
        }
        answer
    }

    /// Whether the connection has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Whether what it said is still exact.
    pub(super) fn is_trusted(&self) -> bool {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        !self.is_lost() && now < self.trusted_until.load(Ordering::Acquire)
    }

    /// Whether it takes commands without answering them.
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// Ends the connection; whoever waits for an answer is told so.
    pub(super) fn close(&self) {
        self.lost.cancel();
        self.driver.abort();
        self.cache.forget_all();
    }

    async fn beat(&self) -> Result<(), LinkError> {
        let (asked, asked_at) = (self.born.elapsed(), self.clock.own());
        let mut questions = redis::pipe();
        questions.cmd("ROLE").cmd("TIME");
        let proof = proof(&self.names, self.proof.load(Ordering::Relaxed));
        let (answers, standing) = tokio::join!(self.send_all(&questions, 0), self.send(&proof));
        let mut answers = answers?.into_iter().filter_map(answer::members);
        let role = answers.next().and_then(|parts| answer::bytes(parts.into_iter().next()?));
        if role.as_deref() != Some(b"master") {
            return Err(LinkError::Replica { address: self.address.clone() });
        }
        proven(standing)?;
        let time = answers.next().and_then(|parts| answer::millis(&parts));
        self.clock.heard(time.ok_or(LinkError::Odd("there should be a time"))?, asked_at);
        // All that changed before the question was asked has been heard by now: it is the same stream.
        let until = u64::try_from((asked + TRUST).as_millis()).unwrap_or(u64::MAX);
        self.trusted_until.store(until, Ordering::Release);
        self.is_stalled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Watches the connection; returns why it is of no use any more.
    pub(super) async fn watch(&self) -> LinkError {
        let mut heard = Instant::now();
        loop {
            let _lost = tokio::time::timeout(BEAT_EVERY, self.lost.cancelled()).await;
            match self.beat().await {
                Ok(()) => heard = Instant::now(),
                Err(LinkError::Silent { .. }) if heard.elapsed() < SILENCE => {
                    self.is_stalled.store(true, Ordering::Relaxed);
                }
                Err(error) => return error,
            }
        }
    }

    /// Completes when its replicas are heard from again, or it is of no use for another reason.
    pub(super) async fn replicated(&self) -> Result<(), LinkError> {
        loop {
            let _lost = tokio::time::timeout(BEAT_EVERY, self.lost.cancelled()).await;
            match self.beat().await {
                Err(error) if error.is_lack_of_replicas() => {}
                answer => return answer,
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// A change that changes nothing.
fn proof(names: &Names, number: u32) -> Cmd {
    let mut command = redis::cmd("DEL");
    command.arg(names.proof(number));
    command
}

/// Whether a server may change something: one that a majority of its cluster has left, or that has fewer
/// replicas than its `min-replicas-to-write`, may not, and does not know what others have changed. One that
/// is full, or whose disk is, is master all the same; and who sends us elsewhere knows its cluster.
fn proven(standing: Result<Value, LinkError>) -> Result<(), LinkError> {
    match standing {
        Ok(_) => Ok(()),
        Err(error) if error.code().is_some_and(|code| ["OOM", "MISCONF", "MOVED", "ASK"].contains(&code)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn answered(address: &ServerAddress, answer: Result<Value, RedisError>) -> Result<Value, LinkError> {
    match answer {
        Ok(Value::ServerError(error)) => Err(failed(address, error.into())),
        Ok(value) => Ok(value),
        Err(source) => Err(failed(address, source)),
    }
}

fn failed(address: &ServerAddress, error: RedisError) -> LinkError {
    if error.is_timeout() {
        return LinkError::Silent { address: address.clone() };
    }
    LinkError::Redis { address: address.clone(), error }
}
