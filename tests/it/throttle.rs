//! Guessing at passwords: how many logins may fail, from where, and who has to wait for it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use tokio::sync::Notify;

use crate::support::Answer;
use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::eventually;
use crate::support::file;
use crate::support::labelled;
use crate::support::navigation;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::vestibule_at;

const SECOND: Duration = Duration::from_secs(1);

/// An application where everybody has the password "secret"; with others it answers as the word says.
async fn app(hold: &Arc<Notify>) -> Upstream {
    let hold = Arc::clone(hold);
    Upstream::start(move |request| match (request.method.as_str(), request.field("password").as_deref()) {
        ("POST", Some("secret")) => Reply::redirect("/"),
        ("POST", Some("slow")) => Reply::redirect("/").held(&hold),
        ("POST", Some("broken")) => Reply::status(503),
        ("POST", Some("held")) => Reply::text("<form> wrong").held(&hold),
        ("POST", _) => Reply::text("<form> wrong"),
        _ => Reply::text("page"),
    })
    .await
}

async fn proxied() -> (Upstream, Vestibule, Browser) {
    let app = app(&Arc::default()).await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    (app, proxy, browser)
}

/// An attempt of a browser that has not been there yet.
async fn attempt(browser: &Browser, user: &str, password: &str) -> Answer {
    browser.clone().post("/login", &[("username", user), ("password", password)]).await
}

fn from(browser: &Browser, address: [u8; 4]) -> Browser {
    let mut elsewhere = browser.clone();
    elsewhere.from = address.into();
    elsewhere
}

async fn fails(browser: &Browser, user: &str, times: usize) {
    for time in 0..times {
        assert_eq!(attempt(browser, user, "wrong").await.status, 200, "{time}");
    }
}

/// How many attempts the application has got.
fn asked(app: &Upstream) -> usize {
    app.received().iter().filter(|request| request.method == "POST").count()
}

/// What the client is told, without the time.
fn told(mut answer: Answer) -> String {
    answer.headers.remove("date");
    format!("{answer:?}")
}

#[tokio::test]
async fn after_five_failures_nobody_learns_whether_the_next_password_is_right() {
    // S146, S148
    let (app, proxy, browser) = proxied().await;
    fails(&browser, "alice", 5).await;
    fails(&browser, "nobody", 5).await;

    let wrong = attempt(&browser, "alice", "wrong").await;
    assert_eq!((wrong.status, wrong.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("1")));
    assert_eq!(wrong.header("cache-control"), Some("no-store"));
    assert_eq!(wrong.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(wrong.body.contains("Wait 1 second"), "{}", wrong.body);
    let wrong = told(wrong);
    assert_eq!(told(attempt(&browser, "alice", "secret").await), wrong, "a right password");
    assert_eq!(told(attempt(&browser, "nobody", "wrong").await), wrong, "an account that is not there");
    assert_eq!(asked(&app), 10);

    proxy.advance(SECOND);
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 302);
}

#[tokio::test]
async fn a_script_is_told_in_its_own_way() {
    // S146
    let (_app, _proxy, browser) = proxied().await;
    fails(&browser, "alice", 5).await;
    for http2 in [false, true] {
        let request = labelled("POST", "/login", "same-origin", "cors", "empty")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from("username=alice&password=secret"));
        let answer = browser.clone().over(http2).send(request.unwrap()).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["status"], 429);
    }
}

#[tokio::test]
async fn each_further_failure_doubles_the_wait_and_a_success_ends_it() {
    // S147, S148
    let (_app, proxy, browser) = proxied().await;
    fails(&browser, "alice", 4).await;
    for seconds in [1, 2, 4, 8, 16] {
        fails(&browser, "alice", 1).await;
        let refused = attempt(&browser, "alice", "wrong").await;
        assert_eq!(refused.header("retry-after"), Some(seconds.to_string().as_str()));
        proxy.advance(SECOND * seconds - Duration::from_millis(1));
        assert_eq!(attempt(&browser, "alice", "secret").await.status, 429, "a millisecond too early");
        proxy.advance(Duration::from_millis(1));
    }
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 302);
    fails(&browser, "alice", 5).await;
}

#[tokio::test]
async fn nobody_is_kept_out_by_who_guesses_from_elsewhere() {
    // S149
    let (_app, _proxy, browser) = proxied().await;
    fails(&browser, "alice", 5).await;
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 429);

    let victim = from(&browser, [127, 0, 0, 2]);
    assert_eq!(attempt(&victim, "alice", "secret").await.status, 302);
    assert_eq!(attempt(&browser, "bob", "secret").await.status, 302, "another account");
}

