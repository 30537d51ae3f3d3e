//! What an operator may have overlooked: the line of `proxy.toml` that a refused request asks for.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use url::Position;

use crate::policy::access::Access;
use crate::policy::path::Target;
use crate::policy::route::Route;
use crate::policy::site::Site;

/// Whether a login page of the site sent the request, as far as it says.
pub fn is_from_login_page(site: &Site, headers: &HeaderMap) -> bool {
    let Some(referer) = headers.get(header::REFERER).and_then(|value| value.to_str().ok()) else { return false };
    let Some(path) = referer.strip_prefix(&*site.origin.to_text()) else { return false };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    site.login.iter().any(|rule| rule.page.split('?').next() == Some(path))
}

/// The glob that would open this path for the login page: the folder that it is in, or, since pages may
/// be in a folder at the top, only what is of its kind there.
pub fn public(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match (folder.matches('/').count(), file.rsplit_once('.')) {
        (0, _) | (1, None) => path.to_owned(),
        (1, Some((_, kind))) => format!("{folder}/*.{kind}"),
        (_, _) => format!("{folder}/*"),
    }
}

/// The pattern that would show a user where a failed login leads, if that needs a session.
pub fn failure_page(site: &Site, location: Option<&HeaderValue>, from: &Target) -> Option<String> {
    let next = guarded(site, location, from)?;
    let parameter = next.query().and_then(|query| query.split('=').next());
    Some(match parameter {
        Some(name) => format!("GET {}?{name}=*", next.path()),
        None => format!("GET {}", next.path()),
    })
}

/// Where this `Location` leads, if that is a path of the site that needs a session.
pub(super) fn guarded(site: &Site, location: Option<&HeaderValue>, from: &Target) -> Option<Target> {
    let origin = site.origin.to_text();
    let base = url::Url::parse(&format!("{origin}{}", from.raw())).ok()?;
    let resolved = base.join(location?.to_str().ok()?).ok()?;
    if resolved.origin().ascii_serialization() != origin {
        return None;
    }
    let next = Target::parse(&resolved[Position::BeforePath..Position::AfterQuery], site.paths);
    let route = Route::of(site, &Method::GET, &next);
    (route.access == Access::Protected && !route.is_open()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_open_no_more_than_the_login_page_needs() {
        for (path, pattern) in [
            ("/favicon.ico", "/favicon.ico"),
            ("/static/a.css", "/static/*.css"),
            ("/tools/translations", "/tools/translations"),
            ("/static/admin/css/base.css", "/static/admin/css/*"),
            ("/browser/js/endpoints.js", "/browser/js/*"),
        ] {
            assert_eq!(public(path), pattern);
        }
    }
}
