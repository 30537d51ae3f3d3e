//! `[site.limits]`: each site has its own.

use http_body_util::Full;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;

#[tokio::test]
async fn a_site_can_take_less_than_the_others() {
    // S170
    let app = Upstream::legacy().await;
    let limits = "[site.limits]\nuri = 100\nheader_count = 20\nheader_bytes = \"8KiB\"\nbody = 1000\n";
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n{limits}")).await;

    let long = browser.get(&format!("/public/{}", "x".repeat(100))).await;
    let many = with_headers(30, 10);
    let wide = with_headers(1, 9000);

    assert_eq!(long.status, 414);
    assert_eq!(browser.send(many).await.status, 431);
    assert_eq!(browser.send(wide).await.status, 431);
    assert_eq!(browser.post("/public/x", &[("x", &"y".repeat(1000))]).await.status, 413);
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_site_can_take_more_than_the_others() {
    let app = Upstream::legacy().await;
    let limits = "[site.limits]\nuri = \"16KiB\"\nheader_count = 60\n[limits]\nheader_count = 20\n";
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n{limits}")).await;

    let long = browser.get(&format!("/public/{}", "x".repeat(10_000))).await;
    let many = browser.send(with_headers(40, 10)).await;

    assert_eq!((long.status.as_u16(), many.status.as_u16()), (200, 200));
}

/// A request for a public page with so many further fields of so many bytes.
fn with_headers(count: usize, bytes: usize) -> http::Request<Full<bytes::Bytes>> {
    let request = labelled("GET", "/public/x", "same-origin", "navigate", "document");
    let request = (0..count).fold(request, |request, number| request.header(format!("x-{number}"), "v".repeat(bytes)));
    request.body(Full::default()).unwrap()
}