#[tokio::test]
async fn who_guesses_from_everywhere_is_slowed_and_the_owner_has_a_try() {
    // S147, S149
    let (_app, proxy, browser) = proxied().await;
    for address in 0..20 {
        fails(&from(&browser, [127, 0, 1, address]), "alice", 5).await;
    }

    let fresh = from(&browser, [127, 0, 2, 1]);
    fails(&fresh, "alice", 1).await;
    assert_eq!(attempt(&fresh, "alice", "wrong").await.header("retry-after"), Some("60"));
    fails(&fresh, "bob", 5).await;
    proxy.advance(SECOND * 60);
    fails(&fresh, "alice", 1).await;
    assert_eq!(attempt(&fresh, "alice", "wrong").await.header("retry-after"), Some("120"));

    assert_eq!(attempt(&from(&browser, [127, 0, 2, 2]), "alice", "secret").await.status, 302, "the owner");
    fails(&from(&browser, [127, 0, 2, 3]), "alice", 5).await;
}

#[tokio::test]
async fn an_address_waits_whatever_the_account() {
    // S146
    let (app, proxy, browser) = proxied().await;
    for number in 0..30 {
        fails(&browser, &format!("user{number}"), 1).await;
    }
    let refused = attempt(&browser, "alice", "secret").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("60")));
    assert_eq!(asked(&app), 30);
    assert_eq!(attempt(&from(&browser, [127, 0, 0, 2]), "alice", "secret").await.status, 302);

    proxy.advance(SECOND * 60);
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 302);
}

#[tokio::test]
async fn a_hundred_guesses_at_once_are_as_many_as_may_fail() {
    // S152
    for http2 in [false, true] {
        let hold = Arc::default();
        let app = app(&hold).await;
        let (_proxy, browser) = Vestibule::in_front_of(&app).await;
        let browser = browser.over(http2);

        let guesses: Vec<_> = (0..100)
            .map(|_| {
                let browser = browser.clone();
                tokio::spawn(async move { attempt(&browser, "alice", "held").await.status.as_u16() })
            })
            .collect();
        eventually("as many as may fail are under way", || asked(&app) == 5).await;
        hold.notify_waiters();
        let mut refused = 0;
        for guess in guesses {
            refused += usize::from(guess.await.unwrap() == 429);
        }

        assert_eq!((asked(&app), refused), (5, 95));
    }
}

#[tokio::test]
async fn an_office_may_log_in_at_once_from_one_address() {
    // S146: failures are counted, not logins. Those that are under way could be failures, and others wait for them.
    let hold = Arc::default();
    let app = app(&hold).await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let logins: Vec<_> = (0..90)
        .map(|number| {
            let browser = browser.clone();
            tokio::spawn(async move { attempt(&browser, &format!("user{number}"), "slow").await.status.as_u16() })
        })
        .collect();
    for round in 1..=3 {
        eventually("as many as may fail are under way", || asked(&app) == 30 * round).await;
        hold.notify_waiters();
    }
    for login in logins {
        assert_eq!(login.await.unwrap(), 302);
    }
}

#[tokio::test]
async fn what_comes_to_nothing_is_no_failure() {
    // S150: neither an application that is down, nor a client that leaves.
    let app = app(&Arc::default()).await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    for _ in 0..10 {
        assert_eq!(attempt(&browser, "alice", "broken").await.status, 503);
    }
    let guesses: Vec<_> = (0..5)
        .map(|_| {
            let browser = browser.clone();
            tokio::spawn(async move { attempt(&browser, "alice", "held").await })
        })
        .collect();
    eventually("they are under way", || asked(&app) == 15).await;
    assert_eq!(attempt(&browser, "bob", "secret").await.status, 302, "another account has its own places");
    guesses.iter().for_each(tokio::task::JoinHandle::abort);

    // The application may have judged them: their places are not free at once.
    let waiting = browser.clone();
    let login = tokio::spawn(async move { attempt(&waiting, "alice", "secret").await.status });
    let mut advanced = Duration::ZERO;
    while !login.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.advance(SECOND);
        advanced += SECOND;
    }
    assert_eq!(login.await.unwrap(), 302);
    assert!(advanced >= SECOND * 10, "{advanced:?}");
}

