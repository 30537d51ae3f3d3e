//! Redis as it is run in production: over TLS, with a user who may do little, watched by sentinels, as a
//! cluster.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use vestibule::cert;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::free_port;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::cluster;
use crate::support::redis::program;
use crate::support::redis::sentinel;
use crate::support::redis::stored_at;
use crate::support::redis::vestibule_at;

/// Everything that Vestibule does with a store.
async fn lives_a_life(proxy: &Vestibule) {
    let mut stranger = proxy.browser();
    stranger.get("/login").await;
    stranger.log_in("alice").await;
    let mut alice = stranger;
    assert_eq!(alice.fetch("/").await.status, 200);
    proxy.advance(Duration::from_secs(16 * 60));
    let before = alice.session();
    assert_eq!(alice.get("/").await.status, 200);
    assert_ne!(alice.session(), before, "the ID changes");
    assert_eq!(alice.get("/").await.status, 200);
    let mut elsewhere = proxy.browser();
    elsewhere.log_in("alice").await;
    assert_eq!(elsewhere.post("/.vestibule/logout?everywhere", &[]).await.status, 303);
    assert_eq!(alice.fetch("/").await.status, 401);
}

/// Makes the user of the documentation, with the password `hunter2`.
fn introduce(server: &Redis) {
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stores.md")).unwrap();
    let line = documented.lines().find(|line| line.starts_with("ACL SETUSER ")).unwrap();
    let words: Vec<_> = line.split(' ').map(|word| word.replace("PASSWORD", "hunter2")).collect();
    server.say(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_user_of_the_documentation_may_do_what_is_needed_and_nothing_else() {
    // S181
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    introduce(&redis);
    let password = redis.directory().join("password");
    fs::write(&password, "hunter2\n").unwrap();
    let url = format!("redis://vestibule@127.0.0.1:{}", redis.port);

    let proxy = vestibule_at(&url, &format!("password = \"file:{}\"", password.display()), &app, SITE).await;
    lives_a_life(&proxy).await;

    assert_eq!(redis.say(&["ACL", "LOG"]), "", "nothing was refused");
    for forbidden in ["GET other", "DEL other", "FLUSHALL", "CONFIG GET port", "KEYS *", "EVAL x 0"] {
        let words: Vec<_> = ["ACL", "DRYRUN", "vestibule"].into_iter().chain(forbidden.split(' ')).collect();
        assert!(redis.say(&words).contains("has no permissions"), "{forbidden}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_lets_nobody_in() {
    // S161: and the password is not.
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    redis.say(&["CONFIG", "SET", "requirepass", "right-password"]);
    let url = format!("redis://:wrong-password@127.0.0.1:{}", redis.port);
    let program = Program::start(&stored_at(&url, "", &app, SITE)).await;

    let said = program.event("store.unreachable").await;

    assert!(said["error"].as_str().unwrap().contains("WRONGPASS"), "{said}");
    let login = program.browser().post("/login", &[("username", "alice"), ("password", "secret")]).await;
    assert_eq!(login.status, 503);
    assert!(!program.text().contains("wrong-password"));
}

#[tokio::test]
async fn tls_is_verified() {
    // S180
    let (app, place) = (Upstream::legacy().await, tempfile::TempDir::new().unwrap());
    let made = cert::make(place.path(), &["127.0.0.1".to_owned()]).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (text(&made.certificate), text(&made.key));
    let port = free_port().to_string();
    let options = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &text(&made.ca),
        "--tls-auth-clients",
        "no",
    ];
    let _redis = Redis::with(&options);
    let url = format!("rediss://127.0.0.1:{port}");

    let proxy = vestibule_at(&url, &format!("ca = {:?}", text(&made.ca)), &app, SITE).await;
    lives_a_life(&proxy).await;

    let others = format!("ca = {:?}", text(&crate::support::certificates().ca));
    let program = Program::start(&stored_at(&url, &others, &app, SITE)).await;
    let said = program.event("store.unreachable").await;
    assert!(said["error"].as_str().unwrap().contains("invalid peer certificate"), "{said}");
    let missing = stored_at(&url, "ca = \"nowhere.pem\"", &app, SITE);
    let (code, said) = Program::fail(&missing).await;
    assert!(code == 2 && said.contains("store.ca: there is no file"), "{said}");
}

#[tokio::test]
async fn a_node_elsewhere_is_not_spoken_to_without_tls() {
    // S180: the file names a server on this machine, which names one that is not.
    let (app, bus) = (Upstream::legacy().await, free_port().to_string());
    let node = Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "192.0.2.1"]);
    node.say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let program = Program::start(&stored_at(&format!("redis+cluster://127.0.0.1:{}", node.port), "", &app, SITE)).await;

    let said = program.event("store.unreachable").await;

    assert!(said["server"].as_str().unwrap().starts_with("192.0.2.1:"), "{said}");
    assert!(said["error"].as_str().unwrap().contains("store.allow_plaintext"), "{said}");
    let login = program.browser().post("/login", &[("username", "alice"), ("password", "secret")]).await;
    assert_eq!(login.status, 503);
}

#[tokio::test]
async fn a_cluster_serves_every_session_and_keeps_them_while_slots_move() {
    // S181, S182
    let (app, nodes) = (Upstream::legacy().await, cluster().await);
    nodes.iter().for_each(introduce);
    let url = format!("redis+cluster://vestibule:hunter2@127.0.0.1:{}", nodes[0].port);
    let proxy = vestibule_at(&url, "", &app, SITE).await;
    lives_a_life(&proxy).await;
    let mut browsers = Vec::new();
    for _ in 0..30 {
        let mut browser = proxy.browser();
        browser.log_in("alice").await;
        browsers.push(browser);
    }
    let served = nodes.each_ref().map(|node| node.records().len());
    assert!(served.iter().all(|count| *count > 0), "every node has some: {served:?}");

    // Everything of the first node goes to the second while it is used.
    let ids = nodes.each_ref().map(|node| node.say(&["CLUSTER", "MYID"]));
    let at = format!("127.0.0.1:{}", nodes[0].port);
    let reshard = tokio::task::spawn_blocking(move || {
        let mut command = program("redis-cli");
        command.args(["--cluster", "reshard", &at, "--cluster-from", &ids[0], "--cluster-to", &ids[1]]);
        command.args(["--cluster-slots", "5461", "--cluster-yes"]);
        crate::support::run(&mut command)
    });
    let mut rounds = 0;
    while !reshard.is_finished() || rounds == 0 {
        for browser in &browsers {
            assert_eq!(browser.clone().fetch("/").await.status, 200);
        }
        rounds += 1;
    }
    reshard.await.unwrap();

    assert_eq!(nodes[0].records(), Vec::<String>::new());
    for node in &nodes {
        assert_eq!(node.say(&["ACL", "LOG"]), "", "nothing was refused");
    }
    for browser in &mut browsers {
        assert_eq!(browser.fetch("/").await.status, 200);
    }
    let mut last = browsers.pop().unwrap();
    assert_eq!(last.post("/.vestibule/logout?everywhere", &[]).await.status, 303);
    for mut browser in browsers {
        assert_eq!(browser.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_session_on_its_way_to_another_node_is_there_and_ends_there() {
    // S181, S182
    let (app, nodes) = (Upstream::legacy().await, cluster().await);
    nodes.iter().for_each(introduce);
    let url = format!("redis+cluster://vestibule:hunter2@127.0.0.1:{}", nodes[0].port);
    let proxy = vestibule_at(&url, "", &app, SITE).await;
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    let source = nodes.iter().position(|node| !node.records().is_empty()).unwrap();
    let (source, target) = (&nodes[source], &nodes[(source + 1) % 3]);
    let record = source.records().remove(0);
    let slot = source.say(&["CLUSTER", "KEYSLOT", &record]);
    target.say(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.say(&["CLUSTER", "MYID"])]);
    source.say(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.say(&["CLUSTER", "MYID"])]);
    assert_eq!(source.say(&["MIGRATE", "127.0.0.1", &target.port.to_string(), &record, "0", "5000"]), "OK");

    assert_eq!(browser.fetch("/").await.status, 200);
    let alive = browser.session().unwrap();
    assert_eq!(browser.get("/logout").await.status, 302);

    assert_eq!(browser.with_session(&alive).fetch("/").await.status, 401);
    assert_eq!(source.records(), Vec::<String>::new(), "it ended where it is now");
    for node in [source, target] {
        assert_eq!(node.say(&["ACL", "LOG"]), "", "nothing was refused");
    }
}

#[tokio::test]
async fn a_part_of_a_cluster_that_is_gone_is_a_503_for_its_sessions_only() {
    // S167
    let (app, mut nodes) = (Upstream::legacy().await, cluster().await);
    for node in &nodes {
        node.say(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let urls: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let proxy = vestibule_at(&format!("redis+cluster://{}", urls.join(",")), "", &app, SITE).await;
    let mut browsers = Vec::new();
    // Which node keeps a session is chance: until the third has one.
    while browsers.len() < 20 || nodes[2].records().is_empty() {
        assert!(browsers.len() < 200, "the third gets none");
        let mut browser = proxy.browser();
        browser.log_in("alice").await;
        browsers.push(browser);
    }
    let seen = |nodes: &[Redis; 3]| {
        let of = |node: &Redis| node.records().iter().map(|name| node.say(&["HGET", name, "s"])).collect::<Vec<_>>();
        nodes[..2].iter().flat_map(of).collect::<Vec<_>>()
    };
    let before = seen(&nodes);
    proxy.advance(Duration::from_secs(60));
    for browser in &browsers {
        assert_eq!(browser.clone().fetch("/").await.status, 200);
    }
    nodes[2].kill();
    eventually("activity is written where it can be", || !seen(&nodes).iter().any(|at| before.contains(at))).await;

    let statuses = async |browsers: &[Browser]| {
        let mut all = Vec::new();
        for browser in browsers {
            all.push(browser.clone().fetch("/").await.status.as_u16());
        }
        all
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = statuses(&browsers).await;
    while !found.contains(&503) {
        assert!(Instant::now() < deadline, "nobody is missed");
        found = statuses(&browsers).await;
    }
    assert!(found.iter().all(|status| [200, 503].contains(status)), "{found:?}");
    assert!(found.contains(&200), "the others go on");
}

#[tokio::test]
async fn the_sentinels_say_who_is_master() {
    let (app, mut master) = (Upstream::legacy().await, Redis::start());
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica follows", || replica.say(&["INFO", "replication"]).contains("master_link_status:up")).await;
    let watcher = sentinel(&master);
    eventually("the sentinel knows of the replica", || !watcher.say(&["SENTINEL", "REPLICAS", "main"]).is_empty())
        .await;
    // The first one is not there.
    let nobody = free_port();
    let url = format!("redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{}/main", watcher.port);
    let proxy = vestibule_at(&url, "", &app, SITE).await;
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    assert_eq!(browser.fetch("/").await.status, 200);
    eventually("the replica has it", || !replica.records().is_empty()).await;

    watcher.say(&["SENTINEL", "SET", "main", "down-after-milliseconds", "500"]);
    master.kill();

    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = browser.clone().fetch("/").await.status.as_u16();
        assert!([200, 503].contains(&status), "{status}");
        if status == 200 && replica.say(&["ROLE"]).starts_with("master") {
            break;
        }
        assert!(Instant::now() < deadline, "no new master");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lives_a_life(&proxy).await;
    assert_eq!(browser.fetch("/").await.status, 401, "its session was ended everywhere, on the new master");
}

#[tokio::test]
async fn a_master_that_does_not_know_of_another_is_left() {
    // S182: what ends on the new one must not live on here.
    let forgets = ["--rename-command", "SLAVEOF", "", "--rename-command", "REPLICAOF", ""];
    let (app, master) = (Upstream::legacy().await, Redis::with(&forgets));
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica follows", || replica.say(&["INFO", "replication"]).contains("master_link_status:up")).await;
    let watcher = sentinel(&master);
    eventually("the sentinel knows of the replica", || !watcher.say(&["SENTINEL", "REPLICAS", "main"]).is_empty())
        .await;
    let proxy = vestibule_at(&format!("redis+sentinel://127.0.0.1:{}/main", watcher.port), "", &app, SITE).await;
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    eventually("the replica has it", || !replica.records().is_empty()).await;

    // Not before it has heard from the replica itself.
    eventually("the sentinel takes the replica", || watcher.say(&["SENTINEL", "FAILOVER", "main"]) == "OK").await;
    eventually("there is a new master", || replica.say(&["ROLE"]).starts_with("master")).await;
    assert_eq!(replica.say(&["DEL", &replica.records()[0]]), "1");

    let deadline = Instant::now() + Duration::from_secs(30);
    while browser.clone().fetch("/").await.status != 401 {
        assert!(Instant::now() < deadline, "it lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(master.say(&["ROLE"]).starts_with("master"), "the old one is as it was");
}
