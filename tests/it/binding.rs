//! To whom a session belongs: the network it began in, and as a signal the browser.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::OURS;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::file;
use crate::support::labelled;
use crate::support::parse;
use crate::support::program::Program;

/// What a request of this session from this address gets.
async fn from(browser: &Browser, address: [u8; 4], path: &str) -> Answer {
    let mut elsewhere = browser.clone();
    elsewhere.from = IpAddr::from(address);
    elsewhere.get(path).await
}

#[tokio::test]
async fn as_much_of_the_address_counts_as_is_said() {
    // S54, S55, S56
    let app = Upstream::legacy().await;
    for (bind, same_network, elsewhere) in
        [("", 200, 303), ("bind = \"exact\"", 303, 303), ("bind = \"off\"", 200, 200)]
    {
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n[site.session]\n{bind}")).await;
        browser.log_in("alice").await;

        assert_eq!(from(&browser, [127, 0, 0, 2], "/").await.status, same_network, "{bind}");
        assert_eq!(from(&browser, [127, 0, 1, 1], "/").await.status, elsewhere, "{bind}");
        assert_eq!(browser.get("/").await.status, 200, "a replay elsewhere ends nothing: {bind}");
    }
}

#[tokio::test]
async fn another_network_can_be_logged_only_or_end_the_session() {
    let app = Upstream::legacy().await;
    for (action, elsewhere, afterwards) in [("log", 200, 200), ("revoke", 303, 303)] {
        let site = format!("{SITE}\n[site.session]\non_mismatch = \"{action}\"");
        let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
        browser.log_in("alice").await;

        assert_eq!(from(&browser, [127, 0, 1, 1], "/").await.status, elsewhere, "{action}");
        assert_eq!(browser.get("/").await.status, afterwards, "{action}");
    }
}

#[tokio::test]
async fn another_browser_is_logged_unless_more_is_asked_for() {
    // S57
    let app = Upstream::legacy().await;
    for (action, other_browser, afterwards) in [("log", 200, 200), ("reauthenticate", 303, 200), ("revoke", 303, 303)] {
        let site = format!("{SITE}\n[site.session]\non_user_agent_change = \"{action}\"");
        let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
        browser.log_in("alice").await;
        let mut other = browser.clone();
        other.user_agent = "Thief/2.0".into();

        assert_eq!(other.get("/").await.status, other_browser, "{action}");
        assert_eq!(browser.get("/").await.status, afterwards, "{action}");
    }
}

#[tokio::test]
async fn whoever_is_refused_sees_what_everyone_without_a_session_sees() {
    // S58, S169
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.method == "POST" => Reply::redirect("/"),
        _ => Reply::text("page").header("set-cookie", "PHPSESSID=1; Path=/"),
    })
    .await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let nobody = proxy.browser();
    let unknown = nobody.with_session(&"A".repeat(43));
    for path in ["/", "/public/x", "/login", "/.vestibule/session"] {
        let mut seen = Vec::new();
        for visitor in [&nobody, &unknown, &browser] {
            let mut answer = from(visitor, [127, 0, 9, 1], path).await;
            // A new anonymous session is another one each time.
            for line in answer.set_cookies().iter().map(|line| line.len()).collect::<Vec<_>>() {
                answer.headers.append("length-of-cookie", line.to_string().parse().unwrap());
            }
            for varying in ["set-cookie", "date"] {
                answer.headers.remove(varying);
            }
            seen.push((answer.status, answer.headers, answer.body));
        }
        assert_eq!(seen[0], seen[1], "{path}");
        assert_eq!(seen[0], seen[2], "{path}");
    }
    assert_eq!(browser.get("/").await.status, 200);
}

