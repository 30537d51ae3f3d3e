//! Globs: `*` is any run of characters including `/`, all else literal, anchored at both ends.

use std::fmt;

use http::Method;

use crate::policy::path::PathCase;
use crate::policy::path::Reading;
use crate::policy::path::Target;

/// A pattern with `*` as its only special character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// Where the first and the last `*` are, if there are any.
    stars: Option<(usize, usize)>,
    has_question: bool,
}

impl Glob {
    /// Every text is a glob.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { stars: text.find('*').zip(text.rfind('*')), has_question: text.contains('?'), text }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` matches. Linear in the text for each literal piece: between two
    /// stars the first place where a piece fits is as good as any later one.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, last)) = self.stars else { return self.text == text };
        let (head, tail) = (&self.text[..first], &self.text[last + 1..]);
        let Some(mut text) = text.strip_prefix(head) else { return false };
        if first < last {
            for piece in self.text[first + 1..last].split('*') {
                let Some(at) = text.find(piece) else { return false };
                text = &text[at + piece.len()..];
            }
        }
        text.ends_with(tail)
    }

    /// Whether the text matches under these rules for case.
    pub fn matches_in(&self, text: &str, case: PathCase) -> bool {
        match case {
            PathCase::Exact => self.matches(text),
            PathCase::Ignore => Self::new(self.text.to_ascii_lowercase()).matches(&text.to_ascii_lowercase()),
        }
    }

    /// Bytes before the first `*`: how specific the pattern is.
    pub fn literal_prefix(&self) -> usize {
        self.stars.map_or(self.text.len(), |(first, _)| first)
    }

    /// Whether `?` is in it.
    pub fn has_question(&self) -> bool {
        self.has_question
    }
}

/// A glob over request targets, optionally for one method: `"/static/*"`, `"OPTIONS /api/*"`. A glob
/// that contains `?` sees path and query, any other only the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// Only this method, when given.
    pub method: Option<Method>,
    /// What the target must match.
    pub glob: Glob,
}

/// As it is written in the configuration.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            Some(method) => write!(f, "{method} {}", self.glob.as_str()),
            None => f.write_str(self.glob.as_str()),
        }
    }
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
        let begins_a_path = |text: &str| text.starts_with(['/', '*']);
        let (method, glob) = match text.split_once(' ') {
            Some((method, glob)) if !begins_a_path(text) => (Some(method), glob.trim_start()),
            Some(_) | None => (None, text),
        };
        if !begins_a_path(glob) {
            return Err(PatternError::NotAPath);
        }
        let method = match method {
            Some(word) if word.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                Some(Method::from_bytes(word.as_bytes()).map_err(|_| PatternError::Method(word.to_owned()))?)
            }
            Some(word) => return Err(PatternError::Method(word.to_owned())),
            None => None,
        };
        Ok(Self { method, glob: Glob::new(glob) })
    }

    /// Whether the normalised form of the target matches, its query decoded.
    pub fn matches(&self, method: &Method, target: &Target) -> bool {
        self.matches_reading(method, &target.normal_reading(), target.case())
    }

    /// Whether the target matches however the application reads it: what a pattern must do to open
    /// something for a target (VR-13).
    pub fn opens(&self, method: &Method, target: &Target) -> bool {
        let matches = |reading| self.matches_reading(method, &reading, target.case());
        target.ambiguity().is_none() && target.readings().all(matches)
    }

    /// Whether the target matches if it is read like this.
    pub fn matches_reading(&self, method: &Method, reading: &Reading<'_>, case: PathCase) -> bool {
        if !self.is_for(method) {
            return false;
        }
        if !self.glob.has_question() {
            return self.glob.matches_in(&reading.path, case);
        }
        self.glob.matches_in(&format!("{}?{}", reading.path, reading.query), case)
    }

    /// HEAD is a GET without its content (RFC 9110 9.3.2).
    fn is_for(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|only| only == method || (*only == Method::GET && *method == Method::HEAD))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_are_any_run_and_the_rest_is_literal() {
        for (glob, text, expected) in [
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/static/*", "/static/a/b.css", true),
            ("/static/*", "/static", false),
            ("*.css", "/x.css", true),
            ("/a*b*c", "/aXbYc", true),
            ("/a*b*c", "/acb", false),
            ("/a*a", "/a", false),
            ("*", "", true),
            ("/[x]?", "/[x]?", true),
            ("ab*ab", "ab", false),
        ] {
            assert_eq!(Glob::new(glob).matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn patterns_have_a_method_or_none() {
        let pattern = PathPattern::parse("OPTIONS /api/*").unwrap();
        let target = Target::parse("/api/x", PathCase::Exact);
        assert!(pattern.matches(&Method::OPTIONS, &target) && !pattern.matches(&Method::GET, &target));
        let get = PathPattern::parse("GET /api/*").unwrap();
        assert!(get.matches(&Method::HEAD, &target) && !get.matches(&Method::POST, &target));
        assert_eq!(PathPattern::parse("/my files/*").unwrap().method, None);
        assert_eq!(PathPattern::parse("static/*"), Err(PatternError::NotAPath));
        assert_eq!(PathPattern::parse("get /x"), Err(PatternError::Method("get".into())));
    }

    #[test]
    fn only_a_glob_with_a_question_mark_sees_the_query() {
        // VR-12
        let plain = PathPattern::parse("/admin").unwrap();
        let with_query = PathPattern::parse("/index.php?page=about*").unwrap();
        let target = |raw| Target::parse(raw, PathCase::Exact);
        assert!(plain.matches(&Method::GET, &target("/admin?x=/public")));
        assert!(with_query.matches(&Method::GET, &target("/index.php?page=about&x")));
        assert!(!with_query.matches(&Method::GET, &target("/index.php")));
        let encoded = target("/index.php?p%61ge=about");
        assert!(with_query.matches(&Method::GET, &encoded) && !with_query.opens(&Method::GET, &encoded));
    }

    proptest! {
        #[test]
        fn globs_agree_with_regular_expressions(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let expression = format!("^{}$", glob.replace('*', ".*"));
            let expected = regex::Regex::new(&expression).unwrap().is_match(&text);
            prop_assert_eq!(Glob::new(glob).matches(&text), expected);
        }
    }
}
