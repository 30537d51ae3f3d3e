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

impl PathCase {
    /// Whether two paths are the same.
    pub fn equal(self, one: &str, other: &str) -> bool {
        match self {
            Self::Exact => one == other,
            Self::Ignore => one.eq_ignore_ascii_case(other),
        }
    }
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
    /// Other control characters, encoded.
    Control,
    /// `..` that would leave the root.
    Escape,
    /// `..` behind an empty segment: it takes that one back, or, where slashes are merged first, the one before.
    EmptySegment,
    /// A dot segment with a path parameter: `..;`
    DotParameter,
    /// A `%` that is not followed by two hexadecimal digits.
    BadEncoding,
    /// What is decoded decodes again to a character that separates, or that nobody has to encode: `%252e`, `%2561`.
    DoubleEncoding,
    /// A character in more bytes than it needs: `%c0%ae` is a dot to a careless decoder.
    Overlong,
}

impl Ambiguity {
    /// The name of the rule that refuses it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncodedSlash => "encoded-slash",
            Self::Backslash => "backslash",
            Self::Nul => "nul",
            Self::Control => "control",
            Self::Escape => "escape",
            Self::EmptySegment => "empty-segment",
            Self::DotParameter => "dot-parameter",
            Self::BadEncoding => "bad-encoding",
            Self::DoubleEncoding => "double-encoding",
            Self::Overlong => "overlong",
        }
    }
}

/// A target as an application may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The path.
    pub path: Cow<'a, str>,
    /// The query, without `?`.
    pub query: Cow<'a, str>,
}

/// A request target in origin form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    raw: String,
    question: Option<usize>,
    /// `None` when it is the same as the raw path.
    normal: Option<String>,
    /// With its detours, if it has any.
    unresolved: Option<String>,
    doubts: Vec<Ambiguity>,
    case: PathCase,
}

impl Target {
    /// Reads a target in origin form (`/path?query`). Its normalised path is percent-decoded once,
    /// without path parameters, empty segments and dot segments (RFC 3986 5.2.4).
    pub fn parse(raw: &str, case: PathCase) -> Self {
        let question = raw.find('?');
        let path = &raw[..question.unwrap_or(raw.len())];
        if is_plain(path) {
            return Self { raw: raw.to_owned(), question, normal: None, unresolved: None, doubts: Vec::new(), case };
        }
        let Normalised { path: normal, unresolved, doubts } = normalise(path);
        let normal = (normal != path).then_some(normal);
        Self { raw: raw.to_owned(), question, normal, unresolved, doubts, case }
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

    /// The target as rules see it: the normalised path, the query decoded once.
    pub fn normal_reading(&self) -> Reading<'_> {
        Reading { path: Cow::Borrowed(self.path()), query: self.decoded_query() }
    }

    /// The target byte for byte.
    pub fn raw_reading(&self) -> Reading<'_> {
        Reading { path: Cow::Borrowed(self.raw_path()), query: Cow::Borrowed(self.query().unwrap_or("")) }
    }

    /// The target in every way that an application may read it: normalised, decoded but with its
    /// detours, and as written.
    pub fn readings(&self) -> impl Iterator<Item = Reading<'_>> {
        let normal = self.normal_reading();
        let is_as_sent = self.normal.is_none() && matches!(normal.query, Cow::Borrowed(_));
        let written = Reading { path: self.written_path(), query: Cow::Borrowed(self.query().unwrap_or("")) };
        let unresolved = self.unresolved.as_deref();
        let unresolved = unresolved.map(|path| Reading { path: Cow::Borrowed(path), query: normal.query.clone() });
        [Some(normal), (!is_as_sent).then_some(written), unresolved].into_iter().flatten()
    }

    /// The path as sent, but for characters that cannot be sent in any other way than encoded, such
    /// as a space or a letter beyond ASCII: every reader takes those for the same.
    fn written_path(&self) -> Cow<'_, str> {
        if self.normal.is_none() {
            return Cow::Borrowed(self.raw_path());
        }
        let must_be_encoded = |byte: u8| byte >= 0x80 || b" \"<>^`{|}".contains(&byte);
        Cow::Owned(text(percent_decoded(self.raw_path(), must_be_encoded).0))
    }

    /// The query, percent-decoded once.
    fn decoded_query(&self) -> Cow<'_, str> {
        match self.query() {
            None => Cow::Borrowed(""),
            Some(query) if !query.contains('%') => Cow::Borrowed(query),
            Some(query) => Cow::Owned(decoded(query)),
        }
    }

    /// What makes this target ambiguous first, if anything.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.doubts.first().copied()
    }

    /// Everything that makes it ambiguous.
    pub fn doubts(&self) -> &[Ambiguity] {
        &self.doubts
    }

    /// Whether the path leads where it is written: no dot segments, no empty ones, and no parameters but
    /// a servlet's session. An application that does not resolve those sees another path than the
    /// normalised one.
    pub fn is_direct(&self) -> bool {
        let path = self.raw_path();
        let mut parameters = path.split('/').flat_map(|segment| segment.split(';').skip(1));
        let has_encoded = path.as_bytes().windows(3).any(|it| it.eq_ignore_ascii_case(b"%3b"));
        self.unresolved.is_none() && !has_encoded && parameters.all(is_session_parameter)
    }

    /// How the site compares paths.
    pub fn case(&self) -> PathCase {
        self.case
    }

    /// The written path without path parameters.
    pub fn bare_path(&self) -> String {
        let written = self.written_path();
        let names: Vec<&str> = written.split('/').map(|segment| segment.split(';').next().unwrap_or(segment)).collect();
        names.join("/")
    }

    /// Whether the path is that of the other target, however the application reads it.
    pub fn is_certainly(&self, other: &Self) -> bool {
        let is_same = |path: &str| self.case.equal(path, other.path());
        self.raw_path() == other.raw_path()
            || (is_same(self.path()) && self.is_direct() && self.doubts.is_empty() && is_same(&self.bare_path()))
    }
}

