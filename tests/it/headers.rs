//! What is added to answers, and what never is (S51, S71, S133, S145).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use http::Request;
use tokio::io::AsyncWriteExt;

use crate::support::Answer;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::configure;
use crate::support::empty;
use crate::support::file;
use crate::support::navigation;
use crate::support::parse;
use crate::support::read_head;

fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// An application that answers with the header fields in the query, and logs everyone in.
async fn obedient() -> Upstream {
    Upstream::start(|request| {
        let reply = if request.method == "POST" { Reply::redirect("/") } else { Reply::text("page") };
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let fields = url::form_urlencoded::parse(query.as_bytes());
        fields.fold(reply, |reply, (name, value)| reply.header(&name, &value))
    })
    .await
}

#[tokio::test]
async fn every_answer_of_a_site_has_the_security_headers() {
    // S133, S145, S165
    let app = obedient().await;
    let site =
        format!("aliases = \"https://other.test\"\n{}", SITE.replace("public =", "deny = \"/closed\"\npublic ="));
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    let (gone, mut nowhere) = Vestibule::at("http://127.0.0.1:1", &site).await;
    for (request, status) in [
        (navigation("GET", "/public/x"), 200),
        (navigation("GET", "/private"), 303),
        (Request::get("/private"), 401),
        (Request::get("/closed"), 403),
        (Request::post("/login").header("origin", "https://evil.test"), 403),
        (Request::get("/public/%00"), 400),
        (Request::get("/public/x").header("expect", "a-miracle"), 417),
        (Request::builder().method("FOO").uri("/public/x"), 405),
        (Request::get(format!("/{}", "x".repeat(9000))), 414),
        (Request::get("/public/x").header("x", "y".repeat(40_000)), 431),
        (Request::get("/.vestibule/nothing"), 404),
        (Request::get("/public/x").header("host", "other.test"), 308),
    ] {
        let answer = browser.send(empty(request)).await;
        assert_eq!(answer.status, status);
        assert_eq!(all(&answer, "strict-transport-security"), ["max-age=63072000"], "{status}");
        assert_eq!(all(&answer, "x-content-type-options"), ["nosniff"], "{status}");
        assert_eq!(all(&answer, "referrer-policy"), ["strict-origin-when-cross-origin"], "{status}");
        assert_eq!(all(&answer, "content-security-policy"), ["frame-ancestors 'self'"], "{status}");
        if status != 200 {
            assert_eq!(all(&answer, "cache-control"), ["no-store"], "{status}");
            assert!(answer.body.len() < 200, "{}", answer.body);
            let typed = answer.header("content-type").unwrap();
            assert!(typed == "text/plain; charset=utf-8" || typed == "application/problem+json", "{typed}");
        }
    }
    let failed = nowhere.get("/public/x").await;
    assert_eq!((failed.status.as_u16(), all(&failed, "strict-transport-security").len()), (502, 1));
    gone.stop().await;
}

#[tokio::test]
async fn what_the_application_sets_is_left_alone() {
    // S145; product 2, [site.headers]
    let app = obedient().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    let own = "frame-ancestors 'self'";
    for (query, name, expected) in [
        ("Strict-Transport-Security=max-age=1", "strict-transport-security", &["max-age=1"][..]),
        ("X-Content-Type-Options=x", "x-content-type-options", &["x"]),
        ("Referrer-Policy=no-referrer", "referrer-policy", &["no-referrer"]),
        ("Content-Security-Policy=frame-ancestors *", "content-security-policy", &["frame-ancestors *"]),
        ("Content-Security-Policy=a b; Frame-Ancestors x", "content-security-policy", &["a b; Frame-Ancestors x"]),
        ("Content-Security-Policy=a b, frame-ancestors", "content-security-policy", &["a b, frame-ancestors"]),
        ("Content-Security-Policy=default-src 'self'", "content-security-policy", &["default-src 'self'", own]),
        ("Content-Security-Policy=x frame-ancestors", "content-security-policy", &["x frame-ancestors", own]),
        ("Content-Security-Policy-Report-Only=frame-ancestors x", "content-security-policy", &[own]),
        ("X-Frame-Options=DENY", "content-security-policy", &[]),
        ("X-Frame-Options=DENY", "x-frame-options", &["DENY"]),
        (
            "WWW-Authenticate=Basic realm=x&WWW-Authenticate=Digest a=b",
            "www-authenticate",
            &["Basic realm=x", "Digest a=b"],
        ),
        ("Cross-Origin-Opener-Policy=same-origin", "cross-origin-opener-policy", &["same-origin"]),
        ("Vary=Cookie&Vary=Accept", "vary", &["Cookie", "Accept"]),
    ] {
        let answer = browser.get(&format!("/public/x?{}", query.replace(' ', "+"))).await;
        assert_eq!(all(&answer, name), expected, "{query}");
    }
}

#[tokio::test]
async fn private_pages_are_not_stored_unless_the_application_says_how() {
    // S51
    let app = obedient().await;
    for (default, paths) in [
        ("", &[("/private", true), ("/public/x", false)][..]),
        ("default = \"public\"\n", &[("/anything", true), ("/public/x", false)]),
    ] {
        let site = SITE.replace("public =", &format!("{default}public ="));
        let (_proxy, browser) = Vestibule::with(&app, &site).await;
        let mut alice = browser.clone();
        alice.log_in("alice").await;
        for (path, stored) in paths {
            let answer = alice.get(path).await;
            assert_eq!(all(&answer, "cache-control") == ["no-store"], *stored, "{default}{path}");
            let answer = alice.get(&format!("{path}?Cache-Control=public,+max-age=9")).await;
            assert_eq!(all(&answer, "cache-control"), ["public, max-age=9"], "{default}{path}");
        }
        assert!(all(&browser.clone().get("/public/x").await, "cache-control").is_empty());
    }
}

