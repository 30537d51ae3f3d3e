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
    /// Other control characters, encoded.
    Control,
    /// `..` that would leave the root.
    Escape,
    /// A dot segment with a path parameter: `..;`
    DotParameter,
    /// A `%` that is not followed by two hexadecimal digits.
    BadEncoding,
    /// What is decoded decodes again to a dot, slash, backslash or percent sign: `%252e`.
    DoubleEncoding,
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
    ambiguity: Option<Ambiguity>,
    case: PathCase,
}

impl Target {
    /// Reads a target in origin form (`/path?query`). Its normalised path is percent-decoded once,
    /// without path parameters (an encoded `;` begins them as well), empty segments and dot segments
    /// (RFC 3986 5.2.4).
    pub fn parse(raw: &str, case: PathCase) -> Self {
        let question = raw.find('?');
        let path = &raw[..question.unwrap_or(raw.len())];
        if is_plain(path) {
            return Self { raw: raw.to_owned(), question, normal: None, unresolved: None, ambiguity: None, case };
        }
        let Normalised { path: normal, unresolved, ambiguity } = normalise(path);
        let normal = (normal != path).then_some(normal);
        Self { raw: raw.to_owned(), question, normal, unresolved, ambiguity, case }
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

    /// Whether the path leads where it is written: no dot segments, no empty ones. An application that
    /// does not resolve those sees another path than the normalised one.
    pub fn is_direct(&self) -> bool {
        self.unresolved.is_none()
    }

    /// Every path that an application may see: normalised, as sent, and decoded with its detours.
    pub fn forms(&self) -> impl Iterator<Item = &str> {
        let raw = self.normal.is_some().then(|| self.raw_path());
        [Some(self.path()), raw, self.unresolved.as_deref()].into_iter().flatten()
    }

    /// How the site compares paths.
    pub fn case(&self) -> PathCase {
        self.case
    }

    /// Whether the normalised path is this one.
    pub fn is_path(&self, path: &str) -> bool {
        match self.case {
            PathCase::Exact => self.path() == path,
            PathCase::Ignore => self.path().eq_ignore_ascii_case(path),
        }
    }
}

/// Decoded `name=value` pairs of a query or urlencoded body (`+` is a space). Invalid UTF-8 is
/// replaced.
pub fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(query.as_bytes())
}

/// Whether nothing in the path needs a second look: the common case, without an allocation.
fn is_plain(path: &str) -> bool {
    let unusual = |byte: &u8| matches!(byte, b'%' | b'\\' | b';') || byte.is_ascii_control();
    !path.as_bytes().iter().any(unusual) && !path.contains("//") && !path.contains("/.")
}

struct Normalised {
    path: String,
    /// Before dot segments and empty ones were resolved, if there were any.
    unresolved: Option<String>,
    /// The first thing about it that is in doubt.
    ambiguity: Option<Ambiguity>,
}

fn normalise(path: &str) -> Normalised {
    let mut doubt = path.contains('\\').then_some(Ambiguity::Backslash);
    let mut note = |ambiguity: Option<Ambiguity>| doubt = doubt.or(ambiguity);
    let mut names: Vec<String> = Vec::new();
    for segment in path.split('/').skip(1) {
        let (name, parameters) = split_parameters(segment);
        let (name, ambiguity) = decode(name);
        note(ambiguity);
        note(parameters.and_then(|parameters| decode(parameters).1));
        note((is_dots(&name) && parameters.is_some()).then_some(Ambiguity::DotParameter));
        names.push(name);
    }
    let mut kept: Vec<&str> = Vec::new();
    for name in &names {
        match name.as_str() {
            "" | "." => {}
            ".." => note(kept.pop().is_none().then_some(Ambiguity::Escape)),
            name => kept.push(name),
        }
    }
    let is_directory = names.last().is_some_and(|last| last.is_empty() || is_dots(last));
    if is_directory || kept.is_empty() {
        kept.push("");
    }
    let written = |names: &[&str]| names.iter().flat_map(|name| ["/", *name]).collect::<String>();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    Normalised { path: written(&kept), unresolved: (all != kept).then(|| written(&all)), ambiguity: doubt }
}

fn is_dots(name: &str) -> bool {
    name == "." || name == ".."
}

/// A segment before its first `;`, and what follows. Some applications decode first, so that `%3b`
/// is one as well.
fn split_parameters(segment: &str) -> (&str, Option<&str>) {
    let is_encoded = |at: usize| segment.as_bytes()[at..].get(..3).is_some_and(|it| it.eq_ignore_ascii_case(b"%3b"));
    let at = segment.bytes().enumerate().position(|(at, byte)| byte == b';' || (byte == b'%' && is_encoded(at)));
    match at {
        Some(at) if segment[at..].starts_with(';') => (&segment[..at], Some(&segment[at + 1..])),
        Some(at) => (&segment[..at], Some(&segment[at + 3..])),
        None => (segment, None),
    }
}

