//! The file of the durable store: one redb database, written by one thread. Changes that wait while a
//! commit is under way are committed together by the next one (group commit), each answered once it
//! is on the disk.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::policy::session::Handle;
use crate::policy::session::SessionKey;
use crate::store::StoreError;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisError;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::SealedCookie;
use crate::store::sealed::keys::KeyError;
use crate::store::sealed::keys::Keys;
use crate::store::shelf::Kept;
use crate::store::shelf::Name;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// Everything of a record that only changes as a whole.
const RECORDS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("records 1");
/// Revision and chain.
const CHAINS: TableDefinition<'_, [u8; 32], (u64, &[u8])> = TableDefinition::new("chains 1");
/// Last activity, milliseconds since the Unix epoch.
const SEEN: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("seen 1");
/// The shelf: by kind and name the version, the end in milliseconds since the Unix epoch, and the value.
const VALUES: TableDefinition<'_, [u8; 33], (u64, u64, &[u8])> = TableDefinition::new("values 1");

/// Whether the disk has room, after a commit that failed.
const ROOM_TABLE: TableDefinition<'_, (), &[u8]> = TableDefinition::new("room");
/// More than any record takes.
const ROOM: usize = 64 * 1024;
/// How often it is looked.
const ROOM_AFTER: Duration = Duration::from_secs(2);

/// Touches wait this long: a crash can only make a session end that much early.
const TOUCH_EVERY: Duration = Duration::from_secs(1);
/// Changes in one commit.
const BATCH: usize = 4096;
/// All reads are from memory: the database needs little.
const CACHE: usize = 8 * 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be made.
    #[error("cannot make the directory {path} for the session store")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open the session store {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the session store {path} is in use by another process: one file serves one Vestibule")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Its content is damaged, or it is no session store at all.
    #[error(
        "the session store {path} cannot be read: restore it from a backup, or move it away and everybody logs in again"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// No thread.
    #[error("the system gives no thread for the session store")]
    Thread(#[source] io::Error),
    /// Nowhere to keep it.
    #[error("there is no place for the session store: set store.url, or STATE_DIRECTORY, XDG_STATE_HOME or HOME")]
    NoPlace,
    /// What the settings of Redis name.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// `store.key`
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl OpenError {
    /// Whether the configuration has to be mended, or a file that it names.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_configuration(),
            Self::Key(_) => true,
            Self::Directory { .. }
            | Self::File { .. }
            | Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::Thread(_)
            | Self::NoPlace => false,
        }
    }
}

/// What is to be written of a key, as it stands in memory when its turn comes: so that nothing older
/// ever goes over something newer.
#[derive(Default)]
struct Owed {
    /// Whose record is to be written whole: that takes the selector.
    handle: Option<Handle>,
    chain: bool,
}

#[derive(Serialize, Deserialize)]
struct RecordForm<'a> {
    readable: &'a [u8],
    identity: Option<&'a [u8]>,
    #[serde(borrow)]
    cookies: Vec<([u8; 16], &'a [u8])>,
}

fn write(sealed: &Sealed) -> Result<Vec<u8>, postcard::Error> {
    let cookies = sealed.cookies.iter().map(|cookie| (cookie.field, cookie.sealed.as_slice())).collect();
    let form = RecordForm { readable: &sealed.readable, identity: sealed.identity.as_deref(), cookies };
    postcard::to_allocvec(&form)
}

type Ack = oneshot::Sender<Result<(), StoreError>>;

enum Order {
    Write { key: SessionKey, handle: Option<Handle>, ack: Option<Ack> },
    Shelve { name: Name, ack: Option<Ack> },
    Stop,
}

/// The file, as the store uses it.
pub(super) struct Journal {
    orders: mpsc::Sender<Order>,
    touched: Arc<Mutex<BTreeSet<SessionKey>>>,
    /// Whether the last commit failed; it is tried again every second.
    failing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The last activity that it had when it was opened.
    latest: Timestamp,
}

