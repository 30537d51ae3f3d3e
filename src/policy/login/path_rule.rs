//! Which targets a login or logout rule is about.

use crate::policy::glob::Glob;
use crate::policy::path::PathCase;
use crate::policy::path::Target;
use crate::policy::path::parameters;

/// A path glob that may end in `?name=value&…`: all those decoded parameters must be present, others
/// are ignored; a parameter without `=` must only be there. A path that ends in a file extension also
/// matches below it (PATH_INFO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Over the normalised path.
    pub glob: Glob,
    /// Required decoded parameters; `None` for any value.
    pub parameters: Vec<(String, Option<String>)>,
}

impl PathRule {
    /// Reads `/path` or `/path?name=value&…`.
    pub fn parse(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let read = |piece: &str| {
            let (name, value) = parameters(piece).next()?;
            Some((name.into_owned(), piece.contains('=').then(|| value.into_owned())))
        };
        Self { glob: Glob::new(path), parameters: query.split('&').filter_map(read).collect() }
    }

    /// Whether the normalised target matches.
    pub fn matches(&self, target: &Target) -> bool {
        self.matches_path(target) && self.parameters.iter().all(|wanted| has(target, wanted))
    }

    fn matches_path(&self, target: &Target) -> bool {
        if self.glob.matches_in(target.path(), target.case()) {
            return true;
        }
        let text = self.glob.as_str();
        let last = text.rsplit('/').next().unwrap_or(text);
        let is_file = last.rsplit_once('.').is_some_and(|(stem, extension)| {
            !stem.is_empty() && !extension.is_empty() && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        is_file && Glob::new(format!("{text}/*")).matches_in(target.path(), target.case())
    }
}

fn has(target: &Target, (name, value): &(String, Option<String>)) -> bool {
    parameters(target.query().unwrap_or("")).any(|(sent, sent_value)| {
        sent == name.as_str() && value.as_ref().is_none_or(|value| sent_value == value.as_str())
    })
}

impl PathRule {
    /// The path, if it has no `*`.
    pub fn literal(&self) -> Option<&str> {
        let text = self.glob.as_str();
        (!text.contains('*')).then_some(text)
    }

    /// Whether the rule could be about this exact path.
    pub fn is_about(&self, path: &str) -> bool {
        self.matches_path(&Target::parse(path, PathCase::Exact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(rule: &str, raw: &str) -> bool {
        PathRule::parse(rule).matches(&Target::parse(raw, PathCase::Exact))
    }

    #[test]
    fn parameters_must_be_there_and_others_do_not_matter() {
        for (rule, raw, expected) in [
            ("/login", "/login", true),
            ("/login", "/login?next=/x", true),
            ("/login", "/login/", false),
            ("/login", "/log%69n;jsessionid=1", true),
            ("/doku.php?do=login", "/doku.php?id=start&do=login", true),
            ("/doku.php?do=login", "/doku.php?do=log%69n", true),
            ("/doku.php?do=login", "/doku.php?do=logout", false),
            ("/doku.php?do=login", "/doku.php", false),
            ("/x?logout", "/x?logout", true),
            ("/x?logout", "/x?logout=1", true),
            ("/x?logout=", "/x?logout=1", false),
            ("/index.php", "/index.php/login", true),
            ("/index.php", "/index.phpx", false),
            ("/v1.2", "/v1.2/x", true),
            ("/login", "/login/x", false),
            ("/*/login", "/tenant/a/login", true),
        ] {
            assert_eq!(matches(rule, raw), expected, "{rule} {raw}");
        }
    }
}
