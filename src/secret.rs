//! Passwords and tokens that do not stand in the file itself: looked up when they are needed, so that they can be
//! changed, and never printed.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a password or a token is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In the configuration itself.
    Written(String),
    /// `env:NAME`
    Environment(String),
    /// `file:PATH`
    File(PathBuf),
}

/// As it is written in the file, unless it is the secret itself.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(_) => f.write_str("the file"),
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(_) => f.write_str("Written(..)"),
            Self::Environment(name) => write!(f, "Environment({name})"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Secret {
    /// What it is; a file's last line break does not belong to it.
    ///
    /// # Errors
    /// When it is not where it should be.
    pub fn read(&self) -> Result<String, io::Error> {
        match self {
            Self::Written(text) => Ok(text.clone()),
            Self::Environment(name) => std::env::var(name)
                .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("the variable {name} is not set"))),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}