impl Journal {
    /// Opens the file, or makes it, and fills the memory with what is in it.
    pub(super) fn open(path: &Path, keys: Keys, memory: &Arc<MemoryStore>) -> Result<Self, OpenError> {
        let database = open(path)?;
        let damaged = |source| OpenError::Damaged { path: path.to_owned(), source: Box::new(source) };
        let content = read_all(&database).map_err(damaged)?;
        for (name, kept) in read_values(&database).map_err(damaged)? {
            memory.shelf.restore(name, kept);
        }
        let (orders, received) = mpsc::channel();
        let touched = Arc::<Mutex<BTreeSet<_>>>::default();
        let failing = Arc::<AtomicBool>::default();
        let mut owed = BTreeMap::new();
        let latest = content.iter().map(|(_, stored)| stored.seen).max().unwrap_or_default();
        for (key, stored) in content {
            match sealed::read_outline(&stored.readable, stored.seen) {
                Ok(outline) => memory.add_sealed(&key, &outline, &stored),
                Err(error) => {
                    tracing::warn!(event = "store.record_unusable", session = &*key.session_ref(), error = %error);
                    owed.insert(key, Owed::default());
                }
            }
        }
        let writer = Writer {
            path: path.to_owned(),
            keys,
            memory: Arc::clone(memory),
            database: Some(database),
            owed,
            owed_values: BTreeSet::new(),
            touched: Arc::clone(&touched),
            failing: Arc::clone(&failing),
            room_at: Instant::now(),
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || writer.run(&received));
        Ok(Self { orders, touched, failing, thread: Some(thread.map_err(OpenError::Thread)?), latest })
    }

    /// Until when it is known to have been written in former runs.
    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Writes what memory now has of a key; with its handle the whole record, else only its chain, or
    /// that it is gone. Returns when it is on the disk.
    pub(super) async fn write(&self, key: &SessionKey, handle: Option<&Handle>) -> Result<(), StoreError> {
        self.ordered(|ack| Order::Write { key: *key, handle: handle.cloned(), ack: Some(ack) }).await
    }

    async fn ordered(&self, order: impl FnOnce(Ack) -> Order) -> Result<(), StoreError> {
        let (ack, answer) = oneshot::channel();
        // A writer that is gone drops the order, and with it the answer: that is a failure, too.
        let _answered_by_drop = self.orders.send(order(ack));
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store's writer has stopped".into())))
    }

    /// Writes what memory now has of a value, or that it is gone. Returns when it is on the disk.
    pub(super) async fn shelve(&self, name: &Name) -> Result<(), StoreError> {
        self.ordered(|ack| Order::Shelve { name: *name, ack: Some(ack) }).await
    }

    /// The same without waiting.
    pub(super) fn shelve_later(&self, name: &Name) {
        let _best_effort = self.orders.send(Order::Shelve { name: *name, ack: None });
    }

    /// The same without waiting, for what need not be on the disk at once.
    pub(super) fn write_later(&self, key: &SessionKey) {
        let _best_effort = self.orders.send(Order::Write { key: *key, handle: None, ack: None });
    }

    /// Whether there was room for the last commit, or for a large one since.
    pub(super) fn ready(&self) -> Result<(), StoreError> {
        let failing = self.failing.load(Ordering::Relaxed);
        if failing { Err(StoreError::Unavailable("the last commit failed".into())) } else { Ok(()) }
    }

    /// Notes activity; written within a second.
    pub(super) fn touch(&self, key: &SessionKey) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(*key);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _gone_already = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    keys: Keys,
    memory: Arc<MemoryStore>,
    /// `None` after an error: opened again with the next change.
    database: Option<Database>,
    /// What is not on the disk yet: a logout that the disk refused is still carried out later.
    owed: BTreeMap<SessionKey, Owed>,
    owed_values: BTreeSet<Name>,
    touched: Arc<Mutex<BTreeSet<SessionKey>>>,
    failing: Arc<AtomicBool>,
    /// When it is looked for room if the last commit failed.
    room_at: Instant,
}