#[tokio::test]
async fn a_session_of_ones_own_is_no_way_to_guess_many_at_once() {
    // S152, VR-31: the name that one is called looks like another's.
    let hold = Arc::default();
    let app = app(&hold).await;
    let (_proxy, mut eve) = Vestibule::in_front_of(&app).await;
    eve.log_in("eve").await;
    let before = asked(&app);
    let guesses: Vec<_> = (0..30)
        .map(|_| {
            let eve = eve.clone();
            tokio::spawn(async move { attempt(&eve, "EVE", "held").await.status.as_u16() })
        })
        .collect();
    eventually("as many as may fail are under way", || asked(&app) == before + 5).await;
    hold.notify_waiters();
    let mut refused = 0;
    for guess in guesses {
        refused += usize::from(guess.await.unwrap() == 429);
    }

    assert_eq!((asked(&app) - before, refused), (5, 25));
}

#[tokio::test]
async fn an_account_that_looks_the_same_resets_nothing() {
    // S147, VR-31
    let (_app, _proxy, browser) = proxied().await;
    fails(&browser, "alice", 4).await;
    assert_eq!(attempt(&browser, "ALICE", "secret").await.status, 302);
    fails(&browser, "alice", 1).await;
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 429);
}

#[tokio::test]
async fn rules_with_other_limits_count_for_themselves() {
    let app = app(&Arc::default()).await;
    let other =
        "[[site.login]]\npath = \"/api\"\npage = \"/login\"\nuser = \"form:username\"\nsuccess = { status = 302 }";
    let limits = "[site.login.throttle]\nper_account = \"1 in 1h\"";
    let site = format!("{}\n{other}\n{limits}\n", SITE.replace("[site.login]", "[[site.login]]"));
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    fails(&browser, "alice", 4).await;
    for expected in [200, 429] {
        let answer = browser.clone().post("/api", &[("username", "alice"), ("password", "wrong")]).await;
        assert_eq!(answer.status, expected);
    }
    fails(&browser, "alice", 1).await;
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 429);
}

#[tokio::test]
async fn an_upstream_that_is_gone_leaves_no_place_taken() {
    let (proxy, browser) = Vestibule::at("http://127.0.0.1:1", SITE).await;
    for _ in 0..10 {
        assert_eq!(attempt(&browser, "alice", "wrong").await.status, 502);
    }
    let app = app(&Arc::default()).await;
    proxy.reload_in_front_of(&app.url(), SITE);
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 302);
}

