//! Signed statements about the user, verified by a library that knows nothing of this program, with the lines
//! that docs/recipes.md has for applications.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;

use crate::documents;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::apps;
use crate::support::certificates;
use crate::support::empty;
use crate::support::navigation;

/// What the library says of each of these tokens.
async fn verified(proxy: &Vestibule, tokens: &[String]) -> Vec<String> {
    verified_for("ORIGIN", proxy, tokens).await
}

/// The same for another audience.
async fn verified_for(audience: &str, proxy: &Vestibule, tokens: &[String]) -> Vec<String> {
    let recipes = documents::read("docs/recipes.md");
    let recipe = documents::blocks(&recipes, "python").into_iter().find(|block| block.contains("import jwt")).unwrap();
    let recipe = recipe.replace("audience=ORIGIN", &format!("audience={audience}"));
    let input = format!("{recipe}\n#\n{}", tokens.join("\n"));
    let port = proxy.https.port().to_string();
    let verify = move || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps/jwt_verify.py");
        let mut command = Command::new(apps().join("jwt/venv/bin/python"));
        command.arg(script).arg(port).arg(&certificates().ca).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    tokio::task::spawn_blocking(verify).await.unwrap()
}

fn site() -> String {
    format!("{SITE}\n[site.identity]\nassertion = {{ header = \"X-Assertion\" }}\n")
}

async fn logged_in(app: &Upstream, proxy: &Vestibule, user: &str) -> String {
    let mut browser = proxy.browser();
    browser.log_in(user).await;
    browser.fetch("/").await;
    app.last().header("x-assertion").unwrap().to_owned()
}

#[tokio::test]
async fn an_application_can_verify_who_it_is_told_about() {
    // S73
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => Reply::text(""),
    })
    .await;
    let (proxy, _) = Vestibule::today(&app.url(), &site()).await;
    let (alice, other) = (logged_in(&app, &proxy, "alice").await, logged_in(&app, &proxy, "Zoë \"Z\"").await);
    let [head, claims, signature] = alice.split('.').collect::<Vec<_>>()[..] else { panic!("{alice}") };
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let forged = URL_SAFE_NO_PAD.encode(claims.replace("alice", "admin"));
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);

    let said = verified(
        &proxy,
        &[
            alice.clone(),
            other,
            format!("{head}.{forged}.{signature}"),
            format!("{unsigned}.{forged}."),
            format!("{head}.{forged}.{}", URL_SAFE_NO_PAD.encode([1; 64])),
        ],
    )
    .await;

    let expected = ["alice", "Zoë \"Z\"", "InvalidSignatureError", "PyJWKClientError", "InvalidSignatureError"];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn nobody_uses_one_later_or_elsewhere() {
    // S73
    let app = Upstream::legacy().await;
    let (past, _) = Vestibule::ago(Duration::from_secs(90), &app.url(), &site()).await;
    let two = format!("{}\n[[site]]\norigin = \"https://other.test\"\nupstream = {:?}\n{}", site(), app.url(), site());
    let (proxy, mut browser) = Vestibule::today(&app.url(), &two).await;
    let at_other = |request: http::request::Builder| request.header("host", "other.test");
    let form = at_other(navigation("POST", "/login")).header("content-type", "application/x-www-form-urlencoded");
    browser.send(form.body(Full::from("username=alice&password=secret")).unwrap()).await;
    browser.send(empty(at_other(navigation("GET", "/")))).await;
    let others = app.last().header("x-assertion").unwrap().to_owned();

    let old = logged_in(&app, &past, "alice").await;

    assert_eq!(verified(&past, std::slice::from_ref(&old)).await, ["ExpiredSignatureError"]);
    // The key is the same for both sites, and another one for another Vestibule.
    assert_eq!(verified(&proxy, &[others, old]).await, ["InvalidIssuerError", "PyJWKClientError"]);
    let mine = logged_in(&app, &proxy, "alice").await;
    assert_eq!(verified_for("'https://other.test'", &proxy, &[mine]).await, ["InvalidAudienceError"]);
}
