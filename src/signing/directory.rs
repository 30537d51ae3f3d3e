//! A directory of keys, which several processes may share. Whoever changes something there holds a lock, and
//! looks again first; files appear whole, under their name, and never change: whoever only reads needs none.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
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

    /// Changes what has to change; `None` when what is known is still so.
    pub(super) fn tend(&self, known: &Ring, now: Timestamp) -> Result<Option<Ring>, KeysError> {
        let names = self.names()?;
        let is_over = |place| keys::is_over(&names, place, now);
        if names == known.begins && keys::due(&names, now).is_none() && !(0..names.len()).any(is_over) {
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(self.path).map_err(self.failed(self.path))?;
        let _released_when_closed = self.lock()?;
        let there = Ring::of(self.read()?);
        let ring = there.replaced(now, |key| self.write(key))?;
        for begins in there.begins.iter().filter(|begins| !ring.begins.contains(begins)) {
            let path = self.file(*begins);
            fs::remove_file(&path).map_err(self.failed(&path))?;
        }
        Ok(Some(ring))
    }

    fn names(&self) -> Result<Vec<Timestamp>, KeysError> {
        let failed = self.failed(self.path);
        let entries = match fs::read_dir(self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(&failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(&failed)?.file_name();
            let seconds = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
            names.extend(seconds.map(|seconds: u64| Timestamp::from_millis(seconds.saturating_mul(1000))));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// `None` when another process has removed it meanwhile.
    fn load(&self, begins: Timestamp) -> Result<Option<Arc<Key>>, KeysError> {
        let path = self.file(begins);
        let pem = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            pem => pem.map_err(self.failed(&path))?,
        };
        close_to_others(&path).map_err(self.failed(&path))?;
        Key::from_pem(begins, &pem).map(|key| Some(Arc::new(key))).ok_or(KeysError::Damaged { path })
    }

    /// Durable and whole before it has its name.
    fn write(&self, key: &Key) -> Result<(), KeysError> {
        let (path, new) = (self.file(key.begins), self.path.join("new"));
        let failed = self.failed(&new);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(&failed)?;
        file.write_all(key.pem().as_bytes()).and_then(|()| file.sync_all()).map_err(&failed)?;
        fs::rename(&new, &path).map_err(self.failed(&path))?;
        File::open(self.path).and_then(|directory| directory.sync_all()).map_err(self.failed(self.path))?;
        Ok(())
    }

    /// Waits until nobody else changes anything here.
    fn lock(&self) -> Result<File, KeysError> {
        let path = self.path.join("lock");
        let failed = self.failed(&path);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(&failed)?;
        file.lock().map_err(&failed)?;
        Ok(file)
    }

    fn file(&self, begins: Timestamp) -> PathBuf {
        self.path.join(format!("{PREFIX}{}{SUFFIX}", begins.as_secs()))
    }

    fn failed(&self, path: &Path) -> impl Fn(io::Error) -> KeysError + use<> {
        let path = path.to_owned();
        move |source| KeysError::File { path: path.clone(), source }
    }
}

/// Whoever reads a key can say who anybody is.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(event = "assertion.key_readable", file = %path.display(), help = "others could read this key: it is closed to them now; remove it, and a new one is made");
    fs::set_permissions(path, Permissions::from_mode(0o600))
}
