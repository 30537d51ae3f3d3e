//! Real applications, unchanged, and what must hold in front of every one of them.

mod chromium;
mod curl;
mod device;
mod device_trouble;
mod django;
mod dokuwiki;
mod grpc;
mod jwt;
mod phpliteadmin;
mod websockets;

use tempfile::TempDir;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::Form;
use crate::support::Process;
use crate::support::Relay;
use crate::support::Vestibule;
use crate::support::link;

/// An application, running, with a user alice, whose password is [`PASSWORD`].
pub struct App {
    _files: TempDir,
    _program: Option<Process>,
    port: u16,
    /// The site's tables in `proxy.toml`.
    site: String,
    /// The user as the application is told.
    user: &'static str,
    /// The fields of its login form; the first is filled with "alice" unless there is only one.
    user_field: Option<&'static str>,
    password_field: &'static str,
    /// Where the login page is, what it answers to a wrong password.
    login_page: &'static str,
    wrong: u16,
    /// A page that needs a login, and what it shows then.
    private: &'static str,
    shows: &'static str,
    /// What a login page needs.
    asset: &'static str,
    /// Its session cookie.
    cookie: &'static str,
    leave: Leave,
}

/// The site's tables for an application, as docs/recipes.md has them.
fn recipe(name: &str) -> String {
    let recipes = include_str!("../../../docs/recipes.md");
    let section = recipes.split("\n## ").find(|section| section.starts_with(&format!("{name}\n"))).unwrap();
    section.split("```").find_map(|block| block.strip_prefix("toml\n")).unwrap().to_owned()
}

/// How one logs out.
#[derive(Clone, Copy)]
enum Leave {
    /// A link of the private page with this text in its markup.
    Link(&'static str),
    /// A form of the private page that goes to some `logout`.
    Form,
    /// A path.
    Path(&'static str),
}

/// The password of every application's user.
const PASSWORD: &str = "wonderland";

impl App {
    async fn behind_vestibule(&self) -> (Relay, Vestibule, Browser) {
        let relay = Relay::to(self.port).await;
        let (proxy, browser) = Vestibule::today(&relay.url(), &self.site).await;
        (relay, proxy, browser)
    }

    async fn log_in(&self, browser: &mut Browser, password: &str) -> Answer {
        let page = browser.get(self.login_page).await;
        assert_eq!(page.status, 200, "{page:?}");
        let form = Form::with(&page.body, "type=[\"']password");
        let action = if form.action.is_empty() { self.login_page } else { &form.action };
        let user = self.user_field.map(|field| (field, "alice"));
        let typed: Vec<_> = user.into_iter().chain([(self.password_field, password)]).collect();
        browser.post(&self.path(action), &form.filled(&typed)).await
    }

    async fn log_out(&self, browser: &mut Browser) -> Answer {
        let page = browser.get(self.private).await.body;
        match self.leave {
            Leave::Link(text) => browser.get(&self.path(&link(&page, text))).await,
            Leave::Form => {
                let form = Form::with(&page, "logout");
                browser.post(&self.path(&form.action), &form.filled(&[])).await
            }
            Leave::Path(path) => browser.get(path).await,
        }
    }

    /// A reference of the application's pages as a path.
    fn path(&self, reference: &str) -> String {
        let base = url::Url::parse("https://app.test").unwrap().join(self.login_page).unwrap();
        let url = base.join(reference).unwrap();
        assert_eq!(url.origin().ascii_serialization(), "https://app.test", "{reference}");
        url[url::Position::BeforePath..url::Position::AfterQuery].to_owned()
    }
}

/// Visits the application as its users and its attackers would.
async fn visit(app: &App) {
    let (relay, proxy, mut browser) = app.behind_vestibule().await;
    strangers_see_only_the_login_page(app, &relay, &mut browser).await;
    wrong_passwords_open_nothing(app, &mut browser).await;
    users_work_and_leave(app, &relay, &mut browser).await;
    attackers_fixate_nothing(app, &relay, &proxy).await;
}

async fn strangers_see_only_the_login_page(app: &App, relay: &Relay, browser: &mut Browser) {
    let page = browser.get(app.private).await;

    assert_eq!((page.status.as_u16(), page.location()), (303, app.login_page));
    assert_eq!(browser.image(app.asset).await.status, 200);
    assert!(relay.saw(&format!("GET {} ", app.asset)) && !relay.saw(&format!("GET {} ", app.private)));
}

async fn wrong_passwords_open_nothing(app: &App, browser: &mut Browser) {
    // S28
    let answer = app.log_in(browser, "wrong").await;

    assert_eq!(answer.status, app.wrong, "{answer:?}");
    assert_eq!(browser.fetch(app.private).await.status, 401);
}

async fn users_work_and_leave(app: &App, relay: &Relay, browser: &mut Browser) {
    // S26, S40, VR-18
    let anonymous = browser.session();
    let answer = app.log_in(browser, PASSWORD).await;
    assert!(answer.status.is_redirection() || answer.status.is_success(), "{answer:?}");
    let id = browser.session().expect("no session after the login");
    assert_ne!(anonymous.as_ref(), Some(&id));

    relay.forget();
    let page = browser.get(app.private).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains(app.shows), "{}", page.body);
    assert!(relay.saw(&format!("\r\nx-forwarded-user: {}\r\n", app.user)));
    assert!(relay.saw(&format!("{}=", app.cookie)) && !relay.saw("__Host-"), "S10");
    assert!(!browser.cookies.contains_key(app.cookie), "{:?}", browser.cookies);

    let answer = app.log_out(browser).await;
    assert!(answer.status.is_redirection() || answer.status.is_success(), "{answer:?}");
    assert_eq!(browser.session(), None);
    relay.forget();
    for dead in anonymous.into_iter().chain([id]) {
        let replayed = browser.with_session(&dead).get(app.private).await;
        assert_eq!(replayed.status, 303);
    }
    assert!(!relay.saw("GET"), "a replayed cookie reached the application");
}

async fn attackers_fixate_nothing(app: &App, relay: &Relay, proxy: &Vestibule) {
    // S17, S27: an ID of ours that the attacker got, and an ID of the application's.
    let mut attacker = proxy.browser();
    app.log_in(&mut attacker, "wrong").await;
    let mut victim = attacker.clone();
    victim.cookies.insert(app.cookie.to_owned(), "chosenbytheattacker".to_owned());
    relay.forget();

    app.log_in(&mut victim, PASSWORD).await;

    assert!(victim.get(app.private).await.body.contains(app.shows));
    assert!(!relay.saw("chosenbytheattacker"));
    assert!(!victim.cookies.contains_key(app.cookie), "it is expired in the browser");
    assert_ne!(victim.session(), attacker.session());
    assert_eq!(attacker.fetch(app.private).await.status, 401);
}
