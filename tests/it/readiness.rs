//! Whether the service says by itself that sessions cannot be kept.

use tempfile::TempDir;
use vestibule::config::ListenAddress;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::desk::Desk;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::cluster;
use crate::support::redis::stored_at;

/// The program with its sessions there, and its admin interface.
async fn at(url: &str, place: &TempDir) -> (Program, Desk) {
    let app = Upstream::legacy().await;
    let socket = place.path().join("admin.sock");
    let listen = format!("listen = \"unix:{}\"", socket.display());
    let text = stored_at(url, "", &app, SITE).replace("listen = \"off\"", &listen);
    (Program::start(&text).await, Desk(ListenAddress::Unix(socket)))
}

fn fill(server: &Redis, limit: &str) {
    assert_eq!(server.say(&["CONFIG", "SET", "maxmemory", limit]), "OK");
}

#[tokio::test]
async fn a_redis_that_is_full_is_not_ready() {
    // S192
    let (redis, place) = (Redis::start(), TempDir::new().unwrap());
    let (_program, desk) = at(&redis.url(), &place).await;
    assert_eq!(desk.get("/readyz").status, 200);

    fill(&redis, "1");

    let said = desk.get("/readyz");
    assert_eq!((said.status, said.header("retry-after")), (503, Some("5")));
    assert!(said.body.contains("keeps nothing new"), "{said:?}");
    fill(&redis, "0");
    assert_eq!(desk.get("/readyz").status, 200);
    assert_eq!(redis.say(&["KEYS", "*"]), "", "it has left nothing there");
}

#[tokio::test]
async fn a_cluster_of_which_a_part_is_full_is_not_ready() {
    // S192
    let (nodes, place) = (cluster().await, TempDir::new().unwrap());
    let (_program, desk) = at(&format!("redis+cluster://127.0.0.1:{}", nodes[0].port), &place).await;
    for node in &nodes {
        assert_eq!(desk.get("/readyz").status, 200);
        fill(node, "1");
        assert_eq!(desk.get("/readyz").status, 503);
        fill(node, "0");
    }
}
