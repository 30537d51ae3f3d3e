//! DokuWiki: one script for everything, told by parameters; 403 for a wrong password; a logout by a
//! link with a token.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::apps::App;
use crate::apps::Leave;
use crate::apps::PASSWORD;
use crate::apps::recipe;
use crate::apps::visit;
use crate::support::Process;
use crate::support::apps;
use crate::support::run;

/// A wiki that only its user may read.
pub fn dokuwiki() -> App {
    let files = TempDir::new().unwrap();
    let (root, code) = (files.path().display().to_string(), apps().join("php"));
    run(Command::new("cp").arg("-rL").arg(code.join("var/lib/dokuwiki/data")).arg(files.path()));
    run(Command::new("cp").arg("-r").arg(code.join("etc/dokuwiki")).arg(files.path().join("conf")));
    let hash = run(Command::new("php").args(["-r", "echo password_hash($argv[1], PASSWORD_BCRYPT);", PASSWORD]));
    for (name, text) in [
        ("prepend.php", format!("<?php define('DOKU_MAIN_CONF', '{root}/conf/');")),
        ("conf/local.php", format!("<?php $conf['savedir'] = '{root}/data'; $conf['useacl'] = 1;")),
        ("conf/acl.auth.php", "* @ALL 0\n* @user 8\nwiki:* @ALL 1\n".to_owned()),
        ("conf/users.auth.php", format!("alice:{hash}:Alice Liddell:alice@example.org:user\n")),
    ] {
        // What the package has there is a link into the system.
        fs::remove_file(files.path().join(name)).ok();
        fs::write(files.path().join(name), text).unwrap();
    }
    let program = Process::serve(|port| {
        let mut php = Command::new("php");
        php.args(["-d", &format!("auto_prepend_file={root}/prepend.php"), "-S", &format!("127.0.0.1:{port}"), "-t"]);
        php.arg(code.join("usr/share/dokuwiki"));
        php
    });
    App {
        _files: files,
        port: program.port,
        _program: Some(program),
        site: recipe("DokuWiki"),
        user: "alice",
        user_field: Some("u"),
        password_field: "p",
        login_page: "/doku.php?do=login",
        wrong: 403,
        private: "/doku.php?id=start",
        shows: "Alice Liddell",
        asset: "/lib/tpl/dokuwiki/images/logo.png",
        cookie: "DokuWiki",
        leave: Leave::Link("do=logout"),
    }
}

#[tokio::test]
async fn what_the_wiki_takes_for_a_search_is_no_login() {
    // It answers a search with a redirect, whatever the password in it.
    let app = dokuwiki();
    let (_relay, _proxy, mut browser) = app.behind_vestibule().await;
    let search = |password| [("do", "search"), ("u", "alice"), ("p", password), ("id", "start")];
    let answer = browser.post("/doku.php", &search("wrong")).await;
    assert_eq!(answer.status, 302, "the premise");
    assert_eq!(browser.fetch(app.private).await.status, 401);
    assert_eq!(browser.post("/doku.php", &[("do", "search"), ("q", "alice")]).await.status, 200, "a search");
    assert_eq!(browser.fetch(app.private).await.status, 401);
    assert_eq!(browser.post("/doku.php", &search(PASSWORD)).await.status, 302);
    assert_eq!(browser.fetch(app.private).await.status, 200, "the wiki logs in with a search");
}

#[tokio::test]
async fn the_wiki_logs_nobody_in_where_no_rule_watches() {
    // S146: it takes name and password on any page.
    let app = dokuwiki();
    let (relay, _proxy, mut browser) = app.behind_vestibule().await;
    let typed = "u=alice&p=wonderland";
    for path in ["/doku.php", "/doku.php?do=login", "/doku.php?id=start", "/lib/exe/fetch.php", "/lib/exe/ajax.php"] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let by_get = browser.fetch(&format!("{path}{separator}{typed}")).await;
        assert_eq!(by_get.status, 401, "{path}");
    }
    for path in ["/lib/exe/ajax.php", "/lib/exe/css.php", "/lib/exe/xmlrpc.php", "/feed.php"] {
        assert_eq!(browser.post(path, &[("u", "alice"), ("p", PASSWORD)]).await.location(), app.login_page, "{path}");
    }
    assert_eq!(browser.post(&format!("/doku.php?{typed}"), &[]).await.status, 400);
    assert!(!relay.saw(PASSWORD));
    let mut guesser = browser.clone();
    for last in ["login", "LOGIN", "search", "show", ""] {
        guesser.post("/doku.php", &[("do", last), ("u", "alice"), ("p", "wrong")]).await;
    }
    assert_eq!(guesser.post("/doku.php", &[("do", "x"), ("u", "alice"), ("p", PASSWORD)]).await.status, 429);
}

#[tokio::test]
async fn dokuwiki_works_and_is_guarded() {
    visit(&dokuwiki()).await;
}
