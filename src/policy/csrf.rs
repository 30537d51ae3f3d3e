//! Cross-site requests: Fetch Metadata, then `Origin`, then `Referer` (S136-S143, S119).

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::header;

use crate::policy::glob::PathPattern;
use crate::policy::path::Target;
use crate::policy::site::Origin;

/// What the filter does with what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CsrfMode {
    /// Refuse with 403.
    #[default]
    Enforce,
    /// Log only.
    Report,
    /// Do not look.
    Off,
}

/// `[csrf]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrfRules {
    /// What the filter does.
    pub mode: CsrfMode,
    /// Whether a credentialed unsafe request without any of the three labels passes.
    pub allow_unlabelled: bool,
    /// Exceptions, such as webhooks.
    pub exempt: Vec<PathPattern>,
    /// Whether pages of other sites may load nothing but what is public (S143).
    pub isolation: bool,
}

impl CsrfRules {
    /// The fields that an answer depends on where the labels were looked at (S141).
    pub fn vary(&self) -> &'static str {
        match self.isolation {
            true => "Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest, Origin, Referer",
            false => "Sec-Fetch-Site, Origin, Referer",
        }
    }

    /// Whether browsers are told that the answer is for pages of its own origin alone.
    pub fn isolates(&self, facts: CsrfFacts<'_>) -> bool {
        self.isolation && self.mode == CsrfMode::Enforce && !facts.open_on_purpose && !self.exempts(facts)
    }

    fn exempts(&self, facts: CsrfFacts<'_>) -> bool {
        self.exempt.iter().any(|pattern| pattern.opens(facts.method, facts.target))
    }
}

/// What the filter needs to know about a request.
#[derive(Clone, Copy, Debug)]
pub struct CsrfFacts<'a> {
    /// Request method.
    pub method: &'a Method,
    /// Request target.
    pub target: &'a Target,
    /// All request headers as received.
    pub headers: &'a HeaderMap,
    /// The site's configured origin.
    pub origin: &'a Origin,
    /// Whether it matches a login or logout rule: those are filtered in any method.
    pub login_or_logout: bool,
    /// Whether it matches a login rule that reads the user from `Authorization: Basic`: there the
    /// field is what is typed into a form elsewhere, not a credential that a browser adds unasked.
    pub basic_login: bool,
    /// Whether it presents a TLS client certificate.
    pub client_certificate: bool,
    /// Whether everybody may load it, whatever page they are on.
    pub open_on_purpose: bool,
}

/// Why a request counts as cross-site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSite {
    /// `Sec-Fetch-Site` says so.
    FetchSite,
    /// `Origin` is another.
    Origin,
    /// `Referer` is from elsewhere.
    Referer,
    /// None of the three is there.
    Unlabelled,
    /// A page of another site would load it into itself.
    Isolation,
}

impl CrossSite {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::FetchSite, Self::Origin, Self::Referer, Self::Unlabelled, Self::Isolation];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FetchSite => "sec-fetch-site",
            Self::Origin => "origin",
            Self::Referer => "referer",
            Self::Unlabelled => "unlabelled",
            Self::Isolation => "isolation",
        }
    }
}

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What the filter says. The mode is applied by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrfVerdict {
    /// The labels were not looked at: nothing depends on them.
    Unconcerned,
    /// It is our own, or no browser's.
    Passes,
    /// It counts as cross-site.
    Fails(CrossSite),
}

/// Methods that change nothing (RFC 9110 9.2.1); of those that WebDAV adds none is sent by a page.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Judges a request by its labels, if it could do harm, or if what it loads is isolated.
pub fn judge(rules: &CsrfRules, facts: CsrfFacts<'_>) -> CsrfVerdict {
    if rules.exempts(facts) {
        return CsrfVerdict::Unconcerned;
    }
    let verdict = judge_change(rules, facts);
    if matches!(verdict, CsrfVerdict::Fails(_)) || !rules.isolation || facts.open_on_purpose {
        return verdict;
    }
    match is_loaded_elsewhere(facts.method, facts.headers) {
        true => CsrfVerdict::Fails(CrossSite::Isolation),
        false => CsrfVerdict::Passes,
    }
}

