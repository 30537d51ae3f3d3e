//! Every response that Vestibule writes itself: small, uncacheable, and saying nothing about what is
//! behind (S165).

use std::time::Duration;

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::policy::admit::Refusal;
use crate::policy::message::METHODS;
use crate::proxy::body::Body;

/// A plain-text answer.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", value.to_string())
}

/// A problem document (RFC 9457) for requests that are no page loads.
pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let value = serde_json::json!({ "title": title, "status": status.as_u16(), "detail": detail });
    answer(status, "application/problem+json", value.to_string())
}

/// 401 with the challenge it must have (RFC 9110 15.5.2); the same whatever is wrong with the
/// session (S58, S169).
pub(super) fn unauthorized() -> Response<Body> {
    let mut response = problem(StatusCode::UNAUTHORIZED, "Log in first.");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Session"));
    response
}

/// 429 for who may not try to log in yet, whoever they are (S148); `login_page` for page loads.
pub(super) fn too_many_attempts(cause: &str, wait: Duration, login_page: Option<&str>) -> Response<Body> {
    let seconds = wait.as_secs();
    let unit = if seconds == 1 { "second" } else { "seconds" };
    let says = format!("Wait {seconds} {unit}, then try again.");
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut response = match login_page {
        Some(back) => page(status, cause, &[says], Some((back, "Back to the login"))),
        None => problem(status, &format!("{cause}. {says}")),
    };
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// 503 for what will do in a while.
pub(super) fn later(detail: &str) -> Response<Body> {
    in_a_while(problem(StatusCode::SERVICE_UNAVAILABLE, detail))
}

/// 503 for whose browser cannot prove for now that the session is its own, instead of `refusal`. A form that was
/// sent is sent again when the page is loaded again.
pub(super) fn proven_later(refusal: Refusal) -> Response<Body> {
    let Refusal::SignIn(login) = refusal else {
        return later("Your browser cannot prove at the moment that this session is its own. Try again later.");
    };
    let says = "Your browser cannot prove at the moment that this session is its own. You are still logged in. \
                Load this page again in a few minutes, or log in again.";
    let link = Some((login.as_str(), "Log in again"));
    in_a_while(page(StatusCode::SERVICE_UNAVAILABLE, "Please wait", &[says.to_owned()], link))
}

fn in_a_while(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// Asks for the same page once more, as one of our own pages: then browsers prove first that they are the
/// device which the session is bound to. What asks is a page's script, and only when it worked is the
/// page loaded again, once in ten seconds, as a service worker may answer for us: nothing goes round in a
/// circle. Whoever cannot prove it is sent to log in; when something else is wrong the page stays with its links.
pub(super) fn once_more(login: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>One moment</title><p>One moment. If nothing happens, \
         <a href=\"\">load the page again</a> or <a href=\"{}\">log in</a>.</p><script>{ONCE_MORE}</script>",
        escape(login)
    );
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", page);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(ONCE_MORE_POLICY));
    response
}

const ONCE_MORE: &str = "fetch(\"/.vestibule/session\",{cache:\"no-store\"}).then(r=>{\
    if(r.status==401)location.replace(document.links[1].href);\
    const s=sessionStorage,n=Date.now();\
    if(r.ok&&!(n-s.vestibule<1e4)){s.vestibule=n;location.reload()}}).catch(()=>{})";
/// Lets that script run, by its hash, and nothing else.
const ONCE_MORE_POLICY: &str =
    "default-src 'none'; connect-src 'self'; script-src 'sha256-r3Ge99NlIkHzBUBjro1cGMZwloGuMqjIFyCHPLVG0ho='";

/// For who followed a link on another site, and so brings no cookie of ours that is `SameSite=Strict`: a link to the
/// same page, which does bring it (VR-21). It takes a click, and says where to, or other sites could do with a
/// session what Strict keeps them from.
pub(super) fn go_on(path: &str) -> Response<Body> {
    let says =
        format!("A link on another site leads to {path} here. It is opened with your session only from this page.");
    page(StatusCode::OK, "You come from another site", &[says], Some(("", "Go on")))
}

/// 303 to a path of ours or the application's, or to one of our origins: never to what a client named.
pub(super) fn see_other(location: &str) -> Response<Body> {
    redirect(StatusCode::SEE_OTHER, location)
}

/// 308, for aliases of an origin.
pub(super) fn permanent(location: &str) -> Response<Body> {
    redirect(StatusCode::PERMANENT_REDIRECT, location)
}

fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "The redirect could not be written.");
    };
    let mut response = answer(status, "text/plain; charset=utf-8", String::new());
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Nothing to say.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Which methods pass: the answer to an OPTIONS that is for us.
pub(super) fn options() -> Response<Body> {
    let mut response = no_content();
    allow(&mut response);
    response
}

/// Says which methods pass.
pub(super) fn allow(response: &mut Response<Body>) {
    if let Ok(methods) = HeaderValue::from_str(&METHODS.join(", ")) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
}

/// What answers a HEAD: the length of what is left out, and nothing else (RFC 9110 9.3.2). hyper sees
/// to that over HTTP/1.1 only.
pub(super) fn leave_out_content(response: &mut Response<Body>) {
    let length = http_body::Body::size_hint(response.body()).exact().filter(|length| *length > 0);
    *response.body_mut() = Body::empty();
    if let Some(length) = length {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
}

/// A small page, perhaps with a link, address and text, below; all is escaped.
pub(super) fn page(
    status: StatusCode,
    heading: &str,
    paragraphs: &[String],
    link: Option<(&str, &str)>,
) -> Response<Body> {
    let mut html = format!(
        "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><body style=\"font:16px/1.5 sans-serif;max-width:40em;margin:4em auto;padding:0 1em\"><h1>{0}</h1>",
        escape(heading)
    );
    for paragraph in paragraphs {
        html.push_str("<p>");
        html.push_str(&escape(paragraph));
        html.push_str("</p>");
    }
    if let Some((address, text)) = link {
        html.push_str(&format!("<p><a href=\"{}\">{}</a></p>", escape(address), escape(text)));
    }
    answer(status, "text/html; charset=utf-8", html)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::bytes(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
