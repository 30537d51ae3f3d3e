//! The same applications, and the demo's, in a real browser.

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

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

/// The demo's site.
const SITE: &str = r#"
[site.login]
path    = "/login"
user    = "form:username"
success = { status = 302, location_not = "/login*" }

[site.logout]
path = "/logout"

[site.access]
public = "/static/*"
"#;

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
        let evil = Upstream::start(|_| Reply::text("")).await;
        let chromium = Chromium::knowing(&[("app.test", proxy.https), ("evil.test", evil.address)]).await;
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
            Leave::Form => self.chromium.click("form[action*=logout] [type=submit]").await,
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

    desk.log_in(PASSWORD).await;
    // Those before may be a 403 for a wrong password, or have a logo that is behind the login.
    assert_eq!(desk.chromium.complaints_of_page().await, Vec::<String>::new());
    desk.open(app.private).await;
    assert!(desk.shows_it().await, "{}", desk.chromium.text().await);
    let id = desk.session().await;
    assert!(id.is_some() && id != before);
    assert_eq!(desk.chromium.complaints().await, Vec::<String>::new());

    desk.log_out().await;
    // The application may have begun another, anonymous one.
    assert_ne!(desk.session().await, id, "S8");
    assert_eq!(desk.status("/.vestibule/session").await, 401);
    assert_ne!(desk.chromium.complaints_of_page().await, Vec::<String>::new(), "it would have been told");
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

#[tokio::test]
async fn the_demo_in_a_browser() {
    browse(&demo().await).await;
}

/// The demo's application.
async fn demo() -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(vestibule::demo::app::serve(listener));
    App {
        _files: TempDir::new().unwrap(),
        _program: None,
        port,
        site: SITE.to_owned(),
        user: "alice",
        user_field: Some("username"),
        password_field: "password",
        login_page: "/login",
        wrong: 200,
        private: "/",
        shows: "Hello <b id=\"user\">alice</b>",
        asset: "/static/style.css",
        cookie: "PHPSESSID",
        leave: Leave::Form,
    }
}

#[tokio::test]
async fn a_websocket_runs_until_the_logout() {
    // S46
    let app = demo().await;
    let desk = Desk::at(&app).await;
    desk.open("/").await;
    desk.log_in(PASSWORD).await;
    desk.chromium.wait("return document.getElementById('clock').textContent.endsWith('UTC')").await;

    assert_eq!(desk.status("/logout").await, 200);

    desk.chromium.wait("return document.getElementById('clock').textContent == '(closed)'").await;
    assert_eq!(desk.chromium.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    // S136, S142
    let app = demo().await;
    let desk = Desk::at(&app).await;
    desk.open("/").await;
    desk.log_in(PASSWORD).await;
    let id = desk.session().await;

    for (path, fields) in [
        ("/login", "<input name=username value=bob><input name=password value=builder>"),
        ("/notes", "<input name=note>"),
    ] {
        desk.chromium.open("http://evil.test/").await;
        let form = format!("<form method=post action={ORIGIN}{path}>{fields}<input type=submit></form>");
        desk.chromium.run(&format!("document.body.innerHTML = '{form}'")).await;
        desk.chromium.click("[type=submit]").await;
        assert!(!desk.relay.saw("bob") && !desk.relay.saw("POST /notes"));
    }
    desk.open("/").await;

    assert!(desk.shows_it().await);
    assert_eq!(desk.session().await, id);
}

#[tokio::test]
async fn a_link_on_another_site_finds_a_strict_cookie() {
    // VR-21: the first page load brings none.
    let app = demo().await;
    let app = App { site: format!("{SITE}[site.session]\nsame_site = \"strict\""), ..app };
    let (_relay, proxy, _) = app.behind_vestibule().await;
    let evil = Upstream::start(|_| {
        Reply::text("<a href='https://app.test/?m=1'>look</a>").header("content-type", "text/html")
    })
    .await;
    let chromium = Chromium::knowing(&[("app.test", proxy.https), ("evil.test", evil.address)]).await;
    let follow = async |arrives: &str| {
        chromium.open("http://evil.test/").await;
        chromium.click("a").await;
        assert!(chromium.text().await.contains("You come from another site"));
        chromium.click("a").await;
        chromium.wait(&format!("return {arrives}")).await;
    };
    follow("location.pathname == '/login'").await;
    chromium.fill("[name=username]", "alice").await;
    chromium.fill("[type=password]", PASSWORD).await;
    chromium.click("form:has([type=password]) [type=submit]").await;
    chromium.wait("return document.body.innerText.includes('Hello alice')").await;
    let id = chromium.cookie("__Host-session").await;

    follow("document.body.innerText.includes('Hello alice')").await;

    assert_eq!(chromium.url().await, format!("{ORIGIN}/?m=1"));
    assert_eq!(chromium.cookie("__Host-session").await, id);
    assert_eq!(chromium.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn pages_of_other_sites_show_no_image_that_is_not_public() {
    // S143
    const DOT: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'></svg>";
    for (rules, private) in [("", "loaded"), ("\n[site.csrf]\nisolation = true", "refused")] {
        let app = Upstream::start(|request| match request.path().ends_with(".svg") {
            true => Reply::text(DOT).header("content-type", "image/svg+xml"),
            false => Reply::text("a page"),
        })
        .await;
        let site = SITE.replace("public =", "default = \"public\"\npublic =") + rules;
        let (proxy, _) = Vestibule::with(&app, &site).await;
        let evil = Upstream::start(|_| Reply::text("")).await;
        let chromium = Chromium::knowing(&[("app.test", proxy.https), ("evil.test", evil.address)]).await;

        for (place, path, expected) in [
            ("http://evil.test/", "/private.svg", private),
            ("http://evil.test/", "/static/public.svg", "loaded"),
            (ORIGIN, "/private.svg", "loaded"),
        ] {
            chromium.open(place).await;
            let show = "window.seen = ''; var i = new Image(); i.onload = () => window.seen = 'loaded';
                i.onerror = () => window.seen = 'refused'; i.src = SRC; document.body.append(i)";
            chromium.run(&show.replace("SRC", &format!("'{ORIGIN}{path}'"))).await;
            chromium.wait("return window.seen !== ''").await;

            assert_eq!(chromium.run("return window.seen").await, expected, "{rules} {place} {path}");
        }
        assert_eq!(
            app.received().iter().filter(|request| request.path() == "/private.svg").count(),
            1 + usize::from(rules.is_empty())
        );
        chromium.complaints().await;
    }
}

#[tokio::test]
async fn back_shows_nothing_after_the_logout_whatever_the_application_says() {
    // S51: browsers keep pages with these policies, and show them again without asking.
    for policy in ["private", "no-cache", "max-age=0, private, must-revalidate"] {
        let app = Upstream::start(move |request| match request.path() {
            "/login" if request.method == "POST" => Reply::redirect("/"),
            "/login" => Reply::text("<form method=post><input name=username value=alice><input type=submit></form>"),
            "/logout" => Reply::redirect("/login"),
            _ => Reply::text("private <a href=/logout>log out</a>").header("cache-control", policy),
        })
        .await;
        let (proxy, _) = Vestibule::in_front_of(&app).await;
        let chromium = Chromium::knowing(&[("app.test", proxy.https)]).await;
        chromium.open(&format!("{ORIGIN}/login")).await;
        chromium.click("[type=submit]").await;
        assert!(chromium.text().await.contains("private"));

        chromium.click("a").await;
        chromium.back().await;

        assert_eq!(chromium.url().await, format!("{ORIGIN}/login"), "{policy}");
    }
}
