//! Sessions that outlive the process: restarts, crashes, and what the store says when it cannot.

use std::collections::BTreeMap;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use tempfile::TempDir;
use vestibule::config::ListenAddress;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::desk::Desk;
use crate::support::eventually;
use crate::support::file;
use crate::support::program::BINARY;
use crate::support::program::Program;

/// The usual file with a store in this directory.
fn stored(upstream: &Upstream, place: &TempDir) -> String {
    let url = format!("url = \"file:{}\"", place.path().join("sessions.redb").display());
    file(&upstream.url(), SITE).replace("url = \"memory:\"", &url)
}

/// The same for sessions that may come from anywhere.
fn stored_for_all(upstream: &Upstream, place: &TempDir) -> String {
    format!("{}\n[session]\nbind = \"off\"\n", stored(upstream, place))
}

#[tokio::test]
async fn a_restart_logs_nobody_out() {
    // VR-27
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let mut program = Program::start(&stored(&app, &place)).await;
    let mut browser = Browser::new(program.https);
    browser.get("/login").await;
    browser.log_in("alice").await;
    let mut gone = Browser::new(program.https);
    gone.log_in("bob").await;
    let dead = gone.session().unwrap();
    gone.get("/logout").await;

    program.signal("TERM");
    program.ended().await;
    let program = Program::start(&stored(&app, &place)).await;

    let mut again = Browser::new(program.https).with_session(&browser.session().unwrap());
    assert_eq!(again.get("/").await.body, "private");
    let received = app.last();
    assert_eq!(received.header("x-forwarded-user"), Some("alice"));
    assert_eq!(received.cookie("PHPSESSID"), Some("app-session-2"), "the vault is there, too");
    assert_eq!(again.with_session(&dead).fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_taken() {
    // S187
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let _program = Program::start(&stored(&app, &place)).await;

    let (code, said) = Program::fail(&stored(&app, &place)).await;

    assert_eq!(code, 1);
    assert!(said.contains("is in use by another process: one file serves one Vestibule"), "{said}");
}

/// What a client knows of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// The login was answered.
    LoggedIn,
    /// A logout was sent, and not answered.
    Leaving,
    /// The logout was answered.
    LoggedOut,
}

type Model = Arc<Mutex<BTreeMap<String, Known>>>;

/// Logs in, and sometimes out, until the program is gone.
async fn come_and_go(program: std::net::SocketAddr, model: Model, user: &'static str, leaves: usize) {
    for round in 0_usize.. {
        let mut browser = Browser::new(program);
        let body = [("username", user), ("password", "secret")];
        let Ok(status) = browser.try_post("/login", &body).await else { return };
        let Some(id) = browser.session().filter(|_| status == 302) else { return };
        model.lock().unwrap().insert(id.clone(), Known::LoggedIn);
        if (round + 1) % leaves == 0 {
            model.lock().unwrap().insert(id.clone(), Known::Leaving);
            if browser.try_post("/logout", &[]).await.is_err() {
                return;
            }
            model.lock().unwrap().insert(id, Known::LoggedOut);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_crashes_lose_no_login_and_undo_no_logout() {
    // S24, VR-27: each acknowledged step is still so after `kill -9`.
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let text = stored_for_all(&app, &place);
    let mut all: BTreeMap<String, Known> = BTreeMap::new();
    for crash in 0..100 {
        let program = Program::start(&text).await;
        let fresh = all.iter().rev().take(3).map(|(id, known)| (id.clone(), *known)).collect();
        check(&program, fresh).await;
        let model = Model::default();
        let guests: Vec<_> = [("alice", 2), ("bob", 3), ("carol", 1)]
            .map(|(user, leaves)| tokio::spawn(come_and_go(program.https, Arc::clone(&model), user, leaves)))
            .into();
        // In the midst of whatever the others are doing when so many have come.
        eventually("guests come and go", || {
            let model = model.lock().unwrap();
            let left = model.values().filter(|known| **known == Known::LoggedOut).count();
            model.len() > crash % 5 && left >= crash % 3
        })
        .await;
        drop(program);
        for guest in guests {
            guest.await.unwrap();
        }
        let known = model.lock().unwrap().clone();
        let program = Program::start(&text).await;
        check(&program, known.clone()).await;
        all.extend(known);
    }
    assert!(all.values().filter(|known| **known == Known::LoggedIn).count() > 50, "{}", all.len());
    assert!(all.values().filter(|known| **known == Known::LoggedOut).count() > 50, "{}", all.len());
    let program = Program::start(&text).await;
    check(&program, all).await;
}

async fn check(program: &Program, model: BTreeMap<String, Known>) {
    let mut browser = Browser::new(program.https);
    for (number, (id, known)) in model.into_iter().enumerate() {
        // So many dead ones from one network would be taken for guesses (S59).
        browser.from = [127, 0, u8::try_from(number / 50 % 200).unwrap(), 1].into();
        let status = browser.with_session(&id).fetch("/").await.status.as_u16();
        match known {
            Known::LoggedIn => assert_eq!(status, 200, "a login was lost"),
            Known::LoggedOut => assert_eq!(status, 401, "a logout was undone"),
            Known::Leaving => assert!(status == 200 || status == 401),
        }
    }
}

/// The program on a disk with room for so many kilobytes in a file.
fn on_a_small_disk(kilobytes: u64) -> Command {
    let mut command = Command::new("bash");
    // A write over the limit is then an error, as on a full disk, instead of the end of the process.
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -S -f {kilobytes}; exec {BINARY} \"$@\"")).arg("bash");
    command.stdin(Stdio::null());
    command
}

/// An application whose sessions take much room.
async fn heavy() -> Upstream {
    let value = "x".repeat(4000);
    Upstream::start(move |request| match request.path() {
        "/login" => (0..7).fold(Reply::redirect("/"), |reply, number| {
            reply.header("set-cookie", &format!("c{number}={value}; path=/; HttpOnly"))
        }),
        "/logout" => Reply::redirect("/login"),
        _ => Reply::text("private"),
    })
    .await
}

#[tokio::test]
async fn a_full_disk_stops_logins_and_nothing_else() {
    // S21, S164, S167, S192
    let (app, place) = (heavy().await, TempDir::new().unwrap());
    drop(Program::start(&stored(&app, &place)).await);
    let empty = std::fs::metadata(place.path().join("sessions.redb")).unwrap().len();
    let socket = place.path().join("admin.sock");
    let text = stored(&app, &place).replace("listen = \"off\"", &format!("listen = \"unix:{}\"", socket.display()));
    let program = Program::start_by(on_a_small_disk(empty / 1024 + 4096), &text).await;
    let desk = Desk(ListenAddress::Unix(socket));
    assert_eq!(desk.get("/readyz").status, 200);
    let mut alice = Browser::new(program.https);
    alice.log_in("alice").await;
    let mut bob = Browser::new(program.https);
    bob.log_in("bob").await;

    let mut refused = None;
    for round in 0..500 {
        let mut guest = Browser::new(program.https);
        let fields = [("username", "carol"), ("password", "secret")];
        let status = guest.try_post("/login", &fields).await.unwrap();
        if status == 503 {
            refused = Some((round, guest));
            break;
        }
        assert_eq!(status, 302);
    }

    let (_, guest) = refused.expect("the disk was never full");
    assert_eq!(guest.session(), None, "no cookie without a record");
    assert_eq!(desk.get("/readyz").status, 503);
    assert_eq!(alice.get("/").await.body, "private", "who is logged in goes on");
    let copied = bob.session().unwrap();
    let logout = bob.get("/logout").await;
    assert!([302, 503].contains(&logout.status.as_u16()), "{logout:?}");
    assert_eq!(
        bob.with_session(&copied).fetch("/").await.status,
        401,
        "a logout ends the session whatever the disk says"
    );
    program.event("store.commit_failed").await;

    let lifted =
        Command::new("prlimit").args(["--pid", &program.id().to_string(), "--fsize=unlimited"]).status().unwrap();
    assert!(lifted.success());
    eventually("it is ready again", || desk.get("/readyz").status == 200).await;
    alice.log_in("alice").await;
    drop(program);
    let program = Program::start(&stored(&app, &place)).await;
    assert_eq!(Browser::new(program.https).with_session(&alice.session().unwrap()).get("/").await.body, "private");
    assert_eq!(Browser::new(program.https).with_session(&copied).fetch("/").await.status, 401, "nor a restart");
}
