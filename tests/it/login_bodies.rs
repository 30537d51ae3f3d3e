//! What a login request carries: read with care, refused when in doubt, and passed on as it came.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;
use crate::support::read_head;

const FORM: &str = "application/x-www-form-urlencoded";

/// A login as a client that is no browser sends it.
fn login(path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("content-type", content_type).body(Full::new(body.into())).unwrap()
}

async fn json_site(app: &Upstream) -> (Vestibule, Browser) {
    let site = "[site.login]\npath = \"/login\"\nuser = \"json:/username\"\nsuccess = { status = 200 }";
    Vestibule::with(app, site).await
}

/// What is answered to a request whose client sends no more than this.
async fn broken_off(browser: &Browser, bytes: &str) -> String {
    let mut stream = browser.connect(b"http/1.1").await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn an_expectation_is_answered_by_us() {
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Type: {FORM}\r\nContent-Length: 30\r\nExpect: 100-continue\r\n\
         Connection: close\r\n\r\n"
    );

    let mut stream = browser.connect(b"http/1.1").await;
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue");
    assert!(app.received().is_empty());
    stream.write_all(b"username=alice&password=secret").await.unwrap();
    let answer = read_head(&mut stream).await;

    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert_eq!(app.last().header("expect"), None);
    assert_eq!(app.last().header("content-length"), Some("30"));
    assert_eq!(app.last().body, "username=alice&password=secret");
}

