//! Which path means what, in every spelling: nothing opens that the application might read differently.

use http::Method;
use http::Request;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;
use crate::support::labelled;
use crate::support::navigation;

/// The usual site with these lines in `[site.access]`.
fn access(lines: &str) -> String {
    SITE.replace("public = [\"/public/*\"]", lines)
}

/// Targets that somebody could read as another place.
const ELSEWHERE: [&str; 40] = [
    "//evil.test",
    "//evil.test/",
    "//evil.test/..",
    "//evil.test:443/x",
    "//user@evil.test/",
    "///evil.test",
    "////evil.test",
    "/.//evil.test",
    "/.//.//evil.test",
    "/a/..//evil.test",
    "/%2e//evil.test",
    "/a/%2e%2e//evil.test",
    "/\\evil.test",
    "/\\\\evil.test",
    "//\\evil.test",
    "/\\/evil.test",
    "/%5cevil.test",
    "/%5Cevil.test",
    "/%5c%5cevil.test",
    "/%2fevil.test",
    "/%2Fevil.test",
    "/%2f%2fevil.test",
    "/%252fevil.test",
    "/%09/evil.test",
    "/%09//evil.test",
    "/%0a/evil.test",
    "/%0d%0aLocation:%20//evil.test",
    "/%0D%0A%0D%0A%3Cscript%3E",
    "/%00/evil.test",
    "/%00//evil.test",
    "/..//evil.test",
    "/../evil.test",
    "/..;//evil.test",
    "/;//../../evil.test",
    "/%c0%af/evil.test",
    "/%c0%afevil.test",
    "//%65vil.test",
    "//[::1]/",
    "//evil%E3%80%82test",
    "//?https://evil.test",
];

