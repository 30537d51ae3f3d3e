//! May this request pass? The route of a request, and the table over route and session.

use http::HeaderMap;
use http::Method;

use crate::policy::access::Access;
use crate::policy::csrf::RequestKind;
use crate::policy::login::LoginRule;
use crate::policy::login::UserSource;
use crate::policy::logout;
use crate::policy::logout::LogoutMatch;
use crate::policy::logout::LogoutRule;
use crate::policy::path::Target;
use crate::policy::path::parameters;
use crate::policy::site::Site;

/// Our own endpoints live below this path on every site.
pub const OWN_PREFIX: &str = "/.vestibule/";

/// What a request is about, before its body was read.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// What the path asks of its visitor.
    pub access: Access,
    /// Whether it ends the session.
    pub logout: LogoutMatch<'a>,
    /// Whether some login rule matches method and path.
    pub login: bool,
    /// Whether one of those rules takes `Authorization: Basic` for a login.
    pub basic_login: bool,
    /// Whether it is a GET or HEAD of a login page.
    pub login_page: bool,
    /// Whether it is one of our own endpoints.
    pub own: bool,
}

impl<'a> Route<'a> {
    /// The route of a request on this site.
    pub fn of(site: &'a Site, method: &Method, target: &Target) -> Self {
        Self {
            access: site.access.judge(method, target),
            logout: logout::by_head(&site.logout, method, target),
            login: site.login.iter().any(|rule| rule.matches_head(method, target)),
            basic_login: site
                .login
                .iter()
                .any(|rule| rule.user.contains(&UserSource::Basic) && rule.matches_head(method, target)),
            login_page: matches!(*method, Method::GET | Method::HEAD)
                && site.login.iter().any(|rule| is_page(rule, target)),
            own: target.path().starts_with(OWN_PREFIX) || target.raw_path().starts_with(OWN_PREFIX),
        }
    }

    /// Whether the CSRF filter looks at it whatever its method (S44, S142).
    pub fn is_login_or_logout(&self) -> bool {
        self.login || matches!(self.logout, LogoutMatch::Yes(_) | LogoutMatch::NeedsBody)
    }

    /// Whether it passes without a session.
    pub fn is_open(&self) -> bool {
        match self.access {
            Access::Denied => false,
            Access::Public => true,
            Access::Protected => self.login || self.login_page,
        }
    }
}

/// Whether the target is the rule's page: its path, and exactly its query plus our `return_param`.
fn is_page(rule: &LoginRule, target: &Target) -> bool {
    let (page_path, page_query) = match rule.page.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rule.page.as_str(), ""),
    };
    if target.path() != page_path || !target.is_direct() {
        return false;
    }
    let ours = |name: &str| rule.return_param.as_deref() == Some(name);
    let sent: Vec<_> = parameters(target.query().unwrap_or("")).filter(|(name, _)| !ours(name)).collect();
    sent == parameters(page_query).collect::<Vec<_>>()
}

/// What a request without the session it needs gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Closed for everyone: 403.
    Denied,
    /// 303 to this path and query.
    SignIn(String),
    /// 401 with problem JSON.
    Unauthorized,
}

/// `None`: it may pass.
pub fn admit(
    site: &Site,
    route: &Route<'_>,
    method: &Method,
    target: &Target,
    kind: RequestKind,
    authenticated: bool,
) -> Option<Refusal> {
    match route.access {
        Access::Denied => Some(Refusal::Denied),
        Access::Public => None,
        Access::Protected if authenticated || route.is_open() => None,
        Access::Protected => Some(refusal(site, method, target, kind)),
    }
}

fn refusal(site: &Site, method: &Method, target: &Target, kind: RequestKind) -> Refusal {
    if kind != RequestKind::Navigation || site.login.is_empty() {
        return Refusal::Unauthorized;
    }
    let page = site.login_page();
    let return_param = site.login.first().and_then(|rule| rule.return_param.as_deref());
    match return_param {
        // Only a GET or HEAD can be repeated after the login (VR-29).
        Some(name) if matches!(*method, Method::GET | Method::HEAD) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair(name, target.raw());
            let separator = if page.contains('?') { '&' } else { '?' };
            Refusal::SignIn(format!("{page}{separator}{}", query.finish()))
        }
        Some(_) | None => Refusal::SignIn(page.to_owned()),
    }
}

/// The logout rule that a request with this body matches.
pub fn logout_by_form<'a>(
    site: &'a Site,
    method: &Method,
    target: &Target,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<&'a LogoutRule> {
    logout::by_form(&site.logout, method, target, headers, body)
}

/// Where a 303 to the login page would send this request in a circle: the app answers its own login
/// page with a redirect to a path that needs a session (an old cookie makes it believe so).
pub fn is_login_loop(site: &Site, location: Option<&http::HeaderValue>, page: &Target) -> bool {
    let Some(location) = location.and_then(|value| value.to_str().ok()) else { return false };
    let Ok(base) = url::Url::parse(&format!("{}{}", site.origin.to_text(), page.raw())) else { return false };
    let Ok(resolved) = base.join(location) else { return false };
    if resolved.host_str() != Some(site.origin.host.as_str()) {
        return false;
    }
    let mut path_and_query = resolved.path().to_owned();
    if let Some(query) = resolved.query() {
        path_and_query.push('?');
        path_and_query.push_str(query);
    }
    let next = Target::parse(&path_and_query, site.paths);
    let route = Route::of(site, &Method::GET, &next);
    route.access == Access::Protected && !route.is_open()
}

/// The glob that would open this path for the login page: its directory, or itself at the top.
pub fn public_hint(path: &str) -> String {
    match path.trim_start_matches('/').split_once('/') {
        Some((first, _)) => format!("/{first}/*"),
        None => path.to_owned(),
    }
}
