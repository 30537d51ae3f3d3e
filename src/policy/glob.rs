//! Globs: `*` is any run of characters including `/`, all else literal, anchored at both ends.

use http::Method;

use crate::policy::path::Target;

/// A pattern with `*` as its only special character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
}

impl Glob {
    /// Every text is a glob.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.text == text
    }

    /// Bytes before the first `*`: how specific the pattern is.
    pub fn literal_prefix(&self) -> usize {
        self.text.find('*').unwrap_or(self.text.len())
    }
}

/// A glob over request targets, optionally for one method: `"/static/*"`, `"OPTIONS /api/*"`. A glob
/// that contains `?` sees path and query, any other only the normalised path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// Only this method, when given.
    pub method: Option<Method>,
    /// What the target must match.
    pub glob: Glob,
}

/// Why a text is no path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The glob begins neither with `/` nor `*`.
    #[error("a path pattern begins with \"/\" or \"*\"")]
    NotAPath,
    /// The word in front is no method token.
    #[error("{0:?} is not an HTTP method")]
    Method(String),
}

impl PathPattern {
    /// Reads `"/glob"` or `"METHOD /glob"`.
    ///
    /// # Errors
    /// When the glob is no path, or the method no token.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(Self { method: None, glob: Glob::new(text) })
    }

    /// Whether the normalised form of the target matches.
    pub fn matches(&self, method: &Method, target: &Target) -> bool {
        self.method.as_ref().is_none_or(|only| only == method) && self.glob.matches(target.path())
    }
}
