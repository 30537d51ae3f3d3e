//! Masters that others have left, and that still answer: what they know is not believed, since it may have
//! ended elsewhere.

use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::redis::Redis;
use crate::support::redis::cluster;
use crate::support::redis::sentinel;
use crate::support::redis::vestibule_at;

/// An application, and a browser that has logged in to it.
async fn logged_in(url: &str) -> (Upstream, Vestibule, Browser) {
    let app = Upstream::legacy().await;
    let proxy = vestibule_at(url, "", &app, SITE).await;
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    assert_eq!(browser.fetch("/").await.status, 200);
    (app, proxy, browser)
}

/// Waits for this status; what is answered until then is a 200 or a 503.
async fn becomes(browser: &Browser, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = browser.clone().fetch("/").await.status.as_u16();
        if found == status {
            return;
        }
        assert!([200, 503].contains(&found), "{found}");
        assert!(Instant::now() < deadline, "never {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_master_that_its_cluster_has_left_is_not_believed() {
    // S185: also where it may go on reading.
    let nodes = cluster().await;
    for node in &nodes {
        node.say(&["CONFIG", "SET", "cluster-allow-reads-when-down", "yes"]);
    }
    let urls: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let (_app, _proxy, browser) = logged_in(&format!("redis+cluster://{}", urls.join(","))).await;
    let (home, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| !node.records().is_empty());
    let record = home[0].records().remove(0);

    others.iter().for_each(|node| node.signal("STOP"));

    eventually("it has noticed", || home[0].say(&["CLUSTER", "INFO"]).contains("cluster_state:fail")).await;
    becomes(&browser, 503).await;
    assert_ne!(home[0].say(&["HGET", &record, "s"]), "", "it would have answered");

    others.iter().for_each(|node| node.signal("CONT"));
    becomes(&browser, 200).await;
}

#[tokio::test]
async fn a_master_that_its_replicas_have_left_is_not_believed() {
    // S185
    let master = Redis::with(&["--min-replicas-to-write", "1"]);
    let mut replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let follows = || master.say(&["INFO", "replication"]).contains("min_slaves_good_slaves:1");
    eventually("the replica follows", follows).await;
    let (_app, _proxy, browser) = logged_in(&master.url()).await;

    replica.kill();

    becomes(&browser, 503).await;
    assert_eq!(master.records().len(), 1, "it would have answered");

    replica.again();
    becomes(&browser, 200).await;
}

#[tokio::test]
async fn a_master_that_no_sentinel_names_any_more_is_not_believed() {
    // S185
    let master = Redis::start();
    let mut watcher = sentinel(&master);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", watcher.port);
    let (_app, _proxy, browser) = logged_in(&url).await;

    watcher.kill();

    becomes(&browser, 503).await;
    assert_eq!(master.records().len(), 1, "it would have answered");

    watcher.again();
    becomes(&browser, 200).await;
}

/// The connections that are told what changes.
fn told(redis: &Redis) -> Vec<String> {
    let is_told = |line: &&str| line.contains(" flags=tB ");
    redis.say(&["CLIENT", "LIST"]).lines().filter(is_told).map(|line| line.split(' ').next().unwrap().into()).collect()
}

#[tokio::test]
async fn a_master_that_has_too_few_replicas_for_a_moment_is_not_left() {
    // S185: a late word of a replica does not mean to read everything again.
    let master = Redis::start();
    let (_app, proxy, browser) = logged_in(&master.url()).await;
    let connections = told(&master);
    assert_eq!(connections.len(), 1);
    let read =
        || master.say(&["INFO", "commandstats"]).lines().find(|line| line.contains("hgetall")).map(str::to_owned);
    // Where the machine holds up a second of its beats, what is known is read again all the same.
    for user in ["bob", "carol", "dave"] {
        let mut other = proxy.browser();
        other.log_in(user).await;
        assert_eq!(other.fetch("/").await.status, 200);

        master.say(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        becomes(&browser, 503).await;
        master.say(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        becomes(&browser, 200).await;

        assert_eq!(told(&master), connections, "the connection is the same");
        let before = read();
        assert_eq!(other.fetch("/").await.status, 200);
        if read() == before {
            return;
        }
    }
    panic!("it is read again each time");
}

#[tokio::test]
async fn a_node_of_a_cluster_proves_itself_by_what_it_serves() {
    // S185: one that is asked for another's says only whose that is, whatever it may change itself.
    let nodes = cluster().await;
    let (_app, proxy, _) = logged_in(&format!("redis+cluster://127.0.0.1:{}", nodes[0].port)).await;
    for node in &nodes {
        let before = node.records().len();
        let mut browser = proxy.browser();
        browser.log_in("alice").await;
        while node.records().len() == before {
            browser = proxy.browser();
            browser.log_in("alice").await;
        }

        node.say(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        becomes(&browser, 503).await;
        node.say(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        becomes(&browser, 200).await;
    }
}

#[tokio::test]
async fn a_slot_that_nobody_serves_takes_no_more_than_what_is_in_it() {
    // S167
    let nodes = cluster().await;
    nodes.iter().for_each(|node| drop(node.say(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])));
    let proof = "vestibule:proof:0";
    let slot = nodes[0].say(&["CLUSTER", "KEYSLOT", proof]);
    eventually("nobody serves it", || {
        nodes.iter().all(|node| {
            let is_lost = node.say(&["DEL", proof]).contains("Hash slot not served");
            if !is_lost {
                node.say(&["CLUSTER", "DELSLOTS", &slot]);
            }
            is_lost
        })
    })
    .await;

    let (_app, _proxy, mut browser) = logged_in(&format!("redis+cluster://127.0.0.1:{}", nodes[0].port)).await;

    assert_eq!(browser.get("/logout").await.status, 302);
}

/// What a sentinel says to a command: that this port is the master's since that change of masters.
async fn say(mut client: TcpStream, master: Option<u16>, epoch: u8) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer).await?;
        let said = String::from_utf8_lossy(&buffer[..read]);
        let answer = if read == 0 {
            return Ok(());
        } else if said.contains("HELLO") {
            "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned()
        } else if said.contains("GET-MASTER-ADDR-BY-NAME") {
            // The last to speak is one that knows something.
            tokio::time::sleep(Duration::from_millis(if master.is_some() { 100 } else { 0 })).await;
            let named = |port: String| format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
            master.map_or_else(|| "_\r\n".to_owned(), |port| named(port.to_string()))
        } else if master.is_none() {
            "-ERR No such master with that name\r\n".to_owned()
        } else {
            format!("%1\r\n$12\r\nconfig-epoch\r\n$1\r\n{epoch}\r\n")
        };
        client.write_all(answer.as_bytes()).await?;
    }
}

async fn fake_sentinel(master: Option<u16>, epoch: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(say(client, master, epoch));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_sentinels_say_the_latest_holds() {
    // S185: the first one was cut off from the others, and goes on to name the former master.
    let (former, master) = (Redis::start(), Redis::start());
    let mut sentinels = Vec::new();
    for (port, epoch) in [(former.port, 1), (master.port, 2), (master.port, 2)] {
        sentinels.push(fake_sentinel(Some(port), epoch).await);
    }

    let (_app, _proxy, mut browser) = logged_in(&format!("redis+sentinel://{}/main", sentinels.join(","))).await;

    assert_eq!((former.records().len(), master.records().len()), (0, 1));
    assert_eq!(browser.get("/logout").await.status, 302);
    assert_eq!(former.records().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_know_of_no_master_do_not_count() {
    // S185: made anew, before anybody has told them what to watch.
    let master = Redis::start();
    let mut sentinels = Vec::new();
    for port in [None, None, Some(master.port)] {
        sentinels.push(fake_sentinel(port, 1).await);
    }

    let (_app, _proxy, mut browser) = logged_in(&format!("redis+sentinel://{}/main", sentinels.join(","))).await;

    assert_eq!(master.records().len(), 1);
    assert_eq!(browser.get("/logout").await.status, 302);
}