/// Decoded `name=value` pairs of a query or urlencoded body (`+` is a space). Invalid UTF-8 is
/// replaced.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(query.as_bytes())
}

/// The text percent-decoded once.
pub fn decoded(encoded: &str) -> String {
    text(percent_decoded(encoded, |_| true).0)
}

/// Whether nothing in the path needs a second look: the common case, in one go and without an allocation.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let is_detour = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !is_detour && !matches!(byte, b'%' | b'\\' | b';') && !byte.is_ascii_control()
    })
}

struct Normalised {
    path: String,
    /// Before dot segments and empty ones were resolved, if there were any.
    unresolved: Option<String>,
    /// What is in doubt about it, each kind once.
    doubts: Vec<Ambiguity>,
}

fn normalise(path: &str) -> Normalised {
    let (bytes, malformed) = percent_decoded(path, |_| true);
    let mut doubts = doubts_about(path, &bytes);
    let mut note = |ambiguity| {
        if !doubts.contains(&ambiguity) {
            doubts.push(ambiguity);
        }
    };
    if malformed {
        note(Ambiguity::BadEncoding);
    }
    let decoded = text(bytes);
    let mut names: Vec<&str> = Vec::new();
    // Empty segments are kept until the end, to see a `..` that stands behind one.
    let mut kept: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']).skip(1) {
        let (name, parameters) = segment.split_once(';').map_or((segment, None), |(name, rest)| (name, Some(rest)));
        if is_dots(name) && parameters.is_some() {
            note(Ambiguity::DotParameter);
        }
        names.push(name);
        if name == ".." {
            while kept.pop_if(|last| last.is_empty()).is_some() {
                note(Ambiguity::EmptySegment);
            }
            if kept.pop().is_none() {
                note(Ambiguity::Escape);
            }
        } else if name != "." {
            kept.push(name);
        }
    }
    kept.retain(|name| !name.is_empty());
    if kept.is_empty() || names.last().is_some_and(|last| last.is_empty() || is_dots(last)) {
        kept.push("");
    }
    let written = |names: &[&str]| names.iter().flat_map(|name| ["/", *name]).collect::<String>();
    let unresolved = (names != kept).then(|| written(&names));
    Normalised { path: written(&kept), unresolved, doubts }
}

/// Whether a path parameter is one that `without_session_parameter` takes out.
pub fn is_session_parameter(parameter: &str) -> bool {
    parameter.split('=').next().unwrap_or(parameter).eq_ignore_ascii_case("jsessionid")
}

fn is_dots(name: &str) -> bool {
    name == "." || name == ".."
}

/// What is in doubt about the characters of a path, encoded and decoded.
fn doubts_about(path: &str, decoded: &[u8]) -> Vec<Ambiguity> {
    let count = |bytes: &[u8], wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count();
    let found = [
        (count(decoded, b'/') > count(path.as_bytes(), b'/'), Ambiguity::EncodedSlash),
        (decoded.contains(&b'\\'), Ambiguity::Backslash),
        (decoded.contains(&0), Ambiguity::Nul),
        (decoded.iter().any(|byte| *byte != 0 && byte.is_ascii_control()), Ambiguity::Control),
        (decoded.windows(3).any(decodes_again), Ambiguity::DoubleEncoding),
        (decoded.windows(2).any(is_overlong), Ambiguity::Overlong),
    ];
    found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, ambiguity)| ambiguity).collect()
}

/// `%2e`, `%61` and the like, left over after decoding once.
fn decodes_again(three: &[u8]) -> bool {
    let &[b'%', high, low] = three else { return false };
    let again = hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low);
    // A letter that is encoded twice hides from whoever decodes once (RFC 3986 2.3).
    again.is_some_and(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b'/' | b'\\' | b'%' | b';' | 0)
    })
}

/// The beginning of a UTF-8 sequence that is longer than its character needs (RFC 3629 3).
fn is_overlong(two: &[u8]) -> bool {
    matches!(two, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f])
}

/// The text with the bytes decoded that are `wanted`, and whether some `%` is not followed by two
/// hexadecimal digits.
fn percent_decoded(text: &str, wanted: impl Fn(u8) -> bool) -> (Vec<u8>, bool) {
    let raw = text.as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut malformed = false;
    let mut at = 0;
    while at < raw.len() {
        let digits = raw.get(at + 1).zip(raw.get(at + 2)).and_then(|(high, low)| Some((hex(*high)?, hex(*low)?)));
        match digits.map(|(high, low)| high << 4 | low) {
            Some(byte) if raw[at] == b'%' && wanted(byte) => {
                bytes.push(byte);
                at += 3;
            }
            digits => {
                malformed |= raw[at] == b'%' && digits.is_none();
                bytes.push(raw[at]);
                at += 1;
            }
        }
    }
    (bytes, malformed)
}

/// Bytes that are no UTF-8 stay encoded: they cannot match a rule by accident, nor keep what is around
/// them from matching one.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut text = String::new();
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02x}")));
        }
        text
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