/// Whether a page of another site loads this into itself: anything but a link that is followed or a page
/// in a frame, which is what `frame-ancestors` is about (the resource isolation policy of Fetch Metadata).
/// What does not say where it comes from is no current browser's.
fn is_loaded_elsewhere(method: &Method, headers: &HeaderMap) -> bool {
    let is_ours = !headers.contains_key(FETCH_SITE)
        || matches!(single(headers, &FETCH_SITE), Some("same-origin" | "same-site" | "none"));
    let is_page = matches!(*method, Method::GET | Method::HEAD)
        && single(headers, &FETCH_MODE) == Some("navigate")
        && !matches!(single(headers, &FETCH_DEST), Some("object" | "embed"));
    !(is_ours || is_page)
}

/// Whether a page is opened to be looked at by itself, as by a link that is followed: not fetched by a script, not in
/// a frame, and without a form's body.
pub fn opens_page(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && single(headers, &FETCH_MODE) == Some("navigate")
        && single(headers, &FETCH_DEST) == Some("document")
}

fn judge_change(rules: &CsrfRules, facts: CsrfFacts<'_>) -> CsrfVerdict {
    if !facts.login_or_logout && is_safe(facts.method) {
        return CsrfVerdict::Unconcerned;
    }
    let has_credentials = facts.headers.contains_key(header::COOKIE)
        || (!facts.basic_login && carries_authorization(facts.headers))
        || facts.client_certificate;
    if !facts.login_or_logout && !has_credentials {
        return CsrfVerdict::Unconcerned;
    }
    match label(facts.headers, facts.origin) {
        Some(None) => CsrfVerdict::Passes,
        Some(Some(cross_site)) => CsrfVerdict::Fails(cross_site),
        // No browser: browsers label every request that could do harm.
        None if !has_credentials || rules.allow_unlabelled => CsrfVerdict::Passes,
        None => CsrfVerdict::Fails(CrossSite::Unlabelled),
    }
}

/// What the labels say: `None` when there is none, `Some(None)` when they say it is our own.
fn label(headers: &HeaderMap, origin: &Origin) -> Option<Option<CrossSite>> {
    if headers.contains_key(FETCH_SITE) {
        match single(headers, &FETCH_SITE) {
            Some("same-origin" | "none") => return Some(None),
            Some("same-site" | "cross-site") | None => return Some(Some(CrossSite::FetchSite)),
            // A word of a later specification: the older labels decide.
            Some(_) => {}
        }
    }
    if headers.contains_key(header::ORIGIN) {
        let same = single(headers, &header::ORIGIN).is_some_and(|sent| is_origin(sent, origin));
        return Some((!same).then_some(CrossSite::Origin));
    }
    if headers.contains_key(header::REFERER) {
        let same = single(headers, &header::REFERER).is_some_and(|sent| has_origin(sent, origin));
        return Some((!same).then_some(CrossSite::Referer));
    }
    if headers.contains_key(FETCH_SITE) {
        return Some(Some(CrossSite::FetchSite));
    }
    None
}

/// The one value of a field; `None` when there are several or it is no text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_origin(text: &str, origin: &Origin) -> bool {
    text == origin.to_text()
}

fn has_origin(url: &str, origin: &Origin) -> bool {
    let expected = origin.to_text();
    url.strip_prefix(expected.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// `Authorization` of a scheme that browsers know and repeat by themselves.
fn carries_authorization(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let text = value.to_str().unwrap_or("");
        let scheme = text.split(' ').next().unwrap_or("").to_ascii_lowercase();
        matches!(scheme.as_str(), "basic" | "digest" | "negotiate" | "ntlm")
    })
}

/// Whether the `Origin` of an upgrade is the site's own. Browsers always send one: without it only
/// clients without Fetch Metadata pass, and those with cookies or a certificate only if `unlabelled` ones
/// may (S119).
pub fn upgrade_origin_allowed(rules: &CsrfRules, headers: &HeaderMap, origin: &Origin, certificate: bool) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return single(headers, &header::ORIGIN).is_some_and(|sent| is_origin(sent, origin));
    }
    let is_browser = headers.contains_key(FETCH_SITE) || headers.contains_key(FETCH_MODE);
    !is_browser && (rules.allow_unlabelled || !(certificate || headers.contains_key(header::COOKIE)))
}

