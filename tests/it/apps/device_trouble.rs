//! Device-bound sessions with a real browser that cannot refresh for now: it has no signatures left, or the
//! session store is away. Its user is not logged out, and nobody gets in without a proof.

use std::time::Duration;

use serde_json::json;

use crate::apps::device::ORIGIN;
use crate::apps::device::app;
use crate::apps::device::bound;
use crate::apps::device::evil;
use crate::apps::device::is_kept;
use crate::apps::device::status;
use crate::apps::device::stolen;
use crate::support::BOUND;
use crate::support::Chromium;
use crate::support::OURS;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::device::PREFER;
use crate::support::empty;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;

const MODES: [&str; 2] = ["prefer", "require"];

fn bound_by(mode: &str) -> String {
    format!("{SITE}{}", PREFER.replace("prefer", mode))
}

/// The program in front of an application, and a browser with as few signatures as everybody's.
struct Desk {
    app: Upstream,
    program: Program,
    chromium: Chromium,
}

impl Desk {
    /// With a session that is bound.
    async fn at(app: Upstream, text: &str) -> Self {
        let program = Program::start(text).await;
        let evil = evil().await;
        let chromium = Chromium::rationed(&[("app.test", program.https), ("evil.test", evil.address)]).await;
        log_in(&chromium).await;
        program.event("device.registered").await;
        is_kept(&chromium).await;
        Self { app, program, chromium }
    }

    async fn fetch(&self, path: &str) -> u64 {
        status(&self.chromium, path, "{}").await.as_u64().unwrap()
    }

    /// What somebody gets who has only copied the cookie, and what they say of themselves.
    async fn stolen(&self, says: Option<&str>) -> u16 {
        let session = self.chromium.cookie(OURS).await.expect("no session");
        let mut request = labelled("GET", "/stolen", "same-origin", "cors", "empty");
        if let Some(word) = says {
            request = request.header("secure-session-skipped", word);
        }
        self.program.browser().with_session(&session).send(empty(request)).await.status.as_u16()
    }

    /// How often the application was asked for this.
    fn asked_for(&self, path: &str) -> usize {
        self.app.received().iter().filter(|request| request.path() == path).count()
    }

    /// The page that is shown asks for patience, and is no login page.
    async fn has_to_wait(&self, path: &str) {
        assert_eq!(self.chromium.url().await, format!("{ORIGIN}{path}"));
        let text = self.chromium.text().await;
        assert!(text.contains("Load this page again"), "{text}");
        assert!(self.chromium.cookie(OURS).await.is_some());
    }

    /// The one session, with the user's page.
    async fn goes_on(&self) {
        self.chromium.open(&format!("{ORIGIN}/after")).await;
        assert!(self.chromium.text().await.contains("private"));
        assert!(self.chromium.cookie(BOUND).await.is_some());
        assert_eq!(self.program.events("session.authenticated").len(), 1, "nobody had to log in again");
        assert_eq!(self.program.events("session.ended").len(), 0);
        assert_eq!(self.stolen(None).await, 401);
    }
}

async fn log_in(chromium: &Chromium) {
    chromium.open(&format!("{ORIGIN}/login")).await;
    chromium.click("[type=submit]").await;
    assert!(chromium.text().await.contains("private"));
}

/// The registration was the first of six signatures in nine minutes.
async fn spend_signatures(chromium: &Chromium) {
    for _ in 0..5 {
        chromium.lose_cookie(BOUND).await;
        assert_eq!(status(chromium, "/spend", "{}").await, 200);
    }
    chromium.lose_cookie(BOUND).await;
}

