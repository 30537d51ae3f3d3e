//! What the log says to an operator whose file lacks a line.

use http_body_util::Full;
use serde_json::Value;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

/// The paths and helps of one event.
fn said(program: &Program, event: &str) -> Vec<(Value, Value)> {
    program.events(event).into_iter().map(|line| (line["path"].clone(), line["help"].clone())).collect()
}

async fn from_login_page(browser: &mut Browser, method: &str, path: &str, mode: &str, dest: &str) {
    let request = labelled(method, path, "same-origin", mode, dest).header("referer", "https://app.test/login?x");
    browser.send(request.body(Full::default()).unwrap()).await;
}

#[tokio::test]
async fn the_log_says_what_a_login_page_lacks() {
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.method == "POST" => {
            Reply::redirect("/login?%40error=1&user=alice").header("set-cookie", "a=b")
        }
        _ => Reply::text("<form>"),
    })
    .await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();

    for _ in 0..2 {
        from_login_page(&mut browser, "GET", "/assets/css/a.css", "no-cors", "style").await;
        from_login_page(&mut browser, "POST", "/session/new", "navigate", "document").await;
        browser.post("/login", &[("username", "alice"), ("password", "wrong")]).await;
    }
    browser.post("/other", &[]).await;
    program.answered(7).await;

    let text = |path: &str, help: &str| (path.into(), help.into());
    assert_eq!(
        said(&program, "access.hint"),
        [
            text(
                "/assets/css/a.css",
                "the login page wants this path: public = [\"/assets/*\"] in [site.access] would let it through"
            ),
            text(
                "/login",
                "a failed login leads to the login page with a parameter, which needs a session: public = [\"GET /login?*error=*\"] \
                 in [site.access] would let it through"
            ),
        ]
    );
    assert_eq!(
        said(&program, "login.unwatched"),
        [text(
            "/session/new",
            "the login page posts to this path: if that is the login, it needs a [[site.login]] with path = \
             \"/session/new\""
        )]
    );
}

#[tokio::test]
async fn cookies_that_go_with_a_logout_are_no_loss() {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("set-cookie", "sid=1; HttpOnly"),
        "/logout" => Reply::redirect("/login").header("set-cookie", "sid=2; HttpOnly"),
        _ => Reply::text("private"),
    })
    .await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;

    browser.get("/logout").await;
    program.answered(2).await;

    assert!(program.events("cookie.dropped").is_empty());
}
