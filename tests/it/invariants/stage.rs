//! A whole Vestibule between a client and an application, over unix sockets: what is said on them is given by
//! whoever looks for input that breaks it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use vestibule::app;
use vestibule::app::Running;
use vestibule::cert;
use vestibule::clock::SystemClock;
use vestibule::config::Config;
use vestibule::store::memory::MemoryStore;

use super::strict;
use super::strict::Message;

/// When nothing has come for so long, the client leaves. It bounds how long an input takes, and decides nothing.
const QUIET: Duration = Duration::from_millis(10);

/// One for all inputs, used for one after the other.
static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| Mutex::new(Stage::start()));

struct Stage {
    runtime: Runtime,
    application: Arc<Mutex<Application>>,
    connector: TlsConnector,
    directory: TempDir,
    _running: Running,
}

/// What the application is to say, and what it was sent.
#[derive(Default)]
struct Application {
    /// The answer to the next request, and whether the connection ends with it.
    answer: Option<(Vec<u8>, bool)>,
    received: Vec<Message>,
    fault: Option<String>,
}

/// What happened.
pub struct Scene {
    /// What the client got.
    pub seen: Vec<u8>,
    /// What the application got, in its order.
    pub received: Vec<Message>,
}

/// Sends these bytes; the application answers the first request with `answer`, if given, and ends the connection
/// after it if it says so. Another client asks for `/marker` afterwards: nobody else gets an answer of its, and it
/// gets no other.
pub fn play(client: &[u8], answer: Option<(&[u8], bool)>) -> Scene {
    let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    *stage.application.lock().unwrap() =
        Application { answer: answer.map(|(bytes, ends)| (bytes.to_vec(), ends)), ..Application::default() };
    let (seen, marked) = stage.runtime.block_on(async {
        let seen = stage.say(client, QUIET).await;
        let marker = b"GET /marker HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
        (seen, stage.say(marker, Duration::from_secs(10)).await)
    });
    let application = std::mem::take(&mut *stage.application.lock().unwrap());
    assert_eq!(application.fault, None, "the application was sent what is no HTTP");
    let mut received = application.received;
    let marker = received.pop().expect("the marker never arrived");
    let (answer, _) = strict::response(&marked, "GET", true).unwrap().expect("no answer to the marker");
    assert_eq!(marker.head.target(), "/marker", "something came after the marker");
    assert_eq!(answer.body, echo(received.len(), &marker), "the marker got another answer");
    Scene { seen, received }
}

/// What the application says to a request: which one it was, and what it was.
pub fn echo(number: usize, request: &Message) -> Vec<u8> {
    format!("{number} {} {}", request.head.start, request.body.escape_ascii()).into_bytes()
}

impl Stage {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let made = cert::make(directory.path(), &["app.test".to_owned()]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let application = Arc::<Mutex<Application>>::default();
        let path = |name: &str| directory.path().join(name);
        let text = format!(
            r#"
[listen]
https = "unix:{}"
workers = 1
[tls]
certificate = {:?}
key = {:?}
[store]
url = "memory:"
[log]
access = false
[[site]]
origin = "https://app.test"
upstream = "unix:{}"
[site.login]
path = "/login"
user = "form:username"
success = {{ status = 302 }}
[site.access]
default = "public"
protected = "/private/*"
"#,
            path("https").display(),
            made.certificate,
            made.key,
            path("application").display(),
        );
        let config = Config::parse(&path("proxy.toml"), &text).unwrap_or_else(|problems| panic!("{problems}"));
        let clock = Arc::new(SystemClock::start());
        let running = app::start_with_store(&config, Arc::new(MemoryStore::default()), clock).unwrap();
        runtime.block_on(async { listen(path("application"), Arc::clone(&application)) });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(made.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = versions.with_root_certificates(roots).with_no_client_auth();
        Self { runtime, application, connector: TlsConnector::from(Arc::new(config)), directory, _running: running }
    }

    /// Sends these bytes on a connection of their own, and leaves when nothing comes for `quiet`; all that comes back.
    async fn say(&self, bytes: &[u8], quiet: Duration) -> Vec<u8> {
        let stream = UnixStream::connect(self.directory.path().join("https")).await.unwrap();
        let name = ServerName::try_from("app.test").unwrap();
        let mut stream = self.connector.connect(name, stream).await.unwrap();
        let mut seen = Vec::new();
        // The proxy may have closed the connection already.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        loop {
            match tokio::time::timeout(quiet, stream.read_buf(&mut seen)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return seen,
                Err(_) => break,
            }
        }
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut seen).await;
        seen
    }
}

fn listen(path: PathBuf, application: Arc<Mutex<Application>>) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, Arc::clone(&application)));
        }
    });
}

/// Reads requests as strictly as they are defined, and says what they were.
async fn serve(mut stream: UnixStream, application: Arc<Mutex<Application>>) {
    let mut buffer = Vec::new();
    let mut patience = Duration::MAX;
    loop {
        match strict::request(&buffer) {
            Err(fault) => {
                application.lock().unwrap().fault = Some(fault);
                return;
            }
            Ok(None) => match tokio::time::timeout(patience, stream.read_buf(&mut buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            },
            Ok(Some((request, used))) => {
                buffer.drain(..used);
                let (answer, ends) = application.lock().unwrap().answer(request);
                // An answer of the case's may have no end but that of the connection.
                if ends.is_some() {
                    patience = QUIET * 2;
                }
                if stream.write_all(&answer).await.is_err() || ends == Some(true) {
                    return;
                }
            }
        }
    }
}

impl Application {
    /// What it says to a request; for the answer that was given, whether the connection ends with it.
    fn answer(&mut self, request: Message) -> (Vec<u8>, Option<bool>) {
        let number = self.received.len();
        let body = echo(number, &request);
        let head = format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if request.head.start.starts_with("HEAD ") { Vec::new() } else { body };
        self.received.push(request);
        match self.answer.take() {
            Some((answer, ends)) => (answer, Some(ends)),
            None => ([head.into_bytes(), body].concat(), None),
        }
    }
}