#[tokio::test]
async fn chunks_become_one_body_of_known_length() {
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n9\r\nusername=\r\n6;x=y\r\nalice&\r\nf\r\npassword=secret\r\n0\r\nX-Forwarded-User: eve\r\n\r\n"
    );

    let answer = browser.raw(request.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert_eq!(app.last().body, "username=alice&password=secret");
    assert_eq!(app.last().header("content-length"), Some("30"));
    assert_eq!(app.last().header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_body_that_cannot_be_judged_is_refused_before_the_application_is_asked() {
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let largest = |bytes: usize| {
        let start = "username=alice&password=secret&x=";
        format!("{start}{}", "y".repeat(bytes - start.len()))
    };
    for mut browser in [browser.clone(), browser.clone().over_http2()] {
        assert_eq!(browser.clone().send(login("/login", FORM, largest(64 * 1024))).await.status, 302);
        let before = app.received().len();
        assert_eq!(browser.send(login("/login", FORM, largest(64 * 1024 + 1))).await.status, 413);
        assert_eq!(app.received().len(), before);
    }
    let before = app.received().len();
    let head = format!("POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Type: {FORM}\r\n");
    let chunk = "x".repeat(4000);
    let many = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", format!("fa0\r\n{chunk}\r\n").repeat(17));
    for request in [
        format!("{head}Content-Length: 30\r\n\r\nusername=alice"),
        format!("{head}Content-Length: 70000\r\nExpect: 100-continue\r\n\r\n"),
        many,
    ] {
        let answer = broken_off(&browser, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    assert_eq!(app.received().len(), before);
}

#[tokio::test]
async fn from_an_authenticated_session_a_body_that_is_no_login_is_ordinary_traffic() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let session = browser.session();
    let upload = |content_type: &str, body: Vec<u8>| {
        labelled("POST", "/login", "same-origin", "cors", "empty")
            .header("content-type", content_type)
            .body(Full::from(body))
            .unwrap()
    };

    for (content_type, body) in [
        (FORM, vec![b'x'; 100_000]),
        ("application/octet-stream", vec![0; 10]),
        ("text/plain", b"username=bob".to_vec()),
        ("multipart/form-data; boundary=b", b"no multipart at all".to_vec()),
    ] {
        let length = body.len();
        assert_eq!(browser.send(upload(content_type, body)).await.status, 200, "{content_type}");
        assert_eq!(app.last().body.len(), length);
        assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
    }
    let twice = upload(FORM, b"username=bob&username=carol&password=secret".to_vec());
    assert_eq!(browser.send(twice).await.status, 400, "but never a login in doubt");
    assert_eq!(browser.session(), session);
}

#[tokio::test]
async fn a_user_field_in_doubt_is_refused_before_the_application_is_asked() {
    // VR-30
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let good = "username=alice&password=secret";
    let part = |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n");
    let parts = format!("{}{}", part("name=\"username\"", "alice"), part("name=\"password\"", "secret"));
    let multipart = "multipart/form-data; boundary=b";
    for (path, content_type, body) in [
        ("/login", FORM, "username=alice&username=bob&password=secret".to_owned()),
        ("/login", FORM, "username=alice&password=secret&Username=bob".to_owned()),
        ("/login", FORM, "x=1;username=bob&username=alice&password=secret".to_owned()),
        ("/login", FORM, "username=alice&password=secret&username[]=bob".to_owned()),
        ("/login", FORM, "username=%ff&password=secret".to_owned()),
        ("/login?username=bob", FORM, good.to_owned()),
        ("/login?USERNAME=bob", FORM, good.to_owned()),
        ("/login?username=bob", multipart, format!("{parts}--b--")),
        ("/login", multipart, format!("{parts}{}--b--", part("name=\"username\"", "bob"))),
        ("/login", multipart, format!("{parts}{}--b--", part("name=\"username\"; filename=\"x\"", "bob"))),
        ("/login", multipart, format!("{parts}{}--b--", part("name=\"x\"", "1\n--b\nContent-Disposition: x"))),
        ("/login", multipart, parts.clone()),
        ("/login", "text/plain", good.to_owned()),
        ("/login", "", good.to_owned()),
        ("/login", "application/x-www-form-urlencoded; charset=utf-16", good.to_owned()),
        ("/login", "application/json", "{\"username\":\"alice\",".to_owned()),
    ] {
        let refused = browser.clone().send(login(path, content_type, body.clone())).await;
        assert_eq!(refused.status, 400, "{path} {content_type} {body}");
        assert_eq!(refused.ours(), None);
    }
    let mut coded = login("/login", FORM, good);
    coded.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(browser.clone().send(coded).await.status, 400);
    let mut typed_twice = login("/login", FORM, good);
    typed_twice.headers_mut().append("content-type", multipart.parse().unwrap());
    assert_eq!(browser.clone().send(typed_twice).await.status, 400);
    assert!(app.received().is_empty());
    assert_eq!(
        browser.clone().send(login("/login", multipart, format!("{parts}--b--"))).await.status,
        200,
        "no field here"
    );
}

#[tokio::test]
async fn a_json_name_in_doubt_is_refused_before_the_application_is_asked() {
    let app = Upstream::start(|_| Reply::text("{}")).await;
    let (_proxy, browser) = json_site(&app).await;
    for (path, body) in [
        ("/login", "{\"username\":\"alice\",\"username\":\"bob\"}"),
        ("/login", "{\"username\":\"alice\",\"UserName\":\"bob\"}"),
        ("/login", "{\"username\":\"alice\",\"u\u{17f}ername\":\"bob\"}"),
        ("/login", "{\"username\":\"alice\",\"\\u0075sername\":\"bob\"}"),
        ("/login", "{\"username\":\"alice\"}{\"username\":\"bob\"}"),
        ("/login?username=bob", "{\"username\":\"alice\"}"),
    ] {
        assert_eq!(browser.clone().send(login(path, "application/json", body)).await.status, 400, "{path} {body}");
    }
    assert!(app.received().is_empty());
    let mut good = browser.clone();
    good.send(login("/login", "application/json; charset=utf-8", "{\"password\":1,\"username\":\"alice\"}")).await;
    assert!(good.session().is_some());
}

#[tokio::test]
async fn a_name_in_the_query_is_refused_when_the_body_has_another() {
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let site = "[site.login]\npath = \"/login\"\nuser = \"query:u\"\nsuccess = { status = 200 }";
    let (_proxy, browser) = Vestibule::with(&app, site).await;

    let both = browser.clone().send(login("/login?u=alice", FORM, "u=mallory")).await;
    let twice = browser.clone().send(login("/login?u=alice&u=mallory", FORM, "")).await;

    assert_eq!([both.status.as_u16(), twice.status.as_u16()], [400, 400]);
    assert!(app.received().is_empty());
    let mut good = browser.clone();
    good.send(login("/login?u=alice", FORM, "p=x")).await;
    good.fetch("/").await;
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
}

#[tokio::test]
async fn multipart_forms_and_passwords_in_any_charset_log_in() {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => Reply::text("private"),
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nal\u{ed}ce\r\n\
                     --b\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"\"\r\n\
                     Content-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n";
    for (content_type, body, user) in [
        ("multipart/form-data; boundary=b", multipart, "al%C3%ADce"),
        (FORM, "username=alice&password=%E9t%E9", "alice"),
        (FORM, "username=a%6Cice&password=a;b", "alice"),
    ] {
        let mut browser = browser.clone();
        browser.send(login("/login", content_type, body)).await;
        assert_eq!(app.last().body, body);
        assert_eq!(browser.fetch("/").await.status, 200, "{body}");
        assert_eq!(app.last().header("x-forwarded-user"), Some(user));
    }
}

#[tokio::test]
async fn a_login_script_is_watched_below_its_path() {
    // PATH_INFO: PHP runs /login.php for /login.php/x as well.
    let app = Upstream::start(|request| match request.path().starts_with("/login.php") {
        true => Reply::redirect("/"),
        false => Reply::text("private"),
    })
    .await;
    let site = "[site.login]\npath = \"/login.php\"\nuser = \"form:username\"\nsuccess = { location = \"/\" }";
    let (_proxy, browser) = Vestibule::with(&app, site).await;
    for path in ["/login.php", "/login.php/x", "/login.php/x/y", "/login.php/"] {
        let mut browser = browser.clone();
        browser.post("/login.php", &[("username", "bob")]).await;
        let bob = browser.session();

        browser.post(path, &[("username", "alice")]).await;

        assert_ne!(browser.session(), bob, "{path}");
        browser.fetch("/").await;
        assert_eq!(app.last().header("x-forwarded-user"), Some("alice"), "{path}");
    }
}

#[tokio::test]
async fn a_login_path_is_open_only_without_detours() {
    // S90, VR-12: an application that does not resolve dots reads something below /admin.
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for path in ["/admin/../login", "/admin/%2e%2e/login", "//login", "/./login", "/login;x"] {
        let page = browser.clone().get(path).await;
        let login = browser.clone().post(path, &[("username", "alice"), ("password", "secret")]).await;
        assert_eq!([page.status.as_u16(), login.status.as_u16()], [303, 303], "{path}");
        assert_eq!(login.ours(), None);
    }
    assert!(app.received().is_empty());
    let mut authenticated = browser.clone();
    authenticated.log_in("alice").await;
    let alice = authenticated.session();
    let before = app.received().len();
    // The answer of whatever else the application sees there must not make anybody somebody.
    let detour = authenticated.post("/admin/../login", &[("username", "bob"), ("password", "x")]).await;
    assert_eq!((detour.status.as_u16(), app.received().len()), (400, before));
    assert_eq!(authenticated.session(), alice);
}