/// A segment decoded once. Bytes that are no UTF-8 stay encoded: they cannot match a rule by accident,
/// nor keep the rest of the segment from matching one.
fn decode(segment: &str) -> (String, Option<Ambiguity>) {
    let mut doubt = None;
    let mut bytes = Vec::with_capacity(segment.len());
    let raw = segment.as_bytes();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'%' {
            bytes.push(raw[at]);
            at += 1;
            continue;
        }
        let digits = raw.get(at + 1).zip(raw.get(at + 2)).and_then(|(high, low)| Some((hex(*high)?, hex(*low)?)));
        match digits {
            Some((high, low)) => {
                let byte = high << 4 | low;
                doubt = doubt.or_else(|| doubt_about(byte, &raw[at + 3..]));
                bytes.push(byte);
                at += 3;
            }
            None => {
                doubt = doubt.or(Some(Ambiguity::BadEncoding));
                bytes.push(b'%');
                at += 1;
            }
        }
    }
    (text(bytes), doubt)
}

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

fn doubt_about(byte: u8, rest: &[u8]) -> Option<Ambiguity> {
    match byte {
        b'/' => Some(Ambiguity::EncodedSlash),
        b'\\' => Some(Ambiguity::Backslash),
        0 => Some(Ambiguity::Nul),
        1..=0x1f | 0x7f => Some(Ambiguity::Control),
        b'%' => {
            let again = rest.first().zip(rest.get(1)).and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?));
            matches!(again, Some(b'.' | b'/' | b'\\' | b'%' | 0)).then_some(Ambiguity::DoubleEncoding)
        }
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        Target::parse(raw, PathCase::Exact).path().to_owned()
    }

    #[test]
    fn paths_are_normalised_for_the_rules_and_kept_for_the_application() {
        // S90, VR-12, VR-54
        for (raw, path) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/a?b/../c", "/a"),
            ("/%61dmin", "/admin"),
            ("/a/../b", "/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/%2e%2e/b", "/b"),
            ("//admin", "/admin"),
            ("/a//b", "/a/b"),
            ("/admin;x=1/y;z", "/admin/y"),
            ("/login;jsessionid=1F", "/login"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/%ff", "/%ff"),
            ("/%61dmin%ff", "/admin%ff"),
            ("/admin%3bx/y", "/admin/y"),
            ("/.hidden", "/.hidden"),
            ("/a/..", "/"),
        ] {
            assert_eq!(normal(raw), path, "{raw}");
            let target = Target::parse(raw, PathCase::Exact);
            assert_eq!(target.raw(), raw);
            assert_eq!(target.ambiguity(), None, "{raw}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_ambiguous() {
        // S90, VR-12, VR-22
        for (raw, ambiguity) in [
            ("/public/..%2fadmin", Ambiguity::EncodedSlash),
            ("/a%2Fb", Ambiguity::EncodedSlash),
            ("/a\\b", Ambiguity::Backslash),
            ("/a%5cb", Ambiguity::Backslash),
            ("/a%00.css", Ambiguity::Nul),
            ("/a%0d%0aX", Ambiguity::Control),
            ("/../etc", Ambiguity::Escape),
            ("/a/../../b", Ambiguity::Escape),
            ("/%2e%2e/x", Ambiguity::Escape),
            ("/public/..;/admin", Ambiguity::DotParameter),
            ("/a/.;x/b", Ambiguity::DotParameter),
            ("/a/..%3B/b", Ambiguity::DotParameter),
            ("/a%", Ambiguity::BadEncoding),
            ("/a%zz", Ambiguity::BadEncoding),
            ("/a/%252e%252e/b", Ambiguity::DoubleEncoding),
            ("/a%252fb", Ambiguity::DoubleEncoding),
            ("/a;x=%2f", Ambiguity::EncodedSlash),
        ] {
            assert_eq!(Target::parse(raw, PathCase::Exact).ambiguity(), Some(ambiguity), "{raw}");
        }
    }

    #[test]
    fn a_path_with_detours_is_not_direct() {
        // VR-13
        for (raw, direct) in [
            ("/login", true),
            ("/login/", true),
            ("/log%69n;x", true),
            ("/x/../login", false),
            ("/x/%2e%2e/login", false),
            ("//login", false),
            ("/x//login", false),
            ("/./login", false),
            ("/login/.", false),
        ] {
            assert_eq!(Target::parse(raw, PathCase::Exact).is_direct(), direct, "{raw}");
        }
    }

    #[test]
    fn the_query_is_never_part_of_the_path() {
        let target = Target::parse("/a?x=%2f%00&y=;..", PathCase::Exact);
        assert_eq!((target.path(), target.query(), target.ambiguity()), ("/a", Some("x=%2f%00&y=;.."), None));
    }

    proptest! {
        #[test]
        fn normalising_never_panics_and_happens_once(raw in "/[a-c%./;2efEF\\\\]{0,24}") {
            let target = Target::parse(&raw, PathCase::Exact);
            prop_assert!(target.path().starts_with('/') || target.ambiguity().is_some());
            if target.ambiguity().is_none() && !target.path().contains(['%', ';']) {
                prop_assert_eq!(normal(target.path()), target.path());
            }
        }
    }
}
