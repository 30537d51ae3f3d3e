//! What an operator may have overlooked: the line of `proxy.toml` that a refused request asks for.

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use url::Position;

use crate::policy::access::Access;
use crate::policy::glob::PathPattern;
use crate::policy::path::Target;
use crate::policy::path::parameters;
use crate::policy::route::Route;
use crate::policy::site::Site;

/// Whether a login page of the site sent the request, as far as it says.
pub fn is_from_login_page(site: &Site, headers: &HeaderMap) -> bool {
    let Some(referer) = headers.get(header::REFERER).and_then(|value| value.to_str().ok()) else { return false };
    let Some(path) = referer.strip_prefix(&*site.origin.to_text()) else { return false };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    has_login_page(site, path)
}

/// The glob that would open this path for the login page: a folder that by its name holds nothing but
/// assets, or else, since there may be pages beside it, no more than is needed.
pub fn public(path: &str) -> String {
    let top = path.trim_start_matches('/').split_once('/').map(|(folder, _)| folder);
    if let Some(folder) = top.filter(|folder| ASSETS.contains(folder)) {
        return format!("/{folder}/*");
    }
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match (folder.matches('/').count(), file.rsplit_once('.')) {
        (0, _) | (1, None) => path.to_owned(),
        (1, Some((_, kind))) => format!("{folder}/*.{kind}"),
        (_, _) => format!("{folder}/*"),
    }
}

/// What applications call the folder of their assets.
const ASSETS: [&str; 17] = [
    "assets",
    "build",
    "css",
    "dist",
    "fonts",
    "icons",
    "images",
    "img",
    "javascript",
    "js",
    "public",
    "resources",
    "scripts",
    "static",
    "styles",
    "themes",
    "vendor",
];

/// The pattern that would show a user the login page again with what was wrong, if the application
/// says so by a parameter: with that it is not the page that is open. No other page is suggested.
pub fn failure_page(site: &Site, location: Option<&HeaderValue>, from: &Target) -> Option<String> {
    let next = guarded(site, location, from)?;
    let (parameter, _) = parameters(next.query()?).next()?;
    // What opens must match the query as it is sent and as it is decoded.
    let parameter = parameter.replace(|character: char| !is_sent_plain(character), "*");
    let pattern = format!("GET {}?{parameter}=*", next.path());
    let opens = PathPattern::parse(&pattern).is_ok_and(|pattern| pattern.opens(&Method::GET, &next));
    (opens && has_login_page(site, next.path())).then_some(pattern)
}

fn is_sent_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')
}

fn has_login_page(site: &Site, path: &str) -> bool {
    site.login.iter().any(|rule| rule.page.raw_path() == path)
}

/// Where this `Location` leads, if that is a path of the site that needs a session: from a login page
/// that would be a circle (an old cookie makes the application believe that its visitor is known).
pub fn guarded(site: &Site, location: Option<&HeaderValue>, from: &Target) -> Option<Target> {
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
            ("/static/a.css", "/static/*"),
            ("/login/a.css", "/login/*.css"),
            ("/tools/translations", "/tools/translations"),
            ("/static/admin/css/base.css", "/static/*"),
            ("/browser/js/endpoints.js", "/browser/js/*"),
        ] {
            assert_eq!(public(path), pattern);
        }
    }
}
