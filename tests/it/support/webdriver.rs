//! A real browser: headless Chromium, driven over WebDriver (W3C) with what its driver adds. It resolves
//! the tests' names to ports of this machine and trusts their certificate.

use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::Process;
use super::certificates;

/// What an element is called in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser with a profile of its own.
pub struct Chromium {
    _driver: Process,
    _profile: TempDir,
    address: String,
    session: String,
    /// What it was started with.
    arguments: Vec<String>,
}

/// The driver and its port.
fn start_driver() -> Option<(Process, String)> {
    let mut driver = Process::start(Command::new("chromedriver").arg("--port=0"));
    let mut lines = BufReader::new(driver.stdout()).lines();
    let port = lines
        .find_map(|line| Some(line.ok()?.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned()))?;
    Some((driver, port))
}

impl Chromium {
    /// Starts one for which each of these names leads to an address.
    pub async fn knowing(hosts: &[(&str, SocketAddr)]) -> Self {
        Self::with(hosts, &[]).await
    }

    /// One that binds sessions to its device, with keys in software and as many signatures as it wants.
    pub async fn binding(hosts: &[(&str, SocketAddr)]) -> Self {
        Self::with_keys(hosts, "DeviceBoundSessions:RefreshQuota/false").await
    }

    /// The same with as many signatures as everybody's browser has: six in nine minutes.
    pub async fn rationed(hosts: &[(&str, SocketAddr)]) -> Self {
        Self::with_keys(hosts, "DeviceBoundSessions").await
    }

    async fn with_keys(hosts: &[(&str, SocketAddr)], sessions: &str) -> Self {
        let keys = "EnableBoundSessionCredentialsSoftwareKeysForManualTesting";
        Self::with(hosts, &[format!("--enable-features={sessions},{keys}")]).await
    }

    async fn with(hosts: &[(&str, SocketAddr)], more: &[String]) -> Self {
        // The port that it gets for IPv4 may be somebody's for IPv6: then it ends.
        let started = std::iter::repeat_with(start_driver).take(5).find_map(|started| started);
        let (driver, port) = started.expect("chromedriver does not start");
        let profile = TempDir::new().unwrap();
        let rules: Vec<_> = hosts.iter().map(|(name, address)| format!("MAP {name} {address}")).collect();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            // Containers have little shared memory.
            "--disable-dev-shm-usage".into(),
            "--disable-quic".into(),
            "--no-first-run".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            // The browser ends when its driver does.
            "--remote-debugging-pipe".into(),
            format!("--user-data-dir={}", profile.path().display()),
            format!("--host-resolver-rules={}", rules.join(",")),
            format!("--ignore-certificate-errors-spki-list={}", spki_hash()),
        ];
        arguments.extend_from_slice(more);
        let (address, session) = (format!("127.0.0.1:{port}"), String::new());
        let mut browser = Self { _driver: driver, _profile: profile, address, session, arguments };
        browser.start().await;
        browser
    }

    async fn start(&mut self) {
        let options = json!({ "args": self.arguments });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let made = self.command("POST", "", json!({ "capabilities": { "alwaysMatch": wanted } })).await;
        self.session = format!("/{}", made["sessionId"].as_str().unwrap());
    }

    /// Closes it and starts it again with the same profile.
    pub async fn restart(&mut self) {
        self.command("DELETE", "", Value::Null).await;
        self.session.clear();
        self.start().await;
    }

    /// Loads a page.
    pub async fn open(&self, url: &str) {
        self.command("POST", "/url", json!({ "url": url })).await;
    }

    /// The button.
    pub async fn back(&self) {
        self.command("POST", "/back", json!({})).await;
    }

    pub async fn url(&self) -> String {
        self.command("GET", "/url", Value::Null).await.as_str().unwrap().to_owned()
    }

    /// What the page shows.
    pub async fn text(&self) -> String {
        self.run("return document.body?.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Types into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        self.command("POST", &format!("/element/{field}/value"), json!({ "text": text })).await;
    }

    /// Clicks; returns when the page that this leads to has loaded.
    pub async fn click(&self, css: &str) {
        let element = self.find(css).await;
        self.run("window.isOld = true").await;
        self.command("POST", &format!("/element/{element}/click"), json!({})).await;
        self.wait("return !window.isOld && document.readyState == 'complete'").await;
    }

    /// Runs a script in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until a script says `true`.
    pub async fn wait(&self, script: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.run(script).await != true {
            assert!(tokio::time::Instant::now() < deadline, "never true: {script}; {}", self.text().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every cookie in the browser's jar, whatever its site.
    pub async fn cookies(&self) -> Vec<Value> {
        let asked = json!({ "cmd": "Network.getAllCookies", "params": {} });
        let answer = self.command("POST", "/goog/cdp/execute", asked).await;
        answer["cookies"].as_array().unwrap().clone()
    }

    /// The value of a cookie of the tests' site.
    pub async fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.cookies().await;
        let found = cookies.iter().find(|cookie| cookie["name"] == name && cookie["domain"] == "app.test")?;
        Some(found["value"].as_str().unwrap().to_owned())
    }

    /// Puts a cookie of the tests' site there.
    pub async fn put_cookie(&self, name: &str, value: &str) {
        let cookie = json!({ "name": name, "value": value, "url": "https://app.test/", "secure": true });
        self.command("POST", "/goog/cdp/execute", json!({ "cmd": "Network.setCookie", "params": cookie })).await;
    }

    /// Lets a cookie of the tests' site end.
    pub async fn lose_cookie(&self, name: &str) {
        let asked = json!({ "name": name, "url": "https://app.test/" });
        self.command("POST", "/goog/cdp/execute", json!({ "cmd": "Network.deleteCookies", "params": asked })).await;
        assert_eq!(self.cookie(name).await, None);
    }

    /// What the console complained about since it was last asked; not every application has an icon.
    pub async fn complaints(&self) -> Vec<String> {
        self.complaints_since(0.0).await
    }

    /// The same about the page that is shown: what an earlier one still loaded may be told late.
    pub async fn complaints_of_page(&self) -> Vec<String> {
        let begun = self.run("return performance.timeOrigin").await;
        self.complaints_since(begun.as_f64().unwrap()).await
    }

    async fn complaints_since(&self, moment: f64) -> Vec<String> {
        let lines = self.command("POST", "/se/log", json!({ "type": "browser" })).await;
        let is_since = |line: &&Value| line["timestamp"].as_f64().unwrap() >= moment.floor();
        let serious = lines.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE").filter(is_since);
        let messages = serious.map(|line| line["message"].as_str().unwrap().to_owned());
        messages.filter(|message| !message.contains("/favicon.ico - ")).collect()
    }

    async fn find(&self, css: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": css });
        self.command("POST", "/element", wanted).await[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn command(&self, method: &str, path: &str, body: Value) -> Value {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(format!("/session{}{path}", self.session));
        let request = request.header("host", &self.address).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }
}

/// What a browser calls the tests' certificate.
fn spki_hash() -> String {
    let certificate = CertificateDer::from_pem_file(&certificates().certificate).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&certificate).unwrap();
    STANDARD.encode(digest::digest(&digest::SHA256, &leaf.subject_public_key_info()))
}
