//! Fields that come after a body. Where they pass at all, no name passes that means something to anyone
//! on the way (S85, RFC 9110 6.5.1): what is allowed in trailers is what an application made up itself, as
//! gRPC does with `grpc-status`.

use http::HeaderMap;
use http::HeaderName;

use crate::policy::headers;
use crate::policy::headers::IdentityHeaders;

/// Which trailers pass on one site, in both directions.
#[derive(Clone, Debug)]
pub struct TrailerRules {
    identity: IdentityHeaders,
    /// Further names that never reach a browser.
    removed: Vec<HeaderName>,
}

impl TrailerRules {
    /// The rules of a site with these identity headers, which also takes these names out of answers.
    pub fn new(identity: &IdentityHeaders, removed: impl IntoIterator<Item = HeaderName>) -> Self {
        Self { identity: identity.clone(), removed: removed.into_iter().collect() }
    }

    /// Takes out what does not pass.
    pub fn clean(&self, trailers: &mut HeaderMap) {
        headers::remove_where(trailers, |name| {
            is_defined(name) || headers::is_unfit_for_trailers(name, &self.identity)
        });
        for name in &self.removed {
            trailers.remove(name);
        }
    }
}

/// Framing, routing, conditions, authentication, and how content is read, kept or shown.
fn is_defined(name: &str) -> bool {
    const FAMILIES: [&str; 10] = [
        "accept",
        "access-control-",
        "content-",
        "cookie",
        "cross-origin-",
        "if-",
        "proxy-",
        "sec-",
        "set-cookie",
        "www-authenticate",
    ];
    FAMILIES.iter().any(|family| name.starts_with(family))
        || matches!(
            name,
            "age"
                | "allow"
                | "alt-svc"
                | "authentication-info"
                | "authorization"
                | "cache-control"
                | "clear-site-data"
                | "date"
                | "etag"
                | "expect"
                | "expires"
                | "from"
                | "host"
                | "last-modified"
                | "link"
                | "location"
                | "max-forwards"
                | "origin"
                | "permissions-policy"
                | "pragma"
                | "range"
                | "referer"
                | "referrer-policy"
                | "refresh"
                | "retry-after"
                | "server"
                | "strict-transport-security"
                | "user-agent"
                | "vary"
                | "via"
                | "warning"
                | "x-content-type-options"
                | "x-frame-options"
                | "x-powered-by"
        )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn passes(name: &'static str) -> bool {
        let identity = IdentityHeaders {
            user: HeaderName::from_static("x-forwarded-user"),
            session_ref: Some(HeaderName::from_static("session-handle")),
            auth_time: None,
            client_certificate: None,
            assertion: None,
        };
        let mut trailers = HeaderMap::new();
        trailers.append(name, HeaderValue::from_static("value"));
        TrailerRules::new(&identity, [HeaderName::from_static("x-marker")]).clean(&mut trailers);
        !trailers.is_empty()
    }

    #[test]
    fn what_an_application_made_up_passes() {
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-checksum", "server-timing", "digest"]
        {
            assert!(passes(name), "{name}");
        }
    }

    #[test]
    fn what_means_something_on_the_way_does_not() {
        // S70, S85
        for name in [
            "x-forwarded-user",
            "x_forwarded_user",
            "session-handle",
            "x-marker",
            "x-forwarded-for",
            "forwarded",
            "x-real-ip",
            "content-length",
            "content-type",
            "content-encoding",
            "transfer-encoding",
            "connection",
            "te",
            "trailer",
            "upgrade",
            "host",
            "cookie",
            "set-cookie",
            "authorization",
            "location",
            "cache-control",
            "if-match",
            "range",
            "expect",
            "via",
            "sec-fetch-site",
            "origin",
            "server",
            "secure-session-registration",
            "x-http-method-override",
            "a_b",
        ] {
            assert!(!passes(name), "{name}");
        }
    }
}