impl Writer {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        let mut touches_at = Instant::now();
        loop {
            let first = match orders.recv_timeout(TOUCH_EVERY) {
                Ok(order) => Some(order),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => Some(Order::Stop),
            };
            let mut acks = Vec::new();
            let mut stop = false;
            for order in first.into_iter().chain(orders.try_iter()).take(BATCH) {
                match order {
                    Order::Write { key, handle, ack } => {
                        let owed = self.owed.entry(key).or_default();
                        owed.handle = handle.or_else(|| owed.handle.take());
                        owed.chain = true;
                        acks.extend(ack);
                    }
                    Order::Shelve { name, ack } => {
                        self.owed_values.insert(name);
                        acks.extend(ack);
                    }
                    Order::Stop => stop = true,
                }
            }
            if stop || touches_at.elapsed() >= TOUCH_EVERY {
                touches_at = Instant::now();
                self.take_touches();
            }
            self.commit(acks);
            if stop {
                return;
            }
            self.look_for_room();
        }
    }

    fn take_touches(&mut self) {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        for key in touched {
            self.owed.entry(key).or_default();
        }
    }

    fn commit(&mut self, acks: Vec<Ack>) {
        if self.owed.is_empty() && self.owed_values.is_empty() {
            return;
        }
        let committed = self.try_commit();
        match &committed {
            Ok(()) => {
                self.owed.clear();
                self.owed_values.clear();
            }
            Err(error) => {
                tracing::error!(event = "store.commit_failed", file = %self.path.display(), error = %error);
                // After an error of the disk the database must be opened anew.
                self.database = None;
                self.failing.store(true, Ordering::Relaxed);
                self.room_at = Instant::now() + ROOM_AFTER;
            }
        }
        for ack in acks {
            let answer = match &committed {
                Ok(()) => Ok(()),
                Err(error) => Err(StoreError::Unavailable(error.to_string().into())),
            };
            // Whoever asked may have gone; the change stands.
            let _gone = ack.send(answer);
        }
    }

    /// A little may fit on a disk that is as good as full: it is well again when the largest record fits (S192).
    fn look_for_room(&mut self) {
        if !self.failing.load(Ordering::Relaxed) || Instant::now() < self.room_at {
            return;
        }
        self.room_at = Instant::now() + ROOM_AFTER;
        match self.try_room() {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(_) => self.database = None,
        }
    }

    fn try_room(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let database = self.database()?;
        for content in [Some(ROOM), None] {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(ROOM_TABLE)?;
                match content {
                    Some(size) => table.insert((), vec![0; size].as_slice())?.map(drop),
                    None => table.remove(())?.map(drop),
                };
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn database(&mut self) -> Result<&Database, OpenError> {
        Ok(match self.database.take() {
            Some(database) => self.database.insert(database),
            None => self.database.insert(open(&self.path)?),
        })
    }

    fn try_commit(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let transaction = self.database()?.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut chains = transaction.open_table(CHAINS)?;
            let mut seen = transaction.open_table(SEEN)?;
            for (key, owed) in &self.owed {
                let Some((record, at)) = self.memory.state(key) else {
                    records.remove(key.0)?;
                    chains.remove(key.0)?;
                    seen.remove(key.0)?;
                    continue;
                };
                seen.insert(key.0, at.as_millis())?;
                let Some(record) = record else { continue };
                if let Some(handle) = &owed.handle {
                    let sealed = sealed::seal(&self.keys, handle, &record).ok_or("no randomness to seal a record")?;
                    records.insert(key.0, write(&sealed)?.as_slice())?;
                }
                if owed.chain {
                    let chain = sealed::write_chain(&record.chain).ok_or("a chain cannot be written")?;
                    chains.insert(key.0, (record.revision, chain.as_slice()))?;
                }
            }
        }
        self.write_values(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    fn write_values(&self, transaction: &WriteTransaction) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut values = transaction.open_table(VALUES)?;
        for name in &self.owed_values {
            match self.memory.shelf.kept(name) {
                Some(Kept { shelved, ends }) => {
                    values.insert(name.to_bytes(), (shelved.version.0, ends.as_millis(), &*shelved.value))?;
                }
                None => {
                    values.remove(name.to_bytes())?;
                }
            }
        }
        Ok(())
    }
}

/// Opens or makes the file: for its owner only (S23).
#[allow(clippy::wildcard_enum_match_arm)] // The list of errors is the library's and grows.
fn open(path: &Path) -> Result<Database, OpenError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.exists()) {
        let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    let file = |source| OpenError::File { path: path.to_owned(), source };
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(file)?;
    close_to_others(path, &opened).map_err(file)?;
    let backend = redb::backends::FileBackend::new(opened);
    let database = backend.and_then(|backend| redb::Builder::new().set_cache_size(CACHE).create_with_backend(backend));
    database.map_err(|error| {
        if let redb::DatabaseError::DatabaseAlreadyOpen = error {
            return OpenError::InUse { path: path.to_owned() };
        }
        match redb::Error::from(error) {
            // That is how it says that the content makes no sense.
            redb::Error::Io(source) if source.kind() != io::ErrorKind::InvalidData => file(source),
            other => OpenError::Damaged { path: path.to_owned(), source: Box::new(other) },
        }
    })
}

