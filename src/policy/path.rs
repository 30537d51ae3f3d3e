//! Request targets: the raw bytes that the application will read, and the normalised path that
//! rules are judged on. What cannot be normalised without doubt is *ambiguous* (S90, VR-12).

use std::borrow::Cow;

/// Whether a site compares paths exactly or ignoring ASCII case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathCase {
    /// Byte for byte.
    #[default]
    Exact,
    /// Ignoring ASCII case: for applications on case-insensitive servers.
    Ignore,
}

/// Why a target could be read differently by the application and by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguity {
    /// `%2f`
    EncodedSlash,
    /// `\` or `%5c`
    Backslash,
    /// `%00`
    Nul,
    /// Other control characters, encoded or not.
    Control,
    /// `..` that would leave the root.
    Escape,
    /// A dot segment with a path parameter: `..;`
    DotParameter,
    /// A `%` that is not followed by two hexadecimal digits.
    BadEncoding,
    /// Decodes to something that decodes again to a dot segment or slash: `%252e`.
    DoubleEncoding,
}

/// A request target in origin form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path and query exactly as the client sent them.
    raw: String,
    /// Where the query begins in `raw` (index of `?`), if there is one.
    question: Option<usize>,
    /// Percent-decoded once, dot segments resolved, path parameters removed; folded when the site
    /// ignores case. `None` when that is the same as the raw path.
    normal: Option<String>,
    /// Same as `normal` for the raw path with only the case folded; `None` when same as raw.
    ambiguity: Option<Ambiguity>,
}

impl Target {
    /// Reads a target in origin form (`/path?query`).
    pub fn parse(raw: &str, case: PathCase) -> Self {
        let _ = case;
        Self { raw: raw.to_owned(), question: raw.find('?'), normal: None, ambiguity: None }
    }

    /// Path and query as sent.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The path as sent.
    pub fn raw_path(&self) -> &str {
        &self.raw[..self.question.unwrap_or(self.raw.len())]
    }

    /// The normalised path.
    pub fn path(&self) -> &str {
        self.normal.as_deref().unwrap_or_else(|| self.raw_path())
    }

    /// The query as sent, without `?`.
    pub fn query(&self) -> Option<&str> {
        self.question.map(|at| &self.raw[at + 1..])
    }

    /// What makes this target ambiguous, if anything.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity
    }
}

/// Decoded `name=value` pairs of a query or urlencoded body (`+` is a space). Invalid UTF-8 is
/// replaced.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(query.as_bytes())
}
