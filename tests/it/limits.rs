//! How large a request may be, also at one site only; and how many file descriptors there are.

use std::process::Command;

use http_body_util::Full;
use tokio::net::TcpStream;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::BINARY;
use crate::support::program::Program;

#[tokio::test]
async fn a_site_can_take_less_than_the_others() {
    // S170
    let app = Upstream::legacy().await;
    let limits = "[site.limits]\nuri = 100\nheader_count = 20\nheader_bytes = \"8KiB\"\nbody = 1000\n";
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n{limits}")).await;

    let long = browser.get(&format!("/public/{}", "x".repeat(100))).await;
    let many = with_headers(30, 10);
    let wide = with_headers(1, 9000);

    assert_eq!(long.status, 414);
    assert_eq!(browser.send(many).await.status, 431);
    assert_eq!(browser.send(wide).await.status, 431);
    assert_eq!(browser.post("/public/x", &[("x", &"y".repeat(1000))]).await.status, 413);
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_site_can_take_more_than_the_others() {
    let app = Upstream::legacy().await;
    let limits = "[site.limits]\nuri = \"16KiB\"\nheader_count = 60\n[limits]\nheader_count = 20\n";
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n{limits}")).await;

    let long = browser.get(&format!("/public/{}", "x".repeat(10_000))).await;
    let many = browser.send(with_headers(40, 10)).await;

    assert_eq!((long.status.as_u16(), many.status.as_u16()), (200, 200));
}

/// A request for a public page with so many fields in all, which take so many bytes as they are counted
/// (RFC 9112: name, colon, space, value, line end).
async fn ask(browser: &mut Browser, target: usize, count: usize, bytes: usize) -> Answer {
    let target = format!("/public/{}", "x".repeat(target - "/public/".len()));
    let mut request = http::Request::get(target).header("host", "app.test").body(Full::default()).unwrap();
    let headers = request.headers_mut();
    headers.insert("user-agent", "x".parse().unwrap());
    for number in headers.len()..count {
        headers.insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), "x".parse().unwrap());
    }
    let so_far: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    headers.insert("user-agent", "x".repeat(1 + bytes.saturating_sub(so_far)).parse().unwrap());
    browser.send(request).await
}

#[tokio::test]
async fn so_much_is_taken_over_either_protocol_and_no_more() {
    // S114, S170: the defaults, and what the standard wants to be taken at least (RFC 9110 4.1). An
    // application with the same limit of fields would refuse those that have some of ours added.
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::with(&app, &format!("{SITE}\n[limits]\nheader_count = 80\n")).await;
    for http2 in [false, true] {
        let mut browser = browser.clone().over(http2);
        for (target, count, bytes, status) in [
            (8000, 10, 0, 200),
            (8192, 10, 0, 200),
            (8193, 10, 0, 414),
            (30_000, 10, 0, 414),
            (20, 80, 0, 200),
            (20, 81, 0, 431),
            (20, 200, 0, 431),
            (20, 10, 32 * 1024, 200),
            (20, 10, 32 * 1024 + 1, 431),
            (8192, 80, 32 * 1024, 200),
        ] {
            let already = app.received().len();
            let answer = ask(&mut browser, target, count, bytes).await;
            assert_eq!(answer.status, status, "{http2}: {target} {count} {bytes}");
            assert_eq!(app.received().len() - already, usize::from(status == 200));
        }
    }
}

/// A request for a public page with so many further fields of so many bytes.
fn with_headers(count: usize, bytes: usize) -> http::Request<Full<bytes::Bytes>> {
    let request = labelled("GET", "/public/x", "same-origin", "navigate", "document");
    let request = (0..count).fold(request, |request, number| request.header(format!("x-{number}"), "v".repeat(bytes)));
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn there_are_as_many_file_descriptors_as_the_system_lets_us_have() {
    // S173: what most systems give is too few for the connections that are allowed.
    let app = Upstream::legacy().await;
    let limits = "[limits]\nconnections = 300\nupstream_connections = 20\n";
    let text = format!("{}\n{limits}", file(&app.url(), SITE));
    let with = |limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh", BINARY]);
        shell
    };
    let program = Program::start_by(with("-Sn 64"), &text).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(program.https).await.unwrap());
    }

    assert_eq!(program.browser().fetch("/public/x").await.status, 200);
    for event in ["accept.failed", "descriptors.few"] {
        assert!(program.events(event).is_empty(), "{event}");
    }
    let few = Program::start_by(with("-n 383"), &text).await;
    let help = few.event("descriptors.few").await["help"].to_string();
    assert!(help.contains("need 384 file descriptors, and the system gives 383"), "{help}");
}
