//! The README as its reader would try it: its rules, its five minutes, and what it shows.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use http::Method;
use http::Request;
use http_body_util::Full;
use regex::Regex;
use tokio::net::TcpListener;
use vestibule::demo::app;

use crate::documents::blocks;
use crate::documents::code;
use crate::documents::parse;
use crate::documents::read;
use crate::documents::table;
use crate::support::SITE;
use crate::support::Vestibule;

#[test]
fn every_rule_of_the_readme_is_read() {
    let readme = read("README.md");
    for row in table(&readme, "| … | `[site.login]` |") {
        let rule = code(row[1]).join("\n");
        let config = parse(&format!("[site.login]\n{rule}")).unwrap_or_else(|problems| panic!("{rule}\n{problems}"));
        assert_eq!(config.sites[0].login.len(), 1, "{rule}");
    }
}

#[test]
fn the_command_line_is_as_described() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_vestibule")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = |text: &str, indent: &str| -> BTreeSet<String> {
        let names = text.lines().filter_map(|line| line.strip_prefix(indent)?.split(' ').next().map(str::to_owned));
        names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase()) && !name.is_empty()).collect()
    };
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next()).unwrap();
    let mut known = commands(listed, "  ");
    known.remove("help");
    let readme = read("README.md");
    let section = readme.split("## The command line").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();

    assert_eq!(commands(section, "    vestibule "), known);
}

#[test]
fn the_five_minutes_of_the_readme_lead_to_a_valid_configuration() {
    let readme = read("README.md");
    let section = readme.split("## Protect your own application").nth(1).unwrap().split("\n## ").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), &blocks(section, "toml")[0]).unwrap();
    let commands = section.lines().filter_map(|line| line.strip_prefix("    vestibule ")?.split('#').next());
    let commands: Vec<Vec<&str>> = commands.map(|line| line.split_whitespace().collect()).collect();
    let vestibule = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command.args(arguments).current_dir(directory.path()).output().unwrap()
    };

    assert_eq!(commands.iter().map(|command| command[0]).collect::<Vec<_>>(), ["cert", "check", "run"]);
    let made = vestibule(&commands[0]);
    let checked = vestibule(&commands[1]);

    assert!(made.status.success(), "{made:?}");
    let words = String::from_utf8(checked.stdout).unwrap();
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{words}");
    for line in blocks(section, "text")[0].lines() {
        assert!(words.lines().any(|word| word == line), "{line}\n{words}");
    }
}

/// A message of the README: start line, fields by lower-case name.
fn message(text: &str) -> (String, BTreeMap<String, String>) {
    let mut lines = text.lines();
    let start = lines.next().unwrap().to_owned();
    let fields = lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no field: {line}")));
    (start, fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
}

/// The fields that are compared: what differs from run to run is named by what it is.
fn comparable(fields: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let app = Regex::new("PHPSESSID=[0-9a-f]{32}").unwrap();
    let ours = Regex::new("__Host-session=[A-Za-z0-9_-]{43}").unwrap();
    let of_the_client = ["date", "content-length", "user-agent", "accept", "content-type", "sec-fetch"];
    let one = |value: String| {
        let value = app.replace(&value, "PHPSESSID=APP");
        let value = ours.replace(&value, "__Host-session=OURS");
        value.replace("app.test", "app.example.com").replace("127.0.0.1", "198.51.100.7")
    };
    let kept = fields.into_iter().filter(|(name, _)| !of_the_client.iter().any(|skip| name.starts_with(skip)));
    kept.map(|(name, value)| (name, one(value))).collect()
}

fn received(page: &str) -> Vec<(String, String)> {
    let row = Regex::new("<tr[^>]*><td>([^<]*)</td><td>([^<]*)</td></tr>").unwrap();
    let text = |text: &str| text.replace("&quot;", "\"").replace("&amp;", "&");
    row.captures_iter(page).map(|row| (text(&row[1]), text(&row[2]))).collect()
}

#[tokio::test]
async fn what_changes_is_what_the_readme_shows() {
    let readme = read("README.md");
    let shown: Vec<_> = blocks(&readme, "http").iter().map(|block| message(block)).collect();
    let [(_, alone), (_, through), (start, sent), (_, got)] = &shown[..] else { panic!("four messages: {shown:?}") };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(app::serve(listener));
    let (_proxy, mut browser) = Vestibule::at(&format!("http://{upstream}"), SITE).await;
    let form = [("username", "alice"), ("password", "wonderland")];

    let bare = plain_login(upstream, "username=alice&password=wonderland").await;
    let login = browser.post("/login", &form).await;
    let mut request = Request::builder().method(Method::GET).uri(start.split(' ').nth(1).unwrap());
    for (name, value) in sent.iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "cookie")) {
        request = request.header(name, value);
    }
    let page = browser.send(request.body(Full::default()).unwrap()).await;

    let fields = |headers: &http::HeaderMap| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    };
    assert_eq!(comparable(alone.clone()), comparable(fields(&bare)));
    assert_eq!(comparable(through.clone()), comparable(fields(&login.headers)));
    assert_eq!(comparable(got.clone()), comparable(received(&page.body)));
}

/// A login at the application itself.
async fn plain_login(address: std::net::SocketAddr, body: &'static str) -> http::HeaderMap {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/login").header("host", "localhost").body(Full::<bytes::Bytes>::from(body)).unwrap();
    sender.send_request(request).await.unwrap().headers().clone()
}
