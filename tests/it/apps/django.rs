//! Django's admin: a form with a token, 302 for a login that worked, 200 with the form for one that
//! did not, a logout by POST with a token.

use std::path::PathBuf;
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

/// The interpreter that has Django.
pub fn python() -> PathBuf {
    apps().join("django/venv/bin/python")
}

/// A project as `startproject` makes it, with its admin.
pub fn django() -> App {
    let files = TempDir::new().unwrap();
    let django = |arguments: &[&str]| {
        let mut command = Command::new(python());
        command.current_dir(files.path()).env("DJANGO_SUPERUSER_PASSWORD", PASSWORD).args(arguments);
        command
    };
    run(&mut django(&["-m", "django", "startproject", "mysite", "."]));
    run(&mut django(&["manage.py", "migrate", "--verbosity=0"]));
    run(&mut django(&["manage.py", "createsuperuser", "--noinput", "--username=alice", "--email=alice@example.org"]));
    let program = Process::serve(|port| django(&["manage.py", "runserver", "--noreload", &port.to_string()]));
    App {
        _files: files,
        port: program.port,
        _program: Some(program),
        site: recipe("Django"),
        user: "alice",
        user_field: Some("username"),
        password_field: "password",
        login_page: "/admin/login/",
        wrong: 200,
        private: "/admin/",
        shows: "<strong>alice</strong>",
        asset: "/static/admin/css/base.css",
        cookie: "sessionid",
        leave: Leave::Form,
    }
}

#[tokio::test]
async fn djangos_admin_works_and_is_guarded() {
    visit(&django()).await;
}
