//! WebSockets between peers that know nothing of this program: a Python library at both ends, and a
//! browser, which asks over HTTP/2. Both compress (RFC 7692).

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::Chromium;
use crate::support::Process;
use crate::support::SITE;
use crate::support::Vestibule;
use crate::support::apps;
use crate::support::certificates;
use crate::support::run;

fn peer(arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps/websockets_peer.py");
    let mut command = Command::new(apps().join("websockets/venv/bin/python"));
    command.arg(script).args(arguments);
    command
}

async fn in_front_of_one() -> (Process, Vestibule) {
    let app = Process::serve(|port| peer(&["serve", &port.to_string()]));
    let (proxy, _) = Vestibule::at(&format!("http://127.0.0.1:{}", app.port), SITE).await;
    (app, proxy)
}

#[tokio::test]
async fn a_library_talks_to_itself() {
    // S120
    let (_app, proxy) = in_front_of_one().await;
    let port = proxy.https.port().to_string();
    let visit = move || run(&mut peer(&["visit", &port, certificates().ca.to_str().unwrap()]));

    tokio::task::spawn_blocking(visit).await.unwrap();
}

/// Says what comes over a WebSocket, and how it ends.
const OPEN: &str = r#"
const open = path => {
    const socket = new WebSocket('wss://app.test/public/' + path, 'chat');
    const waiting = [], said = [];
    const say = what => waiting.length ? waiting.shift()(what) : said.push(what);
    socket.binaryType = 'arraybuffer';
    socket.onmessage = event => say(event.data);
    socket.onclose = event => say(`closed ${event.code} ${event.reason}`);
    socket.next = () => said.length ? Promise.resolve(said.shift()) : new Promise(go => waiting.push(go));
    socket.ready = new Promise(go => { socket.onopen = go; });
    return socket;
};
"#;

#[tokio::test]
async fn a_browser_talks_to_it_over_http_2() {
    // S120, S123
    let (_app, proxy) = in_front_of_one().await;
    let chromium = Chromium::knowing(&[("app.test", proxy.https)]).await;
    chromium.open("https://app.test/public/page").await;
    let tell = async |script: &str| chromium.run(&format!("{OPEN} return (async () => {{ {script} }})()")).await;

    let headers = tell("return JSON.parse(await open('headers').next())").await;
    assert_eq!(headers["via"], "2.0 vestibule");
    assert_eq!(headers["origin"], "https://app.test");
    assert!(headers["sec-websocket-extensions"].as_str().unwrap().contains("permessage-deflate"), "{headers}");
    let talk = tell(
        r#"
        const socket = open('echo');
        await socket.ready;
        const said = [socket.protocol, socket.extensions.includes('permessage-deflate')];
        for (const text of ['', 'é🌍', 'x'.repeat(1 << 20)]) {
            socket.send(text);
            said.push(await socket.next() === text);
        }
        const bytes = Uint8Array.from({ length: 1 << 20 }, (_, place) => place * place);
        socket.send(bytes);
        const echo = new Uint8Array(await socket.next());
        said.push(echo.length === bytes.length && echo.every((byte, place) => byte === bytes[place]));
        socket.close(4002, 'enough …');
        said.push(await socket.next(), await open('last').next());
        return said;
        "#,
    );
    assert_eq!(talk.await, json!(["chat", true, true, true, true, true, "closed 4002 enough …", "4002 enough …"]));
    let rest = "return [await open('pieces').next(), await open('ping').next(), await open('close').next()]";
    assert_eq!(tell(rest).await, json!(["one two three", "ponged", "closed 4001 see you …"]));
    assert_eq!(chromium.complaints().await, Vec::<String>::new());
}
