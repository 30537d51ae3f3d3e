//! phpLiteAdmin: a password and no user name, a redirect whether it was right or not, and everything
//! it is made of behind parameters of one script.

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

/// With one database to look at.
pub fn phpliteadmin() -> App {
    let files = TempDir::new().unwrap();
    let (root, code) = (files.path().display().to_string(), apps().join("php/usr/share/phpliteadmin"));
    fs::copy(code.join("phpliteadmin.php"), files.path().join("phpliteadmin.php")).unwrap();
    let settings = format!("<?php $password = '{PASSWORD}'; $directory = '{root}'; $subdirectories = false;");
    fs::write(files.path().join("phpliteadmin.config.php"), settings).unwrap();
    std::os::unix::fs::symlink("/usr/share/javascript", files.path().join("javascript")).unwrap();
    run(Command::new("php")
        .args(["-r", "(new SQLite3($argv[1]))->exec('CREATE TABLE teaparty (guest)');"])
        .arg(format!("{root}/wonderland.db")));
    let program = Process::serve(|port| {
        let mut php = Command::new("php");
        php.current_dir(files.path()).args(["-S", &format!("127.0.0.1:{port}")]);
        php
    });
    App {
        _files: files,
        port: program.port,
        _program: Some(program),
        site: recipe("phpLiteAdmin"),
        user: "operator",
        user_field: None,
        password_field: "password",
        login_page: "/phpliteadmin.php",
        wrong: 302,
        private: "/phpliteadmin.php?database=wonderland.db",
        shows: "teaparty",
        asset: "/phpliteadmin.php?resource=css",
        cookie: "PHPSESSID",
        leave: Leave::Path("/phpliteadmin.php?logout=Logout"),
    }
}

#[tokio::test]
async fn phpliteadmin_works_and_is_guarded() {
    visit(&phpliteadmin()).await;
}
