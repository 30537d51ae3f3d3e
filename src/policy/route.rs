//! What a request is about, before its body was read.

use http::HeaderMap;
use http::Method;

use crate::policy::access::Access;
use crate::policy::csrf;
use crate::policy::login::LoginRule;
use crate::policy::login::Opening;
use crate::policy::logout;
use crate::policy::logout::LogoutMatch;
use crate::policy::path::Target;
use crate::policy::site::Site;

/// Our own endpoints live below this path on every site.
pub const OWN_PREFIX: &str = "/.vestibule/";

/// What a request is about, before its body was read.
#[derive(Clone, Debug)]
pub struct Route {
    /// What the path asks of its visitor.
    pub access: Access,
    /// Whether it ends the session.
    pub logout: LogoutMatch,
    /// How far login rules open it; `None` when none matches method and path.
    pub login: Option<Opening>,
    /// Whether one of those rules takes `Authorization: Basic` for a login.
    pub basic_login: bool,
    /// Whether it is a GET or HEAD of a login page.
    pub login_page: bool,
    /// Whether it is one of our own endpoints.
    pub own: bool,
}

impl Route {
    /// The route of a request on this site.
    pub fn of(site: &Site, method: &Method, target: &Target) -> Self {
        let rules = || site.login.iter().filter(|rule| rule.matches_head(method, target));
        Self {
            access: site.access.judge(method, target),
            logout: logout::by_head(&site.logout, method, target),
            login: rules().map(|rule| rule.opens(method, target)).max(),
            basic_login: rules().any(LoginRule::takes_basic),
            login_page: matches!(*method, Method::GET | Method::HEAD)
                && site.login.iter().any(|rule| rule.is_page(target)),
            own: target.path().starts_with(OWN_PREFIX) || target.raw_path().starts_with(OWN_PREFIX),
        }
    }

    /// Whether the CSRF filter looks at it whatever its method: it may log in or out (S44, S142). A link
    /// from elsewhere to a page that shares its path with a login or logout is neither.
    pub fn may_log_in_or_out(&self, site: &Site, method: &Method, target: &Target, headers: &HeaderMap) -> bool {
        // What browsers send from elsewhere with a safe method has no body.
        let has_body = !csrf::is_safe(method);
        let logs_out = match self.logout {
            LogoutMatch::Yes(_) => true,
            // A later rule may hold without one.
            LogoutMatch::NeedsBody => has_body || logout::by_form(&site.logout, method, target, headers, b"").is_some(),
            LogoutMatch::No => self.own && has_body,
        };
        let logs_in =
            |rule: &LoginRule| rule.matches_head(method, target) && (has_body || rule.is_met_by_head(target, headers));
        logs_out || site.login.iter().any(logs_in)
    }

    /// Whether it passes without a session.
    pub fn is_open(&self) -> bool {
        match self.access {
            Access::Denied => false,
            Access::Public => true,
            Access::Protected => self.login == Some(Opening::Whole) || self.login_page,
        }
    }

    /// Whether a login may be attempted without a session.
    pub fn takes_attempts(&self) -> bool {
        self.access == Access::Public || self.login >= Some(Opening::Attempt)
    }
}
