//! Which targets a login or logout rule is about.

use crate::policy::glob::Glob;
use crate::policy::path;
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
    /// What is below the path, if that is one of a file.
    below: Option<Glob>,
}

impl PathRule {
    /// Reads `/path` or `/path?name=value&…`, encoded or not.
    pub fn parse(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let read = |piece: &str| {
            let (name, value) = parameters(piece).next()?;
            Some((name.into_owned(), piece.contains('=').then(|| value.into_owned())))
        };
        let path = path::decoded(path);
        let below = is_file(&path).then(|| Glob::new(format!("{path}/*")));
        Self { glob: Glob::new(path), parameters: query.split('&').filter_map(read).collect(), below }
    }

    /// Whether the normalised target matches.
    pub fn matches(&self, target: &Target) -> bool {
        self.matches_path(target.path(), target.case()) && self.has_parameters(target)
    }

    /// Whether only required parameters are missing in the query.
    pub fn matches_but_for_parameters(&self, target: &Target) -> bool {
        !self.has_parameters(target) && self.matches_path(target.path(), target.case())
    }

    /// Whether it matches, for what must not be missed: applications take a trailing slash for the same.
    pub fn matches_also_with_slash(&self, target: &Target) -> bool {
        let without = target.path().strip_suffix('/');
        self.matches(target)
            || (without.is_some_and(|path| self.matches_path(path, target.case())) && self.has_parameters(target))
    }

    fn has_parameters(&self, target: &Target) -> bool {
        self.parameters.iter().all(|wanted| has(target, wanted))
    }

    /// How far the rule opens the target to visitors without a session. What opens must match however
    /// the application reads it: as sent (but for a servlet's session), without detours or doubt, and with no
    /// second value of a required parameter.
    pub fn opens(&self, target: &Target) -> Opening {
        let is_certain = target.ambiguity().is_none()
            && target.is_direct()
            && self.matches(target)
            && self.matches_path(&target.bare_path(), target.case())
            && self.parameters.iter().all(|wanted| has_only(target, wanted));
        match is_certain {
            false => Opening::None,
            true if self.glob.matches_in(target.path(), target.case()) => Opening::Whole,
            true => Opening::Attempt,
        }
    }

    fn matches_path(&self, path: &str, case: PathCase) -> bool {
        [Some(&self.glob), self.below.as_ref()].into_iter().flatten().any(|glob| glob.matches_in(path, case))
    }
}

/// Whether what ends the path has a file extension.
fn is_file(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty() && !extension.is_empty() && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// How far a login rule opens a target to visitors without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// Not at all.
    None,
    /// For attempts to log in only: it is below the rule's path.
    Attempt,
    /// For every request.
    Whole,
}

fn has(target: &Target, (name, value): &(String, Option<String>)) -> bool {
    parameters(target.query().unwrap_or("")).any(|(sent, sent_value)| {
        sent == name.as_str() && value.as_ref().is_none_or(|value| sent_value == value.as_str())
    })
}

/// Applications differ in which of two values they take.
fn has_only(target: &Target, (name, value): &(String, Option<String>)) -> bool {
    let mut sent = parameters(target.query().unwrap_or("")).filter(|(sent, _)| sent == name.as_str());
    sent.all(|(_, sent_value)| value.as_ref().is_none_or(|value| sent_value == value.as_str()))
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
            ("/caf%C3%A9", "/caf%C3%A9", true),
        ] {
            assert_eq!(matches(rule, raw), expected, "{rule} {raw}");
        }
    }
    #[test]
    fn what_opens_without_a_session_is_beyond_doubt() {
        // S90, VR-13
        for (rule, raw, opening) in [
            ("/login", "/login", Opening::Whole),
            ("/login", "/login?next=/x", Opening::Whole),
            ("/login", "/login;jsessionid=1", Opening::Whole),
            ("/login", "/log%69n", Opening::None),
            ("/login", "//login", Opening::None),
            ("/login", "/admin/../login", Opening::None),
            ("/login", "/admin;/../login", Opening::None),
            ("/*/login", "/admin%2flogin", Opening::None),
            ("/*/login", "/admin/..;/login", Opening::None),
            ("/caf\u{e9}/login", "/caf%C3%A9/login", Opening::Whole),
            ("/x.php?do=login", "/x.php?do=login&id=1", Opening::Whole),
            ("/x.php?do=login", "/x.php?do=login&do=login", Opening::Whole),
            ("/x.php?do=login", "/x.php?do=login&do=admin", Opening::None),
            ("/x.php?do=login", "/x.php?do=admin&d%6f=login", Opening::None),
            ("/x.php", "/x.php/login", Opening::Attempt),
            ("/x.php", "/y/../x.php/login", Opening::None),
        ] {
            let target = Target::parse(raw, PathCase::Exact);
            assert_eq!(PathRule::parse(rule).opens(&target), opening, "{rule} {raw}");
        }
    }
}