/// What kind of request the browser says this is; decides between a redirect and a 401 (VR-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A page load.
    Navigation,
    /// A same-origin `fetch` or XHR, or a request without Fetch Metadata that is no page load.
    Fetch,
    /// An image, style, script, font, or anything else that a page pulls in.
    Subresource,
}

/// What a request says about where it comes from and what for, for decisions that do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchMetadata {
    /// `Sec-Fetch-Mode: navigate`; without Fetch Metadata `Accept` has `text/html` and there is no
    /// `X-Requested-With`. `Fetch` is a same-origin `Sec-Fetch-Dest: empty`, or no Fetch Metadata.
    pub kind: RequestKind,
    /// `Sec-Fetch-Site: cross-site`
    pub cross_site: bool,
}

impl FetchMetadata {
    /// Reads it, in one go: to ask for a field that is not there costs as much as to find it.
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut site, mut mode, mut dest, mut is_script) = (None, None, None, false);
        for (name, value) in headers {
            let word = match name.as_str() {
                "sec-fetch-site" => &mut site,
                "sec-fetch-mode" => &mut mode,
                "sec-fetch-dest" => &mut dest,
                "x-requested-with" => {
                    is_script = true;
                    continue;
                }
                _ => continue,
            };
            word.get_or_insert(value.as_bytes());
        }
        let is_navigation = match mode {
            Some(mode) => mode == b"navigate",
            None => dest.is_none() && !is_script && accepts_pages(headers),
        };
        let is_same_origin = matches!(site, None | Some(b"same-origin" | b"none"));
        let is_fetch = is_same_origin && matches!((mode, dest), (_, Some(b"empty")) | (None, None));
        let kind = match (is_navigation, is_fetch) {
            (true, _) => RequestKind::Navigation,
            (false, true) => RequestKind::Fetch,
            (false, false) => RequestKind::Subresource,
        };
        Self { kind, cross_site: site == Some(b"cross-site") }
    }
}

