//! What the audit log says of sessions and logins, and what it never says.

use http::Request;
use http_body_util::Full;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::eventually;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

fn reasons(program: &Program, event: &str) -> Vec<String> {
    program.events(event).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_attempt_has_one_line_that_says_why() {
    // S150, S159: rule, each criterion with its verdict, outcome.
    let app = Upstream::start(|request| match request.field("password").as_deref() {
        Some("right") => Reply::redirect("/home?ticket=s3cret").header("set-cookie", "sid=s3cret; HttpOnly"),
        Some("down") => Reply::status(503),
        Some("odd") => Reply::status(404).header("location", "/home"),
        _ => Reply::redirect("/login?error=s3cret"),
    })
    .await;
    let site = SITE.replace("status = [302, 303], location_not", "set_cookie = \"sid\", location_not");
    let program = Program::start(&file(&app.url(), &site)).await;
    let mut browser = program.browser();

    for password in ["wrong", "down", "odd", "right"] {
        browser.post("/login", &[("username", "typ3d"), ("password", password)]).await;
    }
    program.answered(4).await;

    let attempts = program.events("login.attempt");
    let said: Vec<_> =
        attempts.iter().map(|line| (line["outcome"].as_str().unwrap(), line["criteria"].as_str().unwrap())).collect();
    assert_eq!(
        said,
        [
            ("failure", "success.location_not=no(/login) success.set_cookie=no(none set)"),
            ("undetermined", "success.status=no(503)"),
            ("failure", "success.location_not=yes(/home) success.set_cookie=no(none set) success.status=no(404)"),
            ("success", "success.location_not=yes(/home) success.set_cookie=yes(sid)"),
        ]
    );
    assert!(attempts.iter().all(|line| line["rule"] == 1));
    let users: Vec<_> = attempts.iter().map(|line| line["user"].as_str()).collect();
    assert_eq!(users, [None, None, None, Some("typ3d")], "never the typed name of a failed attempt");
}

#[tokio::test]
async fn an_attempt_that_breaks_off_has_its_line_as_well() {
    let app = Upstream::start(|_| Reply::redirect("/").held(&std::sync::Arc::default())).await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();

    let attempt =
        tokio::spawn(async move { browser.post("/login", &[("username", "alice"), ("password", "x")]).await });
    eventually("it arrives", || !app.received().is_empty()).await;
    attempt.abort();

    let line = program.event("login.attempt").await;
    assert_eq!((line["outcome"].as_str(), line["criteria"].as_str()), (Some("undetermined"), Some("answer=no(none)")));
}

#[tokio::test]
async fn each_end_has_a_reason_and_a_replay_names_its_session() {
    // S60, S159, VR-23
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();
    browser.get("/login").await;
    browser.log_in("alice").await;
    let session = program.event("session.authenticated").await["session"].clone();
    let mut thief = browser.clone();
    browser.get("/logout").await;
    thief.fetch("/").await;
    browser.with_session(&"A".repeat(43)).fetch("/").await;
    browser.with_session("no session at all").fetch("/").await;
    program.answered(6).await;

    assert_eq!(reasons(&program, "session.ended"), ["login", "logout"]);
    assert_eq!(program.events("session.ended")[1]["session"], session);
    assert_eq!(reasons(&program, "session.refused"), ["ended", "unknown", "malformed"]);
    assert_eq!(program.events("session.refused")[0]["session"], session, "an operator finds whose it was");
    assert_eq!(program.events("access")[3]["session"], serde_json::Value::Null, "but nobody used it");
}

#[tokio::test]
async fn sessions_that_idle_out_or_are_too_old_say_so() {
    let app = Upstream::legacy().await;
    for (limits, reason) in
        [("idle_timeout = \"1s\"", "idle"), ("idle_timeout = \"1s\"\nabsolute_timeout = \"1s\"", "absolute")]
    {
        let site = format!("{SITE}\n[site.session]\nrotate_every = \"off\"\n{limits}\n");
        let program = Program::start(&file(&app.url(), &site)).await;
        let mut browser = program.browser();
        browser.log_in("alice").await;

        // The countdown is no activity.
        while browser.fetch("/.vestibule/session").await.status == 200 {}

        assert_eq!(program.event("session.ended").await["reason"], reason);
        assert_eq!(browser.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_session_pushed_out_is_an_end() {
    // S176, VR-23
    let app = Upstream::legacy().await;
    let site = format!("{SITE}\n[site.limits]\nanonymous_sessions = 2\n");
    let program = Program::start(&file(&app.url(), &site)).await;

    for _ in 0..3 {
        program.browser().get("/login").await;
    }
    program.answered(3).await;

    assert_eq!(reasons(&program, "session.ended"), ["displaced"]);
    let begun = program.events("session.created");
    assert!(begun.iter().any(|line| line["session"] == program.events("session.ended")[0]["session"]));
}

#[tokio::test]
async fn cookies_that_cannot_be_kept_are_named_once() {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("set-cookie", "sid=1; HttpOnly"),
        "/public/x.png" => Reply::text("x").header("set-cookie", "pixel=s3cret; HttpOnly"),
        "/foreign" => Reply::text("x").header("set-cookie", "foreign=s3cret; HttpOnly; Domain=other.test"),
        "/long" => Reply::text("x").header("set-cookie", &format!("long={}", "s3cret".repeat(700))),
        "/bare" => Reply::text("x").header("set-cookie", &"s3cret".repeat(700)),
        "/ours" => Reply::text("x").header("set-cookie", "__HOST-session=s3cret"),
        "/full" => (0..10).fold(Reply::text("x"), |reply, number| {
            reply.header("set-cookie", &format!("full{number}={}; HttpOnly", "s3cret".repeat(600)))
        }),
        _ => Reply::text("page"),
    })
    .await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();
    for _ in 0..2 {
        browser.image("/public/x.png").await;
    }
    browser.log_in("alice").await;
    for path in ["/foreign", "/foreign", "/long", "/bare", "/ours", "/full"] {
        browser.get(path).await;
    }
    program.answered(9).await;

    let dropped = program.events("cookie.dropped");
    let names: Vec<_> = dropped.iter().map(|line| line["cookie"].as_str().unwrap()).collect();
    assert_eq!(names, ["pixel", "foreign", "long", "", "__HOST-session", "sid", "full0"]);
    let help = |name: &str| dropped.iter().find(|line| line["cookie"] == name).unwrap()["help"].as_str().unwrap();
    assert!(help("pixel").contains("no session can be begun"));
    assert!(help("foreign").contains("Domain"));
    assert!(help("full0").contains("32 KiB"));
}

#[tokio::test]
async fn an_unwatched_login_is_noticed() {
    let app = Upstream::start(|request| match request.path() {
        "/login" | "/other-login" => Reply::redirect("/").header("set-cookie", "sid=1; Path=/"),
        _ => Reply::text("page"),
    })
    .await;
    for cookies in ["", "[site.cookies]\nmode = \"pass\"\n"] {
        let site = SITE.replace("status = [302, 303], location_not", "set_cookie = \"sid\", location_not");
        let site = site.replace("public = [", "public = [\"/other-login\", ");
        let program = Program::start(&file(&app.url(), &format!("{site}{cookies}"))).await;
        let mut browser = program.browser();

        // The login itself is watched; the same path without the user's field is not, and neither is another.
        browser.post("/login", &[("username", "alice")]).await;
        assert!(program.events("login.unwatched").is_empty());
        browser.cookies.clear();
        browser.post("/login", &[("user", "alice")]).await;
        browser.post("/other-login", &[("username", "alice")]).await;
        program.answered(3).await;

        let said = program.events("login.unwatched");
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0]["cookie"], "sid");
    }
}