#[tokio::test]
async fn a_browser_without_signatures_waits_and_is_not_logged_out() {
    // S61, S63
    for mode in MODES {
        let app = app().await;
        let text = file(&app.url(), &bound_by(mode));
        let mut desk = Desk::at(app, &text).await;
        spend_signatures(&desk.chromium).await;

        assert_eq!(desk.fetch("/script").await, 503, "{mode}");
        assert_eq!(status(&desk.chromium, "/save", "{method: 'POST', body: 'typed'}").await, 503);
        desk.chromium.click("a").await;
        desk.has_to_wait("/next").await;
        desk.chromium.open(&format!("{ORIGIN}/typed")).await;
        desk.has_to_wait("/typed").await;
        desk.chromium.open("http://evil.test/").await;
        desk.chromium.click("a").await;
        eventually("the page for links from outside has asked", || {
            let asked = |line: &serde_json::Value| line["path"] == "/.vestibule/session" && line["status"] == 503;
            desk.program.events("access").iter().any(asked)
        })
        .await;
        assert_eq!(desk.chromium.url().await, format!("{ORIGIN}/inbox?m=1#top"));

        for word in [None, Some("quota_exceeded"), Some("unreachable")] {
            assert_eq!(desk.stolen(word).await, if word.is_some() { 503 } else { 401 }, "{word:?}");
        }
        for path in ["/script", "/save", "/next", "/typed", "/inbox", "/stolen"] {
            assert_eq!(desk.asked_for(path), 0, "{path} without a proof");
        }
        let is_said = |line: &&serde_json::Value| line["reason"] == "quota_exceeded" && line["user"] == "alice";
        let said = || desk.program.events("device.skipped").iter().filter(is_said).count();
        eventually("it is told once for the browser and once for the thief", || said() == 2).await;
        let refused = desk.program.events("session.refused");
        assert_eq!((&refused[0]["reason"], &refused[0]["level"]), (&json!("device"), &json!("warn")));

        // What has been signed is forgotten with the browser; nine minutes do the same.
        desk.chromium.restart().await;
        desk.goes_on().await;
    }
}

#[tokio::test]
async fn who_logs_in_again_without_signatures_is_not_bound() {
    // S61
    for mode in MODES {
        let app = app().await;
        let (proxy, _) = Vestibule::today(&app.url(), &bound_by(mode)).await;
        let mut chromium = Chromium::rationed(&[("app.test", proxy.https)]).await;
        log_in(&chromium).await;
        bound(&chromium, &proxy).await;
        spend_signatures(&chromium).await;
        let before = chromium.cookie(OURS).await.unwrap();

        log_in(&chromium).await;

        assert_eq!(proxy.browser().with_session(&before).fetch("/").await.status, 401);
        let copied = stolen(&chromium, &proxy).await.fetch("/").await;
        assert_eq!(copied.status, 200, "the browser has not registered");
        proxy.advance(Duration::from_secs(60));
        assert_eq!(status(&chromium, "/", "{}").await, if mode == "prefer" { 200 } else { 401 });
        chromium.restart().await;
        log_in(&chromium).await;
        bound(&chromium, &proxy).await;
        assert_eq!(status(&chromium, "/", "{}").await, 200);
    }
}

#[tokio::test]
async fn a_store_that_was_away_logs_nobody_out() {
    // VR-34, S61: after four failures in a row browsers ask for a while without trying to refresh.
    let (app, redis) = (app().await, Redis::start());
    let text = stored_at(&redis.url(), "", &app, &bound_by("prefer"));
    let desk = Desk::at(app, &text).await;
    desk.chromium.lose_cookie(BOUND).await;
    let has_skipped = || desk.program.events("device.skipped").iter().any(|line| line["reason"] == "unreachable");
    let mut failures = 4;
    while !has_skipped() {
        redis.signal("STOP");
        for _ in 0..failures {
            assert_eq!(desk.fetch("/away").await, 503);
        }
        redis.signal("CONT");
        eventually_so("the store is back", async || desk.stolen(None).await == 401).await;
        desk.chromium.open(&format!("{ORIGIN}/page")).await;
        assert_eq!(desk.chromium.url().await, format!("{ORIGIN}/page"), "not the login");
        let mut seen = Vec::new();
        while seen.last() != Some(&200) {
            seen.push(desk.fetch("/back").await);
            assert!(matches!(seen.last(), Some(200 | 503)), "{seen:?}");
        }
        desk.chromium.lose_cookie(BOUND).await;
        failures += 2;
        assert!(failures < 20, "it never waits");
    }
    assert_eq!(desk.asked_for("/away"), 0);
    desk.goes_on().await;
}
