//! How real applications log people in: each way is a rule, and is told from a failed login over both
//! protocols.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::support::Received;
use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;
use crate::support::navigation;

type Sent = Request<Full<Bytes>>;

/// Logs in with the wrong and then with the right word in front of this application, over each protocol;
/// whom the application is told about afterwards.
async fn tells(
    rule: &str,
    login: impl Fn(&str) -> Sent,
    answer: impl Fn(&Received, bool) -> Reply + Send + Sync + 'static,
) -> String {
    let app = Upstream::start(move |request| {
        let basic = request.header("authorization") == Some("Basic YWxpY2U6cmlnaHQ=");
        let right = basic || request.body.contains("right") || request.target.contains("right");
        match request.path().split(';').next().unwrap() {
            "/auth" => answer(request, right),
            "/whoami" if request.cookie("sid") == Some("right") => {
                Reply::text("{\"user\":{\"name\":\"carol\"}}").header("x-user", "dave")
            }
            "/whoami" => Reply::redirect("/form"),
            _ => Reply::text("page"),
        }
    })
    .await;
    let site = format!("[site.login]\npath = \"/auth\"\npage = \"/form\"\n{rule}");
    let (proxy, browser) = Vestibule::with(&app, &site).await;
    let mut users = Vec::new();
    for mut browser in [browser, proxy.browser().over_http2()] {
        browser.send(login("wrong")).await;
        assert_eq!(browser.fetch("/x").await.status, 401, "a failed login opened a session: {rule}");
        browser.send(login("right")).await;
        assert_eq!(browser.fetch("/x").await.status, 200, "the login was not recognised: {rule}");
        users.push(app.last().header("x-forwarded-user").unwrap().to_owned());
    }
    assert_eq!(users[0], users[1]);
    users.remove(0)
}

fn form(word: &str) -> Sent {
    navigation("POST", "/auth")
        .header("origin", "https://app.test")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(format!("u=alice&p={word}")))
        .unwrap()
}

fn json(word: &str) -> Sent {
    labelled("POST", "/auth", "same-origin", "cors", "empty")
        .header("content-type", "application/json")
        .body(Full::from(format!("{{\"login\":{{\"name\":\"frank\"}},\"p\":\"{word}\"}}")))
        .unwrap()
}

fn redirect_with_cookie(right: bool) -> Reply {
    let word = if right { "right" } else { "wrong" };
    Reply::redirect("/home").header("set-cookie", &format!("sid={word}; HttpOnly; Path=/"))
}

#[tokio::test]
async fn a_redirect_for_success_and_the_form_for_failure() {
    // S28, S150: Django and most of the others.
    let rule = "user = \"form:u\"\nsuccess = { status = [302, 303], location_not = \"/auth*\" }";
    for failure in [200, 403] {
        let user = tells(rule, form, move |_, right| if right { Reply::redirect("/") } else { Reply::status(failure) });
        assert_eq!(user.await, "alice");
    }
}

#[tokio::test]
async fn a_redirect_for_both_told_by_where_it_goes() {
    for rule in ["success = { location = \"/home*\" }", "success = { location_not = \"/auth?failed*\" }"] {
        let rule = format!("user = \"form:u\"\n{rule}");
        let user = tells(&rule, form, |_, right| Reply::redirect(if right { "/home?x" } else { "/auth?failed=1" }));
        assert_eq!(user.await, "alice");
    }
}

