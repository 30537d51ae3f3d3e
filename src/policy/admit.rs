//! May this request pass? The table over route and session, and what those get who may not.

use http::Method;
use url::Position;

use crate::policy::access::Access;
use crate::policy::csrf::RequestKind;
use crate::policy::location;
use crate::policy::path::Target;
use crate::policy::route::Route;
use crate::policy::site::Site;

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
    route: &Route,
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
    // Only a GET or HEAD can be repeated after the login (VR-29).
    let way_back = location::way_back(target).filter(|_| matches!(*method, Method::GET | Method::HEAD));
    match return_param.zip(way_back) {
        Some((name, way_back)) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair(name, way_back);
            let separator = if page.contains('?') { '&' } else { '?' };
            Refusal::SignIn(format!("{page}{separator}{}", query.finish()))
        }
        None => Refusal::SignIn(page.to_owned()),
    }
}

/// Where a 303 to the login page would send this request in a circle: the app answers its own login
/// page with a redirect to a path that needs a session (an old cookie makes it believe so).
pub fn is_login_loop(site: &Site, location: Option<&http::HeaderValue>, page: &Target) -> bool {
    let Some(location) = location.and_then(|value| value.to_str().ok()) else { return false };
    let origin = site.origin.to_text();
    let Ok(base) = url::Url::parse(&format!("{origin}{}", page.raw())) else { return false };
    let Ok(resolved) = base.join(location) else { return false };
    if resolved.origin().ascii_serialization() != origin {
        return false;
    }
    let next = Target::parse(&resolved[Position::BeforePath..Position::AfterQuery], site.paths);
    let route = Route::of(site, &Method::GET, &next);
    route.access == Access::Protected && !route.is_open()
}

/// Whether a `Referer` is the page of some login rule, whatever its query.
pub fn is_login_page(site: &Site, referer: &str) -> bool {
    let without_query = |target: &str| target.split(['?', '#']).next().map(str::to_owned);
    let page = referer.strip_prefix(&site.origin.to_text()).and_then(without_query);
    page.is_some() && site.login.iter().any(|rule| without_query(&rule.page) == page)
}

/// The glob that would open this path for the login page: its directory, or itself at the top.
pub fn public_hint(path: &str) -> String {
    match path.trim_start_matches('/').split_once('/') {
        Some((first, _)) => format!("/{first}/*"),
        None => path.to_owned(),
    }
}
