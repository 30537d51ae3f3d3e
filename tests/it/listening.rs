//! Where connections come in: unix sockets, sockets that systemd passes, balancers that speak the
//! PROXY protocol; and what systemd is told.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::support::LISTEN;
use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::file;
use crate::support::parse;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::tls_client;

const PUBLIC: &str = "[site.access]\ndefault = \"public\"\n";

/// The usual file with other lines under `[listen]`.
fn listening(lines: &str, upstream: &Upstream) -> String {
    file(&upstream.url(), PUBLIC).replace(LISTEN, &format!("[listen]\nworkers = 1\n{lines}\n"))
}

/// One request over a connection; what came back, or why nothing did.
async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<u16, String> {
    let name = ServerName::try_from("app.test").unwrap();
    let stream = tls_client(&[b"http/1.1"]).connect(name, stream).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("/").header("host", "app.test").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    Ok(status)
}

async fn ask_after(proxy: &Vestibule, header: &[u8]) -> Result<u16, String> {
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();
    stream.write_all(header).await.unwrap();
    ask(stream).await
}

#[tokio::test]
async fn a_trusted_balancer_says_whose_connection_it_is() {
    // S53, S68
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let listen =
        "https = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\ntrusted_proxies = \"127.0.0.1\"\nproxy_protocol = true";
    let (proxy, _) = Vestibule::of(parse(&listening(listen, &app))).await;

    for (header, client) in [
        ("PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n", "192.0.2.7"),
        ("PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", "2001:db8::7"),
        ("PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        assert_eq!(ask_after(&proxy, header.as_bytes()).await, Ok(200));
        assert_eq!(app.last().header("x-forwarded-for"), Some(client));
    }
    let asked = app.received().len();
    assert!(ask_after(&proxy, b"").await.is_err(), "a header is missing");
    assert!(ask_after(&proxy, b"PROXY TCP4 nobody\r\n").await.is_err());
    assert_eq!(app.received().len(), asked);
}

#[tokio::test]
async fn nobody_else_says_whose_connection_it_is() {
    // S53: from a stranger the header is no TLS, and a connection without one is its own.
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let listen =
        "https = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\ntrusted_proxies = \"192.0.2.1\"\nproxy_protocol = true";
    let (proxy, _) = Vestibule::of(parse(&listening(listen, &app))).await;

    assert!(ask_after(&proxy, b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n").await.is_err());
    assert_eq!(ask_after(&proxy, b"").await, Ok(200));
    assert_eq!(app.last().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_and_one_left_over_is_taken() {
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("https.sock");
    // Dropped without being removed: what a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = format!("https = [\"127.0.0.1:0\", \"unix:{0}\"]\nhttp = \"127.0.0.1:0\"", path.display());

    let program = Program::start(&listening(&listen, &app)).await;

    assert_eq!(ask(UnixStream::connect(&path).await.unwrap()).await, Ok(200));
    assert_eq!(app.last().header("x-forwarded-for"), Some("127.0.0.1"));
    let (code, said) = Program::fail(&listening(&listen, &app)).await;
    assert_eq!(code, 1);
    assert!(said.contains("https.sock (another program listens there)"), "{said}");
    drop(program);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(Program::fail(&listening(&listen, &app)).await.0, 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious", "what is no socket stays");
}

/// The program with a socket as its first passed one, as systemd starts it.
fn activated(socket: TcpListener) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {} \"$@\"", BINARY));
    command.arg("sh").stdin(Stdio::from(OwnedFd::from(socket)));
    command
}

#[tokio::test]
async fn a_restart_under_socket_activation_refuses_no_connection() {
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = listening(&format!("https = \"{address}\"\nhttp = \"127.0.0.1:0\""), &app);
    let mut program = Program::start_by(activated(socket.try_clone().unwrap()), &text).await;
    assert_eq!(ask(TcpStream::connect(address).await.unwrap()).await, Ok(200));

    program.signal("TERM");
    program.ended().await;
    let waiting = TcpStream::connect(address).await.expect("the socket is still there");
    let _again = Program::start_by(activated(socket), &text).await;

    assert_eq!(ask(waiting).await, Ok(200));
}

#[tokio::test]
async fn a_socket_that_nobody_named_is_an_error() {
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = listening("https = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"", &app);

    let (code, said) = Program::fail_by(activated(socket), &text).await;

    assert_eq!(code, 1);
    assert!(said.contains(&format!("systemd passed a socket for {address}, which [listen] does not name")), "{said}");
}

#[tokio::test]
async fn systemd_hears_of_start_reload_life_and_stop() {
    let app = Upstream::start(|_| Reply::text("hello")).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut buffer = [0; 512];
        let length = heard.recv(&mut buffer).expect("systemd hears nothing");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = Command::new(BINARY);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").stdin(Stdio::null());

    let mut program =
        Program::start_by(command, &listening("https = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"", &app)).await;
    let next = || std::iter::repeat_with(hear).take(100).find(|said| !said.starts_with("WATCHDOG")).unwrap();
    assert_eq!(next().trim_end(), "READY=1");
    assert_eq!(hear().trim_end(), "WATCHDOG=1");
    assert_eq!(hear().trim_end(), "WATCHDOG=1");
    program.signal("HUP");
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next().trim_end(), "READY=1");
    program.signal("TERM");
    assert_eq!(next().trim_end(), "STOPPING=1");
    program.ended().await;
}