#[tokio::test]
async fn no_line_has_a_secret() {
    // S161, VR-39: a canary in every place where a secret stands.
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.body.contains("wrong") => Reply::text("form"),
        "/login" => {
            Reply::redirect("/?t=canary").header("set-cookie", "sid=canary; HttpOnly").header("x-token", "canary")
        }
        _ => Reply::text("canary").header("set-cookie", "other=canary"),
    })
    .await;
    let log = "\n[log]\nlevel = \"trace\"\n";
    let program = Program::start(&format!("{}{log}", file(&app.url(), SITE))).await;
    let mut browser = program.browser();
    browser.post("/login?x=canary", &[("username", "canary-typed"), ("password", "canary-wrong")]).await;
    browser.post("/login", &[("username", "alice"), ("password", "canary")]).await;
    let id = browser.session().unwrap();
    let request = labelled("GET", "/?q=canary", "same-origin", "cors", "empty")
        .header("cookie", format!("__Host-session={id}; foreign=canary"))
        .header("authorization", "Bearer canary")
        .header("referer", "https://app.test/?canary");
    browser.send(request.body(Full::default()).unwrap()).await;
    let doubled = Request::post("/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from("username=canary&username=canary2"))
        .unwrap();
    program.browser().send(doubled).await;
    browser.with_session(&id.replace(&id[30..], "AAAAAAAAAAAAA")).fetch("/").await;
    browser.get("/logout").await;
    program.answered(6).await;

    for line in program.lines() {
        let text = line.to_string();
        assert!(!text.contains("canary") && !text.contains(&id) && !text.contains(&id[..21]), "{text}");
    }
}