fn accepts_pages(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or(range);
        media_type.trim().eq_ignore_ascii_case("text/html")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::PathCase;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn origin() -> Origin {
        Origin { host: "app.test".into(), port: 443 }
    }

    fn verdict_on(method: &Method, raw: &str, login: bool, lines: &[(&'static str, &str)]) -> CsrfVerdict {
        let rules = CsrfRules {
            mode: CsrfMode::Enforce,
            allow_unlabelled: false,
            exempt: vec![PathPattern::parse("POST /hook").unwrap()],
            isolation: false,
        };
        let facts = CsrfFacts {
            method,
            target: &Target::parse(raw, PathCase::Exact),
            headers: &headers(lines),
            origin: &origin(),
            login_or_logout: login,
            basic_login: false,
            client_certificate: false,
            open_on_purpose: false,
        };
        judge(&rules, facts)
    }

    fn verdict(method: &Method, login: bool, lines: &[(&'static str, &str)]) -> Option<CrossSite> {
        match verdict_on(method, "/x", login, lines) {
            CsrfVerdict::Unconcerned | CsrfVerdict::Passes => None,
            CsrfVerdict::Fails(cross_site) => Some(cross_site),
        }
    }

    const COOKIE: (&str, &str) = ("cookie", "a=b");

    #[test]
    fn unsafe_requests_with_credentials_must_be_our_own() {
        // S136, S137, S138
        for (line, expected) in [
            (("sec-fetch-site", "same-origin"), None),
            (("sec-fetch-site", "none"), None),
            (("sec-fetch-site", "cross-site"), Some(CrossSite::FetchSite)),
            (("sec-fetch-site", "same-site"), Some(CrossSite::FetchSite)),
            (("sec-fetch-site", "new-word"), Some(CrossSite::FetchSite)),
            (("origin", "https://app.test"), None),
            (("origin", "https://app.test.evil"), Some(CrossSite::Origin)),
            (("origin", "http://app.test"), Some(CrossSite::Origin)),
            (("origin", "null"), Some(CrossSite::Origin)),
            (("referer", "https://app.test/form"), None),
            (("referer", "https://app.test"), None),
            (("referer", "https://app.test@evil/"), Some(CrossSite::Referer)),
            (("accept", "*/*"), Some(CrossSite::Unlabelled)),
        ] {
            assert_eq!(verdict(&Method::POST, false, &[COOKIE, line]), expected, "{line:?}");
            assert_eq!(verdict(&Method::GET, false, &[COOKIE, line]), None, "{line:?}");
        }
        let new_word = [COOKIE, ("sec-fetch-site", "new-word"), ("origin", "https://app.test")];
        assert_eq!(verdict(&Method::POST, false, &new_word), None);
    }

    #[test]
    fn a_label_given_twice_is_no_label_to_trust() {
        let twice = [COOKIE, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(verdict(&Method::POST, false, &twice), Some(CrossSite::FetchSite));
    }

    #[test]
    fn credentials_that_browsers_add_count_and_tokens_do_not() {
        let cross = ("sec-fetch-site", "cross-site");
        let with = |value| verdict(&Method::POST, false, &[("authorization", value), cross]);
        assert_eq!(with("Basic YTpi"), Some(CrossSite::FetchSite));
        assert_eq!(with("Bearer x"), None);
        assert_eq!(verdict(&Method::DELETE, false, &[cross]), None);
    }

    #[test]
    fn logins_and_logouts_are_filtered_in_any_method() {
        // S44, S142
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(verdict(&Method::GET, true, &[cross]), Some(CrossSite::FetchSite));
        assert_eq!(verdict(&Method::POST, true, &[]), None, "curl logs in");
        assert_eq!(verdict(&Method::POST, true, &[COOKIE]), Some(CrossSite::Unlabelled));
    }

    #[test]
    fn exceptions_are_exact() {
        // S140, VR-13
        let refused = CsrfVerdict::Fails(CrossSite::Unlabelled);
        assert_eq!(verdict_on(&Method::POST, "/hook", false, &[COOKIE]), CsrfVerdict::Unconcerned);
        assert_eq!(verdict_on(&Method::PUT, "/hook", false, &[COOKIE]), refused);
        for other in ["/hook/x", "/transfer/../hook", "//hook", "/%68ook"] {
            assert_eq!(verdict_on(&Method::POST, other, false, &[COOKIE]), refused, "{other}");
        }
    }

    #[test]
    fn what_is_isolated_is_for_our_own_pages_and_links() {
        // S143, S139
        let isolated = |open_on_purpose: bool, method: &Method, raw: &str, lines: &[(&'static str, &str)]| {
            let rules = CsrfRules {
                mode: CsrfMode::Enforce,
                allow_unlabelled: false,
                exempt: vec![PathPattern::parse("GET /shared").unwrap()],
                isolation: true,
            };
            let facts = CsrfFacts {
                method,
                target: &Target::parse(raw, PathCase::Exact),
                headers: &headers(lines),
                origin: &origin(),
                login_or_logout: false,
                basic_login: false,
                client_certificate: false,
                open_on_purpose,
            };
            judge(&rules, facts) == CsrfVerdict::Fails(CrossSite::Isolation)
        };
        let loaded = |site, mode, dest| [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
        for (lines, expected) in [
            (loaded("cross-site", "no-cors", "image"), true),
            (loaded("cross-site", "no-cors", "script"), true),
            (loaded("cross-site", "cors", "empty"), true),
            (loaded("cross-site", "navigate", "document"), false),
            (loaded("cross-site", "navigate", "iframe"), false),
            (loaded("cross-site", "navigate", "object"), true),
            (loaded("cross-site", "navigate", "embed"), true),
            (loaded("same-site", "no-cors", "image"), false),
            (loaded("same-origin", "no-cors", "image"), false),
            (loaded("none", "no-cors", "image"), false),
            (loaded("sideways", "no-cors", "image"), true),
        ] {
            assert_eq!(isolated(false, &Method::GET, "/x", &lines), expected, "{lines:?}");
            assert!(!isolated(true, &Method::GET, "/x", &lines), "open on purpose: {lines:?}");
            assert!(!isolated(false, &Method::GET, "/shared", &lines), "exempt: {lines:?}");
        }
        let image = loaded("cross-site", "no-cors", "image");
        assert!(isolated(false, &Method::POST, "/x", &loaded("cross-site", "navigate", "document")));
        assert!(!isolated(false, &Method::GET, "/x", &[]), "curl");
        assert!(isolated(false, &Method::GET, "/x", &[image[0], ("sec-fetch-site", "same-origin"), image[1]]));
    }

    #[test]
    fn websockets_come_from_our_own_pages() {
        // S119, VR-06
        let mut rules =
            CsrfRules { mode: CsrfMode::Off, allow_unlabelled: false, exempt: Vec::new(), isolation: false };
        let allowed =
            |lines: &[(&'static str, &str)]| upgrade_origin_allowed(&rules, &headers(lines), &origin(), false);
        assert!(allowed(&[COOKIE, ("origin", "https://app.test")]));
        assert!(!allowed(&[COOKIE, ("origin", "https://evil.test")]));
        assert!(!allowed(&[COOKIE]));
        assert!(allowed(&[]));
        rules.allow_unlabelled = true;
        let allowed =
            |lines: &[(&'static str, &str)]| upgrade_origin_allowed(&rules, &headers(lines), &origin(), false);
        assert!(allowed(&[COOKIE]));
        assert!(!allowed(&[COOKIE, ("sec-fetch-mode", "websocket")]));
        assert!(!allowed(&[COOKIE, ("origin", "null")]));
    }

    #[test]
    fn a_page_is_opened_by_a_link_and_by_nothing_that_a_page_loads() {
        // VR-21
        let opened = |method: &Method, mode, dest| {
            opens_page(method, &headers(&[("sec-fetch-mode", mode), ("sec-fetch-dest", dest)]))
        };
        assert!(opened(&Method::GET, "navigate", "document"));
        for (mode, dest) in [("navigate", "iframe"), ("no-cors", "document"), ("cors", "empty"), ("navigate", "object")]
        {
            assert!(!opened(&Method::GET, mode, dest), "{mode} {dest}");
        }
        assert!(!opened(&Method::POST, "navigate", "document"), "what a form sends cannot be asked for again");
        assert!(!opened(&Method::HEAD, "navigate", "document"));
        assert!(!opens_page(&Method::GET, &headers(&[("accept", "text/html")])), "it does not say so");
        let twice = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-fetch-dest", "image")];
        assert!(!opens_page(&Method::GET, &headers(&twice)));
    }

    #[test]
    fn page_loads_are_told_from_the_rest() {
        // S52, VR-07
        for (lines, expected) in [
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")][..], RequestKind::Navigation),
            (&[("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")], RequestKind::Fetch),
            (&[("sec-fetch-dest", "empty"), ("sec-fetch-site", "cross-site")], RequestKind::Subresource),
            (&[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], RequestKind::Subresource),
            (&[("accept", "text/html,*/*")], RequestKind::Navigation),
            (&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], RequestKind::Fetch),
            (&[("accept", "application/json")], RequestKind::Fetch),
            (&[("accept", "*/*"), ("accept", "application/xml, Text/HTML;q=0.9")], RequestKind::Navigation),
            (&[("sec-fetch-site", "cross-site"), ("accept", "text/html")], RequestKind::Navigation),
            (&[("sec-fetch-site", "cross-site")], RequestKind::Subresource),
            (&[("sec-fetch-site", "same-origin")], RequestKind::Fetch),
            (&[("sec-fetch-mode", "cors"), ("accept", "text/html")], RequestKind::Subresource),
            (&[], RequestKind::Fetch),
        ] {
            assert_eq!(FetchMetadata::of(&headers(lines)).kind, expected, "{lines:?}");
        }
    }
}
