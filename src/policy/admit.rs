//! May this request pass? The table over route and session, and what those get who may not.

use http::Method;

use crate::policy::access::Access;
use crate::policy::csrf::RequestKind;
use crate::policy::location;
use crate::policy::path::Target;
use crate::policy::route::Route;
use crate::policy::site::Site;

/// Whether everyone gets this page, so that getting it says nothing about a login. Whatever its query,
/// the login page is such a one.
pub fn is_for_everyone(site: &Site, target: &Target) -> bool {
    let is_page = |page: &Target| site.paths.equal(target.path(), page.path());
    site.login.iter().any(|rule| is_page(&rule.page)) || site.access.names_as_public(&Method::GET, target)
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
