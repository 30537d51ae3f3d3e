//! Who may reach which path: public, protected or denied, with the precedence of `[site.access]`.

use http::Method;

use crate::policy::glob::PathPattern;
use crate::policy::path::PathCase;
use crate::policy::path::Reading;
use crate::policy::path::Target;

/// What a path asks of its visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Open to everyone.
    Public,
    /// Needs an authenticated session.
    Protected,
    /// Closed for everyone.
    Denied,
}

/// What happens to a target that the application might read differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AmbiguousPaths {
    /// Refused with 400.
    #[default]
    Reject,
    /// Forwarded, but never counted as public.
    Allow,
}

/// `[site.access]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRules {
    /// `true` when `default = "public"`.
    pub default_public: bool,
    /// Open paths.
    pub public: Vec<PathPattern>,
    /// Protected paths.
    pub protected: Vec<PathPattern>,
    /// Closed paths; win over everything.
    pub deny: Vec<PathPattern>,
    /// Polling paths that are no activity.
    pub untouched: Vec<PathPattern>,
    /// Ambiguous targets.
    pub ambiguous: AmbiguousPaths,
}

impl AccessRules {
    /// `deny` wins; otherwise the pattern with the longest literal prefix, at a tie the stricter.
    /// Public only if it is however the application reads the target.
    pub fn judge(&self, method: &Method, target: &Target) -> Access {
        let case = target.case();
        let denies = |reading| self.deny.iter().any(|pattern| pattern.matches_reading(method, &reading, case));
        if !self.deny.is_empty() && target.readings().chain([target.raw_reading()]).any(denies) {
            return Access::Denied;
        }
        let opens = |reading| self.opens(method, &reading, case);
        let may_be_public = self.default_public || !self.public.is_empty();
        let is_public = may_be_public && target.ambiguity().is_none() && target.readings().all(opens);
        if is_public { Access::Public } else { Access::Protected }
    }

    /// Whether `public` names this target: it is open on purpose, not for want of a rule.
    pub fn names_as_public(&self, method: &Method, target: &Target) -> bool {
        self.public.iter().any(|pattern| pattern.matches(method, target))
    }

    fn opens(&self, method: &Method, reading: &Reading<'_>, case: PathCase) -> bool {
        let longest = |patterns: &[PathPattern]| {
            let matching = patterns.iter().filter(|pattern| pattern.matches_reading(method, reading, case));
            matching.map(|pattern| pattern.glob.literal_prefix()).max()
        };
        match (longest(&self.public), longest(&self.protected)) {
            (Some(public), Some(protected)) => public > protected,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.default_public,
        }
    }

    /// Whether a request for this target is no activity (S38).
    pub fn is_untouched(&self, method: &Method, target: &Target) -> bool {
        self.untouched.iter().any(|pattern| pattern.matches(method, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<PathPattern> {
        texts.iter().map(|text| PathPattern::parse(text).unwrap()).collect()
    }

    fn rules() -> AccessRules {
        AccessRules {
            default_public: false,
            public: patterns(&["/public/*", "/same/*", "OPTIONS /api/*", "/a/b/*"]),
            protected: patterns(&["/public/private/*", "/same/*", "/a/*"]),
            deny: patterns(&["*.php~", "/public/deny/*"]),
            untouched: patterns(&["/poll"]),
            ambiguous: AmbiguousPaths::Allow,
        }
    }

    fn judge(method: &Method, raw: &str) -> Access {
        rules().judge(method, &Target::parse(raw, PathCase::Exact))
    }

    #[test]
    fn the_most_specific_pattern_wins_and_deny_beats_all() {
        for (raw, access) in [
            ("/", Access::Protected),
            ("/public/x.css", Access::Public),
            ("/public/private/x", Access::Protected),
            ("/same/x", Access::Protected),
            ("/a/x", Access::Protected),
            ("/a/b/x", Access::Public),
            ("/public/x.php~", Access::Denied),
            ("/public/deny/x", Access::Denied),
            ("/public/%64eny/x", Access::Denied),
        ] {
            assert_eq!(judge(&Method::GET, raw), access, "{raw}");
        }
        assert_eq!(judge(&Method::OPTIONS, "/api/x"), Access::Public);
        assert_eq!(judge(&Method::GET, "/api/x"), Access::Protected);
    }

    #[test]
    fn a_path_is_public_only_in_both_its_forms() {
        // S90, VR-12, VR-13: the raw bytes are what the application reads.
        for raw in [
            "/public/../admin",
            "/x/../public/a",
            "/%70ublic/a",
            "//public/a",
            "/public/..;/admin",
            "/public/%2e%2e/admin",
            "/public/..%2fadmin",
            "/public/\\admin",
            "/public/a?x=/admin/../../..#",
        ] {
            let expected = if raw.starts_with("/public/a?") { Access::Public } else { Access::Protected };
            assert_eq!(judge(&Method::GET, raw), expected, "{raw}");
        }
    }

    #[test]
    fn an_application_that_resolves_nothing_is_not_open_either() {
        // VR-13
        let rules = AccessRules { default_public: true, ..rules() };
        for raw in ["/%61/x/../..", "/a;v=1/..", "/a/x/../.."] {
            let target = Target::parse(raw, PathCase::Exact);
            assert_eq!(rules.judge(&Method::GET, &target), Access::Protected, "{raw}");
        }
    }

    #[test]
    fn case_is_ignored_where_the_application_ignores_it() {
        let target = Target::parse("/PUBLIC/Private/x", PathCase::Ignore);
        assert_eq!(rules().judge(&Method::GET, &target), Access::Protected);
        let target = Target::parse("/Public/x", PathCase::Ignore);
        assert_eq!(rules().judge(&Method::GET, &target), Access::Public);
    }

    #[test]
    fn polling_is_no_activity() {
        // S38
        assert!(rules().is_untouched(&Method::GET, &Target::parse("/poll?n=1", PathCase::Exact)));
    }
}
