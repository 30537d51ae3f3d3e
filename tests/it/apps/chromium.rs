//! The same applications, and the demo's, in a real browser.

use serde_json::Value;

use crate::apps::App;
use crate::apps::Leave;
use crate::apps::PASSWORD;
use crate::apps::django::django;
use crate::apps::dokuwiki::dokuwiki;
use crate::apps::phpliteadmin::phpliteadmin;
use crate::support::Chromium;
use crate::support::Relay;
use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;

const ORIGIN: &str = "https://app.test";

/// A browser in front of the proxy in front of an application.
struct Desk<'a> {
    app: &'a App,
    relay: Relay,
    _proxy: Vestibule,
    chromium: Chromium,
}

impl Desk<'_> {
    async fn at(app: &App) -> Desk<'_> {
        let (relay, proxy, _) = app.behind_vestibule().await;
        let chromium = Chromium::knowing(&[("app.test", proxy.https)]).await;
        Desk { app, relay, _proxy: proxy, chromium }
    }

    async fn open(&self, path: &str) {
        self.chromium.open(&format!("{ORIGIN}{path}")).await;
    }

    async fn is_at_login(&self) -> bool {
        self.chromium.url().await == format!("{ORIGIN}{}", self.app.login_page)
    }

    async fn log_in(&self, password: &str) {
        if let Some(field) = self.app.user_field {
            self.chromium.fill(&format!("form:has([type=password]) [name={field}]"), "alice").await;
        }
        self.chromium.fill("[type=password]", password).await;
        self.chromium.click("form:has([type=password]) [type=submit]").await;
    }

    async fn log_out(&self) {
        match self.app.leave {
            Leave::Link(text) => self.chromium.click(&format!("a[href*='{text}']")).await,
            Leave::Form(text) => self.chromium.click(&format!("form[id='{text}'] [type=submit]")).await,
            Leave::Path(path) => self.open(path).await,
        }
    }

    /// What a script of the page gets from this path.
    async fn status(&self, path: &str) -> Value {
        let ask = "var r = new XMLHttpRequest(); r.open('GET', PATH, false); r.send(); return r.status";
        self.chromium.run(&ask.replace("PATH", &format!("'{path}'"))).await
    }

    async fn shows_it(&self) -> bool {
        self.chromium.run("return document.body.innerHTML").await.as_str().unwrap().contains(self.app.shows)
    }

    /// The value of our cookie, with everything about it as it must be; no other cookie that a script
    /// may not read, and none of the application's sessions.
    async fn session(&self) -> Option<String> {
        // S1, S2, S3
        let cookies = self.chromium.cookies().await;
        assert!(cookies.iter().all(|cookie| cookie["name"] != self.app.cookie), "{cookies:?}");
        let (ours, others): (Vec<_>, Vec<_>) =
            cookies.into_iter().partition(|cookie| cookie["name"] == "__Host-session");
        assert!(others.iter().all(|cookie| cookie["httpOnly"] == false && cookie["secure"] == true), "{others:?}");
        let ours = ours.first()?;
        for (attribute, value) in [("domain", "app.test"), ("path", "/"), ("sameSite", "Lax")] {
            assert_eq!(ours[attribute], value);
        }
        assert!(ours["secure"] == true && ours["httpOnly"] == true);
        assert!(!self.chromium.run("return document.cookie").await.as_str().unwrap().contains("__Host-"));
        Some(ours["value"].as_str().unwrap().to_owned())
    }
}

/// Log in, look around, log out, go back.
async fn browse(app: &App) {
    let desk = Desk::at(app).await;

    desk.open(app.private).await;
    assert!(desk.is_at_login().await);
    let before = desk.session().await;

    desk.log_in("wrong").await;
    desk.open(app.private).await;
    assert!(desk.is_at_login().await);

    // The page for a wrong password may be a 403, which the console notes.
    desk.chromium.complaints().await;
    desk.log_in(PASSWORD).await;
    desk.open(app.private).await;
    assert!(desk.shows_it().await, "{}", desk.chromium.text().await);
    let id = desk.session().await;
    assert!(id.is_some() && id != before);
    assert_eq!(desk.chromium.complaints().await, Vec::<String>::new());

    desk.log_out().await;
    // The application may have begun another, anonymous one.
    assert_ne!(desk.session().await, id, "S8");
    assert_eq!(desk.status("/.vestibule/session").await, 401);
    desk.chromium.back().await;
    assert!(!desk.shows_it().await, "{}", desk.chromium.text().await);
    assert!(desk.is_at_login().await);
}

#[tokio::test]
async fn djangos_admin_in_a_browser() {
    browse(&django()).await;
}

#[tokio::test]
async fn dokuwiki_in_a_browser() {
    browse(&dokuwiki()).await;
}

#[tokio::test]
async fn phpliteadmin_in_a_browser() {
    browse(&phpliteadmin()).await;
}
