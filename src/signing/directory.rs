//! A directory of keys, which several processes may share. Whoever changes something there holds a lock, and
//! looks again first; files appear whole, under their name, and never change: whoever only reads needs none.
//! Nobody waits for the lock: who holds it may have been stopped.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::fs::TryLockError;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::policy::keys;
use crate::signing::Key;
use crate::signing::KeysError;
use crate::signing::Ring;

/// In its name is from when on it signs, in seconds since 1970.
const PREFIX: &str = "from-";
const SUFFIX: &str = ".pem";

pub(super) struct Directory<'a> {
    path: &'a Path,
}

impl<'a> Directory<'a> {
    pub(super) fn at(path: &'a Path) -> Self {
        Self { path }
    }

    /// The keys that are there. A directory that is not there has none.
    pub(super) fn read(&self) -> Result<Vec<Arc<Key>>, KeysError> {
        self.names()?.into_iter().filter_map(|begins| self.load(begins).transpose()).collect()
    }

    /// Changes what has to change, unless another process is at it; `None` when what is known is still so.
    pub(super) fn tend(&self, known: &Ring, now: Timestamp) -> Result<Option<Ring>, KeysError> {
        let names = self.names()?;
        let is_over = |place| keys::is_over(&names, place, now);
        if names == known.begins && keys::due(&names, now).is_none() && !(0..names.len()).any(is_over) {
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.path).map_err(self.failed(self.path))?;
        let Some(_released_when_dropped) = self.lock()? else { return self.look(known, &names, now) };
        let there = Ring::of(self.read()?);
        let ring = there.replaced(now, |key| self.write(key))?;
        for begins in there.begins.iter().filter(|begins| !ring.begins.contains(begins)) {
            let path = self.file(*begins);
            fs::remove_file(&path).map_err(self.failed(&path))?;
        }
        Ok(Some(ring))
    }

    /// Without the lock: what is there is taken, if it will do until the next round.
    fn look(&self, known: &Ring, names: &[Timestamp], now: Timestamp) -> Result<Option<Ring>, KeysError> {
        let ring = if names == known.begins { None } else { Some(Ring::of(self.read()?)) };
        if ring.as_ref().unwrap_or(known).signs(now) {
            Ok(ring)
        } else {
            Err(KeysError::Busy { path: self.path.to_owned() })
        }
    }

    fn names(&self) -> Result<Vec<Timestamp>, KeysError> {
        let failed = self.failed(self.path);
        let entries = match fs::read_dir(self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(&failed)?,
        };
        if fs::metadata(self.path).map_err(&failed)?.mode() & 0o022 != 0 {
            return Err(KeysError::Exposed { path: self.path.to_owned() });
        }
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(&failed)?.file_name();
            names.extend(name.to_str().and_then(begins));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// `None` when another process has removed it meanwhile.
    fn load(&self, begins: Timestamp) -> Result<Option<Arc<Key>>, KeysError> {
        let path = self.file(begins);
        let failed = self.failed(&path);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(&failed)?,
        };
        self.guard(&file)?;
        close_to_others(&path, &file).map_err(&failed)?;
        let mut pem = Vec::new();
        file.read_to_end(&mut pem).map_err(&failed)?;
        Key::from_pem(begins, &pem).map(|key| Some(Arc::new(key))).ok_or(KeysError::Damaged { path })
    }

    /// Durable and whole before it has its name.
    fn write(&self, key: &Key) -> Result<(), KeysError> {
        let (path, new) = (self.file(key.begins), self.path.join("new"));
        let failed = self.failed(&new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(&failed)?;
        file.write_all(key.pem().as_bytes()).and_then(|()| file.sync_all()).map_err(&failed)?;
        fs::rename(&new, &path).map_err(self.failed(&path))?;
        File::open(self.path).and_then(|directory| directory.sync_all()).map_err(self.failed(self.path))?;
        Ok(())
    }

    /// `None` while another process changes something here.
    fn lock(&self) -> Result<Option<Lock>, KeysError> {
        let path = self.path.join("lock");
        let failed = self.failed(&path);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(&failed)?;
        self.guard(&file)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Whoever owns the directory can put other files in the place of these.
    fn guard(&self, file: &File) -> Result<(), KeysError> {
        let owner = |metadata: io::Result<Metadata>| metadata.map(|metadata| metadata.uid());
        let directory = owner(fs::metadata(self.path)).map_err(self.failed(self.path))?;
        let file = owner(file.metadata()).map_err(self.failed(self.path))?;
        if may_own(directory, file) { Ok(()) } else { Err(KeysError::Exposed { path: self.path.to_owned() }) }
    }

    fn file(&self, begins: Timestamp) -> PathBuf {
        self.path.join(name(begins))
    }

    fn failed(&self, path: &Path) -> impl Fn(io::Error) -> KeysError + use<> {
        let path = path.to_owned();
        move |source| KeysError::File { path: path.clone(), source }
    }
}

struct Lock(File);

impl Drop for Lock {
    /// Closing would do, but for a program that is being started at this moment and still has the file open.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

fn name(begins: Timestamp) -> String {
    format!("{PREFIX}{}{SUFFIX}", begins.as_secs())
}

/// When a key of this name begins; `None` for a name that we would not give.
fn begins(file: &str) -> Option<Timestamp> {
    let seconds: u64 = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
    let begins = Timestamp::from_millis(seconds.checked_mul(1000)?);
    (name(begins) == file).then_some(begins)
}

/// Whether this user may own a directory with files of that one. Root may do anything anyway.
pub(super) fn may_own(directory: u32, files: u32) -> bool {
    directory == files || directory == 0
}

/// Whoever reads a key can say who anybody is.
fn close_to_others(path: &Path, file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(event = "assertion.key_readable", file = %path.display(), help = "others could read this key: it is closed to them now; remove it, and a new one is made");
    file.set_permissions(Permissions::from_mode(0o600))
}