fn close_to_others(path: &Path, file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(event = "store.readable", file = %path.display(), help = "others could read the session store: it is closed to them now");
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn read_all(database: &Database) -> Result<Vec<(SessionKey, Sealed)>, redb::Error> {
    let transaction = database.begin_write()?;
    for table in [transaction.open_table(RECORDS).map(drop), transaction.open_table(CHAINS).map(drop)] {
        table?;
    }
    transaction.open_table(SEEN)?;
    transaction.open_table(VALUES)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let records = transaction.open_table(RECORDS)?;
    let (chains, seen) = (transaction.open_table(CHAINS)?, transaction.open_table(SEEN)?);
    let mut all = Vec::new();
    for row in records.iter()? {
        let (key, record) = row?;
        let key = key.value();
        let (chain, seen) = (chains.get(key)?, seen.get(key)?);
        let form = postcard::from_bytes::<RecordForm<'_>>(record.value());
        let (Ok(form), Some(chain), Some(seen)) = (form, chain, seen) else {
            tracing::error!(event = "store.record_damaged", session = &*SessionKey(key).session_ref());
            continue;
        };
        let (revision, chain) = chain.value();
        let cookie = |(field, sealed): &([u8; 16], &[u8])| SealedCookie { field: *field, sealed: sealed.to_vec() };
        let sealed = Sealed {
            readable: form.readable.to_vec(),
            identity: form.identity.map(<[u8]>::to_vec),
            chain: chain.to_vec(),
            cookies: form.cookies.iter().map(cookie).collect(),
            revision,
            seen: Timestamp::from_millis(seen.value()),
        };
        all.push((SessionKey(key), sealed));
    }
    Ok(all)
}

fn read_values(database: &Database) -> Result<Vec<(Name, Kept)>, redb::Error> {
    let values = database.begin_read()?.open_table(VALUES)?;
    let mut all = Vec::new();
    for row in values.iter()? {
        let (name, kept) = row?;
        let (version, ends, value) = kept.value();
        let shelved = Shelved { version: Version(version), value: Bytes::copy_from_slice(value) };
        // Kinds that a newer version has are left alone.
        all.extend(
            Name::from_bytes(name.value()).map(|name| (name, Kept { shelved, ends: Timestamp::from_millis(ends) })),
        );
    }
    Ok(all)
}