/// Sessions of all kinds that are none for whoever presents them now: what the kind is, the ID, where it is
/// presented from, and by which browser.
async fn refused(proxy: &Vestibule) -> Vec<(&'static str, String, [u8; 4], &'static str)> {
    const HERE: [u8; 4] = [127, 0, 0, 1];
    const USUAL: &str = "Test/1.0";
    async fn logged_in(proxy: &Vestibule) -> Browser {
        let mut browser = proxy.browser();
        browser.log_in("alice").await;
        browser
    }
    let minute = Duration::from_secs(60);
    let idle = logged_in(proxy).await.session().unwrap();
    proxy.advance(15 * minute);
    let mut rotated = logged_in(proxy).await;
    let retired = rotated.session().unwrap();
    proxy.advance(15 * minute);
    rotated.get("/").await;
    rotated.get("/").await;
    proxy.advance(minute);
    let mut left = logged_in(proxy).await;
    let ended = left.session().unwrap();
    left.get("/logout").await;
    let mut neighbour = proxy.browser();
    let login = labelled("POST", "/login", "same-origin", "navigate", "document");
    let login = login.header("host", "other.test").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(neighbour.send(login.body("username=alice".into()).unwrap()).await.status, 302);
    vec![
        ("unknown", "A".repeat(43), HERE, USUAL),
        ("malformed", "A".repeat(42), HERE, USUAL),
        ("idle", idle, HERE, USUAL),
        ("retired", retired, HERE, USUAL),
        ("ended", ended, HERE, USUAL),
        ("of another site", neighbour.session().unwrap(), HERE, USUAL),
        ("of another network", logged_in(proxy).await.session().unwrap(), [127, 0, 9, 1], USUAL),
        ("of another browser", logged_in(proxy).await.session().unwrap(), HERE, "Thief/2.0"),
    ]
}

#[tokio::test]
async fn every_refusal_is_that_of_no_session_to_the_byte() {
    // S58, S169
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.method == "POST" => Reply::redirect("/"),
        "/logout" => Reply::redirect("/"),
        _ => Reply::text("page"),
    })
    .await;
    let session = "[site.session]\non_user_agent_change = \"reauthenticate\"\n";
    let other = format!("[[site]]\norigin = \"https://other.test\"\nupstream = \"{}\"\n{SITE}", app.url());
    let config = parse(&file(&app.url(), &format!("{SITE}{session}{other}")));
    let (proxy, _) = Vestibule::of(config).await;
    for (method, path, mode, dest) in [
        ("GET", "/", "navigate", "document"),
        ("GET", "/", "cors", "empty"),
        ("POST", "/x", "navigate", "document"),
        ("HEAD", "/x", "no-cors", "image"),
        ("GET", "/public/x", "navigate", "document"),
        ("GET", "/login", "navigate", "document"),
        ("GET", "/.vestibule/session", "cors", "empty"),
    ] {
        let ask = async |cookie: &str, from: [u8; 4], agent: &str| {
            let mut browser = proxy.browser();
            browser.from = from.into();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: app.test\r\nuser-agent: {agent}\r\nsec-fetch-site: same-origin\r\n\
                 sec-fetch-mode: {mode}\r\nsec-fetch-dest: {dest}\r\n{cookie}content-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = browser.raw(request.as_bytes()).await;
            answer.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\r\n")
        };
        let nothing = ask("", [127, 0, 0, 1], "Test/1.0").await;
        assert!(nothing.starts_with("HTTP/1.1 "), "{nothing}");
        for (kind, id, address, agent) in refused(&proxy).await {
            let refused = ask(&format!("cookie: {OURS}={id}\r\n"), address, agent).await;
            assert_eq!(refused, nothing, "{kind}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn what_the_client_says_of_its_address_moves_nothing() {
    // S53
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n[site.session]\nbind = \"exact\"")).await;
    browser.log_in("alice").await;
    let mut thief = browser.clone();
    thief.from = [127, 0, 0, 2].into();
    for (name, value) in [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("x-real-ip", "127.0.0.1")]
    {
        let request = crate::support::navigation("GET", "/").header(name, value);
        let answer = thief.send(request.body(http_body_util::Full::default()).unwrap()).await;
        assert_eq!(answer.status, 303, "{name}");
    }
}

#[tokio::test]
async fn the_log_says_what_changed_once() {
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;

    from(&browser, [127, 0, 1, 1], "/").await;
    for user_agent in ["Other/2.0", "Other/2.0", "Test/1.0", "Other/2.0", "Third/3.0"] {
        browser.user_agent = user_agent.into();
        browser.get("/").await;
    }
    program.answered(7).await;

    let session = program.event("session.authenticated").await["session"].clone();
    let changed: Vec<_> = program.events("session.client_changed");
    assert_eq!(
        changed.iter().map(|line| line["changed"].as_str().unwrap()).collect::<Vec<_>>(),
        ["address", "user-agent", "user-agent"]
    );
    assert!(changed.iter().all(|line| line["session"] == session));
    assert_eq!(program.event("session.refused").await["reason"], "binding");
}