#[tokio::test]
async fn nobody_is_sent_elsewhere_after_the_login() {
    // S154, S157, VR-16: the applications own parameter must never become an open redirect.
    let app = Upstream::legacy().await;
    for ambiguous in ["reject", "allow"] {
        let site = access(&format!("ambiguous_paths = \"{ambiguous}\""))
            .replace("user    =", "return_param = \"next\"\nuser    =");
        let (_proxy, browser) = Vestibule::with(&app, &site).await;
        let long = format!("/{}", "%20".repeat(1000));
        for target in ELSEWHERE.into_iter().chain([long.as_str()]) {
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nConnection: close\r\n\r\n");
            let answer = browser.raw(request.as_bytes()).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
            let is_refused = status == "400" && ambiguous == "reject";
            assert!(is_refused || (status, location) == ("303", Some("/login")), "{target} {answer}");
        }
        let evil_host = Request::get("/private").header("host", "evil.test").header("accept", "text/html");
        assert_eq!(browser.clone().send(empty(evil_host)).await.status, 421);
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn paths_that_can_be_read_in_two_ways_are_refused() {
    // S90, VR-12, VR-22, VR-30
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for path in [
        "/public/..%2fadmin",
        "/public/..%2Fadmin",
        "/public/..;/admin",
        "/public/..;x=y/admin",
        "/public/%2e%2e;/admin",
        "/public/..%3b/admin",
        "/public/%5c..%5cadmin",
        "/public/..\\admin",
        "/public/a%00",
        "/public/a%0d%0ab",
        "/public/%7f",
        "/../admin",
        "/public/../../admin",
        "/public/%252e%252e/admin",
        "/public/%25%32%65%25%32%65/admin",
        "/public/..%252fadmin",
        "/public/..%255cadmin",
        "/public/%c0%ae%c0%ae/admin",
        "/public/..%c0%afadmin",
        "/public/%e0%80%ae%e0%80%ae/admin",
        "/public/%u002e%u002e/admin",
        "/public/%",
        "/public/../admin.php//../public/x",
    ] {
        assert_eq!(browser.clone().get(path).await.status, 400, "{path}");
    }
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/./../admin",
        "/public/x/../../admin",
        "//public/x",
        "/%70ublic/x",
        "/x/../public/x",
        "/./public/x",
        "/PUBLIC/x",
        "/public",
        "/publicx",
        "/admin?/public/",
        "/admin?x=/public/x",
        "/admin%3f/public/x",
        "/admin%23/public/x",
        "/admin;/public/x",
        "/;/public/x",
    ] {
        assert_eq!(browser.clone().get(path).await.status, 303, "{path}");
    }
    assert!(app.received().is_empty());
    for path in ["/public/", "/public/a//b", "/public/a;b=c", "/public/a%20b", "/public/%ff", "/public/a?x=%2f..%00"] {
        assert_eq!(browser.clone().get(path).await.status, 200, "{path}");
        assert_eq!(app.last().target, path);
    }
}

#[tokio::test]
async fn what_may_be_ambiguous_opens_nothing() {
    // S90, VR-13, VR-22
    let app = Upstream::plain().await;
    let lines = "ambiguous_paths = \"allow\"\npublic = [\"/public/*\", \"*.css\"]\ndeny = [\"/setup*\", \"*%2fx\"]";
    let site = format!(
        "{}\n[site.csrf]\nexempt = [\"/hooks/*\", \"/hook\"]",
        access(lines).replacen("path    = \"/login\"", "path    = \"/*/login\"\npage = \"/in/login\"", 1)
    );
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    for (method, target) in [
        ("GET", "/public/..%2fadmin"),
        ("GET", "/public/a%2fb"),
        ("GET", "/public/..;/admin"),
        ("GET", "/public/a%00b"),
        ("GET", "/admin%00.css"),
        ("GET", "/admin%5cx.css"),
        ("GET", "/admin%252f.css"),
        ("GET", "/in%2flogin"),
        ("POST", "/admin%2flogin"),
        ("POST", "/admin/x%2flogin"),
        ("POST", "/admin/..;/login"),
    ] {
        assert!(!browser.can_reach(method, target).await, "{method} {target}");
    }
    assert!(app.received().is_empty());
    assert_eq!(browser.get("/x/..%2fsetup.php").await.status, 403);
    assert_eq!(browser.get("/a%2fx").await.status, 403, "the raw path counts as well");
    browser.cookies.insert("a".into(), "b".into());
    for (target, status) in [("/hooks/x", 303), ("/hook", 303), ("/hooks%2f..%2ftransfer", 403), ("//hook", 403)] {
        let request = labelled("POST", target, "cross-site", "navigate", "document");
        assert_eq!(browser.send(empty(request)).await.status, status, "{target}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn the_bytes_of_the_path_reach_the_application_as_they_were() {
    // S90, VR-22
    let app = Upstream::legacy().await;
    let site = SITE.replace("public =", "ambiguous_paths = \"allow\"\npublic =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    for target in [
        "/a%2Fb?x=%20y",
        "/%7Euser//x/./y",
        "/caf%C3%A9?a=b+c;d",
        "//evil.test/x",
        "/a/../b/%2e%2e/c",
        "/a%2fb%2Fc%5c%00%ff",
        "/x;y=1/z;w",
        "/?",
        "/a??b=?c",
        "/a?b=%0d%0a&c=%",
        "/%",
        "/a'()*!$,:@=+~&",
        "/\"{}|",
    ] {
        browser.get(target).await;
        assert_eq!(app.last().target, target);
    }
    browser.get("/a;jsessionid=SECRET/b;JSESSIONID=2;v=1?x;jsessionid=3").await;
    assert_eq!(app.last().target, "/a/b;v=1?x;jsessionid=3");
}

#[tokio::test]
async fn other_forms_of_a_target_mean_the_same_path() {
    // S78, S89, S91
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::with(&app, &access("public = [\"/public/*\", \"OPTIONS *\"]")).await;
    let get = |line: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").into_bytes();
        let browser = browser.clone();
        async move { browser.raw(&request).await.split(' ').nth(1).unwrap_or("closed").to_owned() }
    };
    for (line, status) in [
        ("GET https://app.test/public/x", "200"),
        ("GET http://app.test:443/public/x", "200"),
        ("GET https://app.test/admin", "401"),
        ("GET https://evil.test/public/x", "400"),
        ("GET https://user@app.test/public/x", "400"),
        ("GET ftp://app.test/public/x", "400"),
        ("GET /admin#/public/x", "401"),
        ("GET *", "400"),
        ("OPTIONS *", "200"),
        ("GET public/x", "400"),
        ("GET \\public/x", "400"),
        ("GET /public/caf\u{e9}", "400"),
        ("GET /public/a b", "400"),
        ("GET  /public/x", "400"),
    ] {
        assert_eq!(get(line).await, status, "{line}");
    }
    let targets: Vec<_> = app.received().into_iter().map(|received| received.target).collect();
    assert_eq!(targets, ["/public/x", "/public/x", "*"]);
}

#[tokio::test]
async fn the_longest_prefix_decides_and_at_a_tie_the_stricter() {
    let app = Upstream::plain().await;
    let site = access(
        "public = [\"/p/*\", \"/p/private/open/*\", \"GET /tie/*\", \"OPTIONS /api/*\", \"GET /read/*\", \"/i.php?page=about*\", \
         \"/caf\u{e9} one/*\", \"/exact\"]
         protected = [\"/p/private/*\", \"/tie/*\", \"POST /p/form\", \"/i.php?page=about&edit*\"]
         deny = [\"/p/secret*\", \"GET /p/noget\", \"*.bak\", \"*/.git/*\", \"/i.php?*setup*\"]",
    );
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for (method, target, status) in [
        ("GET", "/p/x", 200),
        ("GET", "/p/private/x", 303),
        ("GET", "/p/private/open/x", 200),
        ("GET", "/p/private/open/../x", 303),
        ("GET", "/p/private/open", 303),
        ("GET", "/tie/x", 303),
        ("GET", "/p/form", 200),
        ("POST", "/p/form", 303),
        ("OPTIONS", "/api/x", 200),
        ("GET", "/api/x", 303),
        ("GET", "/read/x", 200),
        ("HEAD", "/read/x", 200),
        ("POST", "/read/x", 303),
        ("GET", "/i.php?page=about", 200),
        ("GET", "/i.php?page=about&x=1", 200),
        ("GET", "/i.php?page=about&edit=1", 303),
        ("GET", "/i.php?page=about&%65dit=1", 303),
        ("GET", "/i.php?p%61ge=about", 303),
        ("GET", "/i.php?page=admin", 303),
        ("GET", "/i.php", 303),
        ("GET", "/i.php%3fpage=about", 303),
        ("GET", "/caf%C3%A9%20one/x", 200),
        ("GET", "/caf%C3%A9+one/x", 303),
        ("GET", "/exact", 200),
        ("GET", "/exact/", 303),
        ("GET", "/exact;x", 303),
        ("GET", "/p/secret", 403),
        ("GET", "/p/secrets/x", 403),
        ("GET", "/p/%73ecret", 403),
        ("GET", "/p//secret", 403),
        ("GET", "/p/x/../secret", 403),
        ("GET", "/p/secret;x=1", 403),
        ("GET", "/p;x/secret", 403),
        ("GET", "/p/noget", 403),
        ("HEAD", "/p/noget", 403),
        ("POST", "/p/noget", 200),
        ("GET", "/p/x.bak", 403),
        ("GET", "/p/x.ba%6b", 403),
        ("GET", "/p/x.bak;v=1", 403),
        ("GET", "/p/x.bak?v=1", 403),
        ("GET", "/p/.git/config", 403),
        ("GET", "/.git/config", 403),
        ("GET", "/p/%2egit/config", 403),
        ("GET", "/i.php?page=setup", 403),
        ("GET", "/i.php?page=%73etup", 403),
        ("POST", "/login", 200),
    ] {
        let answer = browser.clone().send(empty(navigation(method, target))).await;
        assert_eq!(answer.status, status, "{method} {target}");
    }
}

#[tokio::test]
async fn case_is_ignored_where_the_application_ignores_it() {
    let app = Upstream::plain().await;
    let site = format!(
        "paths = \"ignore-case\"\n{}",
        access("default = \"public\"\nprotected = \"/Admin*\"\ndeny = \"/Setup*\"").replace("/logout", "/LogOut")
    );
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    for (target, status) in [
        ("/x", 200),
        ("/admin", 303),
        ("/ADMIN/x", 303),
        ("/%41dmin", 303),
        ("/x/../aDmIn", 303),
        ("/SETUP", 403),
        ("/%53etup", 403),
    ] {
        assert_eq!(browser.get(target).await.status, status, "{target}");
    }
    let answer = browser.get("/LOGOUT").await;
    assert!(answer.header("clear-site-data").is_some(), "{answer:?}");
}

#[tokio::test]
async fn what_is_protected_stays_so_in_every_spelling_when_the_rest_is_public() {
    // S90, VR-12: what a filter of a servlet or a script behind another server would make of it
    let app = Upstream::plain().await;
    let site = access("default = \"public\"\nprotected = [\"/admin*\", \"/x/admin/*\"]");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for target in [
        "/admin",
        "/admin/",
        "//admin",
        "///admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/admin;x",
        "/;/admin",
        "/;x/admin",
        "/admin%3bx/y",
        "/x;y/admin/z",
        "/x/%3b/admin/z",
        "/admin%ff",
        "/%61dmin%ff",
        "/x/%61dmin/z",
        "/x//admin/z",
        "/admin?public",
    ] {
        assert_eq!(browser.clone().get(target).await.status, 303, "{target}");
    }
    assert!(app.received().is_empty());
    assert!(browser.can_reach("GET", "/other").await);
}

#[tokio::test]
async fn closed_paths_are_closed_for_everyone() {
    let app = Upstream::legacy().await;
    let site = SITE.replace("public =", "deny = [\"/setup*\", \"/login?debug\"]\npublic =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;

    let refused = browser.get("/setup.php").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(browser.get("/%73etup.php").await.status, 403);
    assert_eq!(browser.post("/login?debug", &[("username", "bob"), ("password", "secret")]).await.status, 403);
    assert_eq!(app.received().len(), 1);
}

#[tokio::test]
async fn nothing_pretends_to_be_a_method() {
    // S88, S92: the rules of a path hold for whatever method the application makes of the request
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::with(&app, &access("public = [\"GET /read/*\"]")).await;
    for name in ["x-http-method-override", "X-HTTP-Method", "X-Method-Override", "x_http_method_override"] {
        let request = navigation("GET", "/read/x").header(name, "DELETE");
        assert_eq!(browser.clone().send(empty(request)).await.status, 200);
        let last = app.last();
        assert!(last.headers.keys().all(|name| !name.as_str().contains("method")), "{:?}", last.headers);
    }
    for method in ["get", "FOO", "TRACE", "Get"] {
        let request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri("/read/x");
        let answer = browser.clone().send(empty(request)).await;
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.header("allow").unwrap().contains("GET, HEAD, POST"), "{method}");
    }
}