#[tokio::test]
async fn the_operator_adds_and_removes() {
    // S133
    let app = obedient().await;
    let site = format!(
        "{SITE}\n[site.headers]\nhsts = {{ max_age = \"1y\", include_subdomains = true }}\nframe_ancestors = \
         [\"self\", \"https://portal.test\"]\nremove = [\"X-Secret\", \"Referrer-Policy\", \"X-Replaced\"]\n\
         [site.headers.add]\nX-Added = \"ours\"\nX-Replaced = \"ours\"\nX-Content-Type-Options = \"other\""
    );
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    let answer = browser.get("/public/x?X-Secret=1&Referrer-Policy=x&X-Added=theirs&X-Replaced=theirs").await;

    for (name, expected) in [
        ("strict-transport-security", &["max-age=31536000; includeSubDomains"][..]),
        ("content-security-policy", &["frame-ancestors 'self' https://portal.test"]),
        ("x-secret", &[]),
        ("referrer-policy", &[]),
        ("x-added", &["theirs"]),
        ("x-replaced", &["ours"]),
        ("x-content-type-options", &["other"]),
    ] {
        assert_eq!(all(&answer, name), expected, "{name}");
    }
    assert_eq!(all(&browser.get("/private").await, "x-added"), ["ours"], "our own answers, too");
}

#[tokio::test]
async fn what_is_removed_is_the_applications_and_never_what_keeps_a_page_private() {
    // S9, S51, S165
    let app = obedient().await;
    let names = ["Cache-Control", "WWW-Authenticate", "Location", "Vary", "Clear-Site-Data", "Allow", "Content-Type"];
    let site = format!("{SITE}\n[site.headers]\nremove = {names:?}");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    let refused = browser.fetch("/private").await;
    assert_eq!(
        (refused.header("www-authenticate"), refused.header("cache-control")),
        (Some("Session"), Some("no-store"))
    );
    assert_eq!(browser.get("/private").await.location(), "/login");
    let method = browser.send(empty(Request::builder().method("FOO").uri("/public/x"))).await;
    assert!(method.header("allow").is_some());
    let login = browser.post("/login", &[("username", "alice"), ("password", "x")]).await;
    assert_eq!((login.header("location"), login.header("cache-control")), (None, Some("no-store")));
    let page = browser.get("/private?Cache-Control=public").await;
    assert_eq!((page.header("content-type"), page.header("cache-control")), (None, Some("no-store")));
    assert!(browser.get("/logout").await.header("clear-site-data").is_some());
}

#[tokio::test]
async fn strict_transport_security_is_for_names_that_are_somebodys() {
    // S133
    let app = obedient().await;
    for (origin, keys, expected) in [
        ("https://app.test", "", Some("max-age=63072000")),
        ("https://app.test", "[site.headers]\nhsts = \"off\"", None),
        ("https://app.test", "[site.headers]\nhsts = \"1y\"", Some("max-age=31536000")),
        ("https://localhost", "", None),
        ("https://app.localhost:8443", "", None),
        ("https://127.0.0.1", "", None),
        ("https://[::1]:8443", "", None),
    ] {
        let text = file(&app.url(), &format!("{SITE}\n{keys}")).replace("https://app.test", origin);
        let (_proxy, mut browser) = Vestibule::of(parse(&text)).await;
        let host = origin.trim_start_matches("https://");
        let answer = browser.send(empty(Request::get("/public/x").header("host", host))).await;
        assert_eq!((answer.status.as_u16(), answer.header("strict-transport-security")), (200, expected), "{origin}");
    }
}

#[tokio::test]
async fn no_user_gets_the_connection_of_another() {
    // Logins by NTLM and Negotiate hold for the connection.
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let app = Wire::start(move |_, mut stream| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let (_proxy, mut browser) = Vestibule::at(&app.url(), SITE).await;
    let mut used = Vec::new();
    for authorization in ["Bearer a", "Basic YTpi", "NTLM TlRM", "Bearer a", "negotiate YII=", "Bearer a", "Bearer b"] {
        let request = Request::get("/public/x").header("authorization", authorization);
        used.push(browser.send(empty(request)).await.body);
    }
    assert_eq!(used, ["0", "0", "0", "1", "1", "2", "2"]);
}

#[tokio::test]
async fn nothing_that_is_no_text_gives_a_client_another_address() {
    // S53, S69, VR-10
    let app = Upstream::plain().await;
    let mut config = configure(&app.url(), SITE);
    config.listen.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let (_proxy, mut browser) = Vestibule::of(config).await;
    let text = |bytes: &[u8]| http::HeaderValue::from_bytes(bytes).unwrap();
    for (lines, address) in [
        (&[&b"203.0.113.9"[..]][..], "203.0.113.9"),
        (&[b"6.6.6.6, 203.0.113.9, 127.0.0.5"], "203.0.113.9"),
        (&[b"6.6.6.6", b"\xff, 203.0.113.9"], "203.0.113.9"),
        (&[b"6.6.6.6", b"\xff"], "127.0.0.1"),
        (&[b"6.6.6.6, unknown"], "127.0.0.1"),
        (&[b"6.6.6.6, "], "127.0.0.1"),
        (&[b"[2001:db8::1]:4711"], "2001:db8::1"),
        (&[b"::ffff:203.0.113.9"], "203.0.113.9"),
    ] {
        let mut request = Request::get("/public/x");
        for line in lines {
            request = request.header("x-forwarded-for", text(line));
        }
        browser.send(empty(request)).await;
        assert_eq!(app.last().header("x-real-ip"), Some(address), "{lines:?}");
    }
}