#[tokio::test]
async fn what_other_sites_send_counts_for_nothing() {
    // S142: nobody is made to fail by a page that they visit.
    let (app, _proxy, browser) = proxied().await;
    for _ in 0..10 {
        let request = labelled("POST", "/login", "cross-site", "navigate", "document")
            .header("origin", "https://evil.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from("username=alice&password=wrong"));
        assert_eq!(browser.clone().send(request.unwrap()).await.status, 403);
    }
    assert_eq!(asked(&app), 0);
    assert_eq!(attempt(&browser, "alice", "secret").await.status, 302);
}

#[tokio::test]
async fn an_account_is_one_however_it_is_typed() {
    // S151, VR-31
    let app = app(&Arc::default()).await;
    let site = SITE.replace("user    =", "user_match = \"^([^@]+)\"\nuser    =");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for name in ["josé", "JOSÉ", " jose\u{301} ", "José@example.com", "jos\u{e9}@EXAMPLE.com"] {
        fails(&browser, name, 1).await;
    }
    assert_eq!(attempt(&browser, "Jose\u{301}", "secret").await.status, 429);
}

#[tokio::test]
async fn no_guess_passes_as_something_else() {
    // S146, VR-31: applications that merge query, form and JSON take each of these for a login.
    let (app, _proxy, browser) = proxied().await;
    let form = "application/x-www-form-urlencoded";
    for (path, kind, body) in [
        ("/login?username=bob&password=guess", form, ""),
        ("/login?username=bob", form, "password=guess"),
        ("/login", "application/json", r#"{"username":"bob","password":"guess"}"#),
        ("/login", form, "Username=bob&password=guess"),
        ("/login", form, "username[]=bob&password=guess"),
    ] {
        let request = labelled("POST", path, "same-origin", "cors", "empty").header("content-type", kind);
        let answer = browser.clone().send(request.body(Full::from(body)).unwrap()).await;
        assert_eq!(answer.status, 400, "{path} {body}");
    }
    assert_eq!(asked(&app), 0);
    assert_eq!(browser.clone().post("/login", &[("code", "123")]).await.status, 200, "no user at all");
}

#[tokio::test]
async fn no_guess_passes_for_want_of_a_condition() {
    // S146, VR-31: applications that merge query and form find it in either.
    let app = app(&Arc::default()).await;
    let form = "application/x-www-form-urlencoded";
    let by_form = SITE.replace("user    =", "form = { name = \"do\", value = \"login\" }\nuser    =");
    let by_query = SITE.replace("path    = \"/login\"", "path    = \"/login?do=login\"");
    let by_query = by_query.replace("\"/public/*\"", "\"/public/*\", \"/login\"");
    for (site, guess, honest) in [
        (&by_form, ("/login?do=login", "username=bob&password=guess"), ("/login?do=search", "q=bob")),
        (&by_query, ("/login", "do=login&username=bob&password=guess"), ("/login", "do=search&q=bob")),
    ] {
        let (proxy, browser) = Vestibule::with(&app, site).await;
        let send = async |browser: &Browser, (path, body): (&str, &'static str)| {
            let request = labelled("POST", path, "same-origin", "cors", "empty").header("content-type", form);
            browser.clone().send(request.body(Full::from(body)).unwrap()).await.status.as_u16()
        };
        let before = asked(&app);
        assert_eq!(send(&browser, guess).await, 400);
        assert_eq!(asked(&app), before);
        assert_eq!(send(&browser, honest).await, 200);

        let large = labelled("POST", honest.0, "same-origin", "cors", "empty");
        let padding = Full::from("x".repeat(70_000));
        let request = large.header("content-type", form).body(padding.clone()).unwrap();
        assert_eq!(browser.clone().send(request).await.status, 413, "a guess may be behind it");
        let mut user = proxy.browser();
        let login = [("do", "login"), ("username", "alice"), ("password", "secret")];
        let path = if site == &by_query { "/login?do=login" } else { "/login" };
        let login = if site == &by_query { &login[1..] } else { &login[..] };
        assert_eq!(user.post(path, login).await.status, 302);
        assert_eq!(send(&user, guess).await, 200, "ordinary traffic of a session");
        let large = labelled("POST", honest.0, "same-origin", "cors", "empty");
        let request = large.header("content-type", form).body(padding).unwrap();
        assert_eq!(user.send(request).await.status, 200);
    }
}

#[tokio::test]
async fn nodes_count_together() {
    // S153
    let (app, redis) = (app(&Arc::default()).await, Redis::start());
    let nodes = [vestibule_at(&redis.url(), "", &app, SITE).await, vestibule_at(&redis.url(), "", &app, SITE).await];
    for number in 0..5 {
        fails(&nodes[number % 2].browser(), "alice", 1).await;
    }
    for node in &nodes {
        assert_eq!(attempt(&node.browser(), "alice", "secret").await.status, 429);
    }

    let guesses: Vec<_> = (0..100)
        .map(|number| {
            let browser = from(&nodes[number % 2].browser(), [127, 0, 0, 2]);
            tokio::spawn(async move { attempt(&browser, "bob", "wrong").await.status.as_u16() })
        })
        .collect();
    let mut reached = 0;
    for guess in guesses {
        reached += usize::from(guess.await.unwrap() == 200);
    }
    assert_eq!((reached, asked(&app)), (5, 10));

    // S151
    let keys = redis.say(&["KEYS", "vestibule:t:*"]);
    let kept: Vec<String> = keys.lines().map(|key| redis.say(&["HVALS", key])).collect();
    assert!(kept.len() >= 5, "{keys}");
    for text in kept.iter().chain([&keys]) {
        assert!(!text.contains("alice") && !text.contains("127.0.0"), "{text}");
    }
}

#[tokio::test]
async fn who_cannot_be_counted_is_not_let_in() {
    // Product 3.8
    let (app, store) = (app(&Arc::default()).await, BrokenStore::new());
    let (_proxy, browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    store.fails();
    let answer = attempt(&browser, "alice", "secret").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")));
    assert_eq!(asked(&app), 0);
}

#[tokio::test]
async fn what_is_off_counts_nothing() {
    let app = app(&Arc::default()).await;
    let limits = |account: &str, address: &str| {
        format!("{SITE}[site.login.throttle]\nper_account = \"{account}\"\nper_address = \"{address}\"\n")
    };
    let (proxy, browser) = Vestibule::with(&app, &limits("off", "off")).await;
    fails(&browser, "alice", 40).await;

    proxy.reload(&limits("2 in 10s", "off"));
    fails(&browser, "alice", 2).await;
    assert_eq!(attempt(&browser, "alice", "wrong").await.status, 429);
    proxy.reload(&limits("off", "3 in 10s"));
    fails(&browser, "alice", 3).await;
    assert_eq!(attempt(&browser, "alice", "wrong").await.header("retry-after"), Some("10"));
}

const BASIC: &str = r#"
[site.login]
path    = "/dav"
page    = "/form"
method  = "GET"
user    = "basic"
success = { status = 200 }
"#;

async fn basic(browser: &mut Browser, password: &str) -> u16 {
    use base64::Engine;
    let word = base64::engine::general_purpose::STANDARD.encode(format!("alice:{password}"));
    let request = navigation("GET", "/dav").header("authorization", format!("Basic {word}"));
    browser.send(request.body(Full::default()).unwrap()).await.status.as_u16()
}

#[tokio::test]
async fn a_program_that_sends_its_password_with_every_request_is_not_slowed() {
    // Without cookies, many at once; and with a session, up to 32.
    let hold = Arc::<Notify>::default();
    let holding = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.header("authorization") {
        Some("Basic YWxpY2U6c2VjcmV0") => Reply::text("file").held(&holding),
        _ => Reply::status(401),
    })
    .await;
    let (_proxy, browser) = Vestibule::with(&app, BASIC).await;
    let right = async |program: &mut Browser| {
        hold.notify_one();
        assert_eq!(basic(program, "secret").await, 200);
    };
    right(&mut browser.clone()).await;
    let mut with_session = browser.clone();
    right(&mut with_session).await;

    for (program, count) in [(&browser, 20), (&with_session, 32)] {
        let before = app.received().len();
        let requests: Vec<_> = (0..count)
            .map(|_| {
                let mut program = program.clone();
                tokio::spawn(async move { basic(&mut program, "secret").await })
            })
            .collect();
        eventually("all are under way", || app.received().len() == before + count).await;
        hold.notify_waiters();
        for request in requests {
            assert_eq!(request.await.unwrap(), 200);
        }
    }

    let mut with_session = from(&browser, [127, 0, 0, 2]);
    right(&mut with_session).await;
    for mut program in [browser, with_session] {
        for _ in 0..5 {
            assert_eq!(basic(&mut program, "wrong").await, 401);
        }
        assert_eq!(basic(&mut program, "secret").await, 429, "failures count");
    }
}

#[tokio::test]
async fn where_only_the_answer_tells_the_name_addresses_are_counted() {
    let app = Upstream::start(|request| match request.field("pin").as_deref() {
        Some("1234") => Reply::redirect("/").header("x-user", "alice"),
        _ => Reply::text("<form> wrong"),
    })
    .await;
    let site = SITE.replace("form:username", "response-header:X-User");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for _ in 0..30 {
        assert_eq!(browser.clone().post("/login", &[("pin", "0000")]).await.status, 200);
    }
    assert_eq!(browser.clone().post("/login", &[("pin", "1234")]).await.status, 429);
    assert_eq!(from(&browser, [127, 0, 0, 2]).post("/login", &[("pin", "1234")]).await.status, 302);
}

#[tokio::test]
async fn the_log_says_who_has_to_wait_and_for_what() {
    // S159
    let app = app(&Arc::default()).await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let browser = program.browser();
    fails(&browser, "typ3d", 5).await;
    // The wait is doubled until one comes within it, however slow the machine is.
    let (mut wait, mut sent) = (1, 6);
    while attempt(&browser, "typ3d", "wr0ng").await.status != 429 {
        (wait, sent) = (wait * 2, sent + 1);
        assert!(wait < 64, "nobody has to wait");
    }
    program.answered(sent).await;

    let attempts = program.events("login.attempt");
    let throttled = attempts.last().unwrap();
    assert_eq!(throttled["outcome"], "throttled");
    assert_eq!(throttled["per"], "account and address");
    assert!((1..=wait).contains(&throttled["retry_after"].as_u64().unwrap()), "{throttled}");
    assert_eq!(throttled["client"], "127.0.0.1");
    let cooldowns = program.events("login.cooldown");
    assert_eq!(cooldowns.len(), sent - 5);
    let last = cooldowns.last().unwrap();
    assert_eq!((&last["level"], &last["seconds"]), (&"warn".into(), &wait.into()));
    let log = program.text();
    assert!(!log.contains("typ3d") && !log.contains("wr0ng"), "{log}");
}