#[tokio::test]
async fn a_redirect_for_both_told_by_a_cookie() {
    let rule = "user = \"form:u\"\nsuccess = { set_cookie = \"sid\" }";
    let user = tells(rule, form, |_, right| {
        Reply::redirect("/").header("set-cookie", if right { "sid=1; HttpOnly" } else { "sid=; Max-Age=0" })
    });
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn a_redirect_for_both_told_by_the_next_page() {
    for (rule, user) in [
        ("user = \"form:u\"\nverify = { path = \"/whoami\" }", "alice"),
        ("user = \"verify-json:/user/name\"\nverify = { path = \"/whoami\", body_contains = \"name\" }", "carol"),
        ("user = \"verify-header:X-User\"\nverify = { path = \"/whoami\", header = { name = \"X-User\" } }", "dave"),
        ("user = \"form:u\"\nverify = { status = 200, json = { pointer = \"/user/name\" } }", "alice"),
    ] {
        let told = tells(rule, form, |_, right| {
            let word = if right { "right" } else { "wrong" };
            Reply::redirect("/whoami").header("set-cookie", &format!("sid={word}; HttpOnly; Path=/"))
        });
        assert_eq!(told.await, user, "{rule}");
    }
}

#[tokio::test]
async fn one_status_for_both_told_by_the_body() {
    // qBittorrent, and many scripts.
    for rule in ["success = { body_contains = \"Ok.\" }", "success = { body_omits = \"Fails.\" }"] {
        let rule = format!("user = \"form:u\"\n{rule}");
        let user = tells(&rule, form, |_, right| Reply::text(if right { "Ok." } else { "Fails." }));
        assert_eq!(user.await, "alice");
    }
    let rule = "user = \"form:u\"\nfailure = { body_contains = \"again\" }\nsuccess = { status = 200 }";
    let user = tells(rule, form, |_, right| Reply::text(if right { "Hello" } else { "Try again" }));
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn one_status_for_both_told_by_json() {
    let rule = "user = \"form:u\"\nsuccess = { json = { pointer = \"/result/ok\", value = true } }";
    let user = tells(rule, form, |_, right| Reply::text(&format!("{{\"result\":{{\"ok\":{right}}}}}")));
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn a_401_for_failure() {
    let rule = "user = \"form:u\"\nsuccess = { status = 200 }";
    let user = tells(rule, form, |_, right| Reply::status(if right { 200 } else { 401 }));
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn a_login_by_get() {
    let rule = "method = \"GET\"\nuser = \"query:u\"\nsuccess = { location = \"/home\" }";
    let login = |word: &str| navigation("GET", &format!("/auth?u=erin&p={word}")).body(Full::default()).unwrap();
    let user = tells(rule, login, |_, right| Reply::redirect(if right { "/home" } else { "/form" }));
    assert_eq!(user.await, "erin");
}

#[tokio::test]
async fn a_password_and_no_name() {
    let rule = "user = \"fixed:operator\"\nform = { name = \"p\" }\nsuccess = { status = 302 }";
    let user = tells(rule, form, |_, right| if right { Reply::redirect("/") } else { Reply::text("form") });
    assert_eq!(user.await, "operator");
}

#[tokio::test]
async fn basic_on_one_path() {
    let rule = "method = \"GET\"\nuser = \"basic\"\nsuccess = { status = 200 }";
    let login = |word: &str| {
        let token = if word == "right" { "YWxpY2U6cmlnaHQ=" } else { "YWxpY2U6d3Jvbmc=" };
        let request = labelled("GET", "/auth", "same-origin", "cors", "empty");
        request.header("authorization", format!("Basic {token}")).body(Full::default()).unwrap()
    };
    let user = tells(rule, login, |_, right| match right {
        true => Reply::text("hello"),
        false => Reply::status(401).header("www-authenticate", "Basic realm=\"app\""),
    });
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn a_session_in_the_path_of_the_form() {
    // Servlet containers write it there before they know whether cookies work.
    let rule = "user = \"form:u\"\nsuccess = { location_not = \"/auth*\" }";
    let login = |word: &str| {
        let mut request = form(word);
        *request.uri_mut() = "/auth;jsessionid=0123ABCD".parse().unwrap();
        request
    };
    let user = tells(rule, login, |request, right| {
        assert_eq!(request.target, "/auth", "an ID in the path reached the application");
        Reply::redirect(if right { "/home;jsessionid=0123ABCD" } else { "/auth;jsessionid=0123ABCD?error" })
    });
    assert_eq!(user.await, "alice");
}

#[tokio::test]
async fn a_json_login_whose_token_the_page_keeps() {
    let rule = "user = \"json:/login/name\"\nsuccess = { json = { pointer = \"/token\" } }";
    let user =
        tells(rule, json, |_, right| Reply::text(&format!("{{\"token\":{}}}", if right { "\"t\"" } else { "null" })));
    assert_eq!(user.await, "frank");

    let app = Upstream::start(|_| Reply::text("{\"token\":\"t0ken\"}")).await;
    let site = format!("[site.login]\npath = \"/auth\"\n{rule}");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    assert_eq!(browser.send(json("right")).await.body, "{\"token\":\"t0ken\"}");
    let api = labelled("POST", "/api", "same-origin", "cors", "empty").header("authorization", "Bearer t0ken");
    assert_eq!(browser.send(api.body(Full::default()).unwrap()).await.status, 200);
    assert_eq!(app.last().header("authorization"), Some("Bearer t0ken"), "S71");
}

#[tokio::test]
async fn the_answer_tells_who_it_was() {
    let rule = "user = \"response-header:X-Who\"\nsuccess = { header = { name = \"X-Who\", value = \"d*\" } }";
    let user = tells(rule, form, |_, right| match right {
        true => Reply::text("hello").header("x-who", "dave"),
        false => Reply::text("form"),
    });
    assert_eq!(user.await, "dave");

    let rule =
        "user = \"response-json:/me/mail\"\nuser_match = \"^([^@]+)@\"\nsuccess = { json = { pointer = \"/me\" } }";
    let user = tells(rule, form, |_, right| {
        Reply::text(if right { "{\"me\":{\"mail\":\"erin@x.test\"}}" } else { "{\"me\":null}" })
    });
    assert_eq!(user.await, "erin");

    let rule = "user = \"set-cookie:who\"\nsuccess = { set_cookie = [\"sid\", \"who\"] }";
    let user = tells(rule, form, |_, right| match right {
        true => redirect_with_cookie(true).header("set-cookie", "who=fr%C3%A9d; Path=/"),
        false => redirect_with_cookie(false),
    });
    assert_eq!(user.await, "fr%C3%A9d", "percent-encoded for the header (S67)");
}

#[tokio::test]
async fn a_token_that_the_page_fetches_first() {
    // The token belongs to the application's anonymous session, which must be there for the login.
    let app = Upstream::start(|request| match (request.path(), request.cookie("connect.sid")) {
        ("/csrf", _) => Reply::text("{\"token\":\"t1\"}").header("set-cookie", "connect.sid=anon; HttpOnly; Path=/"),
        ("/auth", Some("anon")) if request.header("x-csrf-token") == Some("t1") => {
            Reply::status(204).header("set-cookie", "connect.sid=in; HttpOnly; Path=/")
        }
        ("/auth", _) => Reply::status(403),
        (_, Some("in")) => Reply::text("private"),
        _ => Reply::status(500),
    })
    .await;
    let site = "[site.login]\npath = \"/auth\"\npage = \"/\"\nuser = \"json:/login/name\"\nsuccess = { status = 204 }\n\
                [site.access]\npublic = \"/csrf\"";
    let (proxy, browser) = Vestibule::with(&app, site).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        browser.fetch("/csrf").await;
        let before = browser.session().expect("an anonymous session");
        let mut login = json("right");
        login.headers_mut().insert("x-csrf-token", "t1".parse().unwrap());

        assert_eq!(browser.send(login).await.status, 204);

        assert_ne!(browser.session().unwrap(), before);
        assert_eq!(browser.fetch("/data").await.body, "private");
    }
}

#[tokio::test]
async fn login_and_logout_on_one_path_are_told_apart_by_a_field() {
    let app = Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/session") => Reply::redirect("/"),
        _ => Reply::text("private"),
    })
    .await;
    let site = r#"
[site.login]
path = "/session"
page = "/form"
form = { name = "action", value = "login" }
user = "form:user"
success = { status = 302 }

[site.logout]
path = "/session"
form = { name = "action", value = "logout" }
"#;
    let (proxy, browser) = Vestibule::with(&app, site).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        browser.post("/session", &[("action", "login"), ("user", "alice")]).await;
        assert_eq!(browser.post("/session", &[("action", "other"), ("user", "bob")]).await.status, 302);
        let link = labelled("GET", "/session", "cross-site", "navigate", "document").body(Full::default()).unwrap();
        assert_eq!(browser.send(link).await.status, 200, "S139: a link to the page is no logout");
        assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
        let answer = browser.post("/session", &[("action", "logout"), ("token", "of-the-app")]).await;

        assert_eq!(answer.status, 302);
        assert_eq!(app.last().body, "action=logout&token=of-the-app");
        assert!(browser.session().is_none());
        assert_eq!(browser.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_logout_that_needs_a_post_with_its_own_token() {
    let app = Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Reply::redirect("/").header("set-cookie", "sessionid=s1; HttpOnly; Path=/"),
        ("GET", "/logout") => Reply::text("<form> token=t1"),
        ("POST", "/logout")
            if request.field("token").as_deref() == Some("t1") && request.cookie("sessionid").is_some() =>
        {
            Reply::redirect("/bye").header("set-cookie", "sessionid=; Max-Age=0")
        }
        ("POST", "/logout") => Reply::status(403),
        _ => Reply::text("private"),
    })
    .await;
    let site = crate::support::SITE.replace("path = \"/logout\"", "path = \"/logout\"\nmethods = \"POST\"");
    let (proxy, browser) = Vestibule::with(&app, &site).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        browser.log_in("alice").await;
        assert_eq!(browser.get("/logout").await.body, "<form> token=t1");
        assert_eq!(browser.fetch("/").await.status, 200, "asking for the form is no logout");

        let answer = browser.post("/logout", &[("token", "t1")]).await;

        assert_eq!((answer.status.as_u16(), answer.location()), (302, "/bye"));
        assert_eq!(browser.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn many_cookies_in_one_answer_all_arrive() {
    // S7
    let rule = "[site.login]\npath = \"/auth\"\nuser = \"form:u\"\nsuccess = { status = 302 }";
    for count in [4, 18] {
        let app = Upstream::start(move |_| {
            (0..count).fold(Reply::redirect("/"), |reply, number| match number % 2 {
                0 => reply.header("set-cookie", &format!("v{number}=1; HttpOnly; Path=/")),
                _ => reply.header("set-cookie", &format!("b{number}=1; Path=/")),
            })
        })
        .await;
        let (proxy, browser) = Vestibule::with(&app, rule).await;
        for mut browser in [browser, proxy.browser().over_http2()] {
            let answer = browser.send(form("right")).await;
            browser.get("/x").await;

            assert_eq!(answer.set_cookies().len(), count / 2 + 1, "half of the application's, and ours");
            let cookies = app.last().header("cookie").unwrap().to_owned();
            assert_eq!(cookies.split("; ").count(), count, "{cookies}");
            assert!(!cookies.contains("__Host-"), "S10");
        }
    }
}
