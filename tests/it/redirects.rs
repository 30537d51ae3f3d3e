//! Redirects and encoded answers of the application are the browser's business.

use bytes::Bytes;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;

#[tokio::test]
async fn no_redirect_of_the_application_is_followed() {
    // S158: the address may be one that only we can reach.
    let inner = Wire::start(|_, _stream| async {}).await;
    let elsewhere = format!("{}/latest/meta-data/", inner.url());
    let to = elsewhere.clone();
    let app = Upstream::start(move |request| match request.path() {
        "/public/307" => Reply::status(307).header("location", &to),
        _ => Reply::redirect(&to),
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;

    let page = browser.clone().get("/public/302").await;
    let kept = browser.clone().post("/public/307", &[("a", "b")]).await;
    let login = browser.clone().post("/login", &[("username", "alice"), ("password", "secret")]).await;
    let mut visitor = browser.clone();
    visitor.cookies.insert("old".to_owned(), "cookie".to_owned());
    let login_page = visitor.get("/login").await;

    for (answer, status) in [(page, 302), (kept, 307), (login, 302), (login_page, 302)] {
        assert_eq!((answer.status.as_u16(), answer.location()), (status, elsewhere.as_str()));
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn nothing_is_decoded_on_the_way() {
    // S178: what claims to be packed need not be.
    let app = Upstream::start(|request| {
        let coding = request.header("accept-encoding").unwrap().to_owned();
        Reply::text("").body(Bytes::from_static(b"\x1f\x8b no gzip at all")).header("content-encoding", &coding)
    })
    .await;
    let (_proxy, mut browser) = Vestibule::with(&app, SITE).await;
    for coding in ["gzip", "br", "x-unheard-of"] {
        let request = http::Request::get("/public/x").header("accept-encoding", coding);
        let answer = browser.open(crate::support::empty(request)).await;
        assert_eq!(answer.headers()["content-encoding"], coding);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert_eq!(body, &b"\x1f\x8b no gzip at all"[..]);
    }
}
