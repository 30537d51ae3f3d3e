//! The same with curl and its cookie jar, over HTTP/1.1 and HTTP/2.

use std::process::Command;

use crate::apps::App;
use crate::apps::Leave;
use crate::apps::PASSWORD;
use crate::apps::django::django;
use crate::apps::dokuwiki::dokuwiki;
use crate::support::Form;
use crate::support::Vestibule;
use crate::support::certificates;
use crate::support::link;
use crate::support::run;

/// A cookie jar, and the way to the proxy.
struct Curl<'a> {
    proxy: &'a Vestibule,
    version: &'static str,
    jar: tempfile::NamedTempFile,
}

impl Curl<'_> {
    /// The answer's body, with version and status in front of it.
    fn ask(&self, path: &str, more: &[String]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20"]);
        curl.args([self.version, "--connect-to", &format!("app.test:443:{}", self.proxy.https)]);
        curl.arg("--cacert").arg(&certificates().ca);
        curl.arg("--cookie").arg(self.jar.path()).arg("--cookie-jar").arg(self.jar.path());
        curl.args(["--write-out", "\n%{http_version} %{response_code}"]).args(more);
        run(curl.arg(format!("https://app.test{path}")))
    }

    fn get(&self, path: &str) -> String {
        // Whoever has a cookie says where a request comes from, as browsers do.
        self.ask(path, &["--referer".to_owned(), "https://app.test/".to_owned()])
    }

    fn post(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let fields = fields.iter().flat_map(|(name, value)| ["--data-urlencode".to_owned(), format!("{name}={value}")]);
        let origin = ["--header".to_owned(), "Origin: https://app.test".to_owned()];
        self.ask(path, &origin.into_iter().chain(fields).collect::<Vec<_>>())
    }
}

async fn fetch(app: &App) {
    let (relay, proxy, _) = app.behind_vestibule().await;
    for (version, shown) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let curl = Curl { proxy: &proxy, version, jar: tempfile::NamedTempFile::new().unwrap() };
        assert!(curl.get(app.private).ends_with(&format!("\n{shown} 401")));

        let form = Form::with(&curl.get(app.login_page), "type=[\"']password");
        let typed = [(app.user_field.unwrap(), "alice"), (app.password_field, PASSWORD)];
        assert!(curl.post(&app.path(&form.action), &form.filled(&typed)).ends_with(&format!("\n{shown} 302")));
        let page = curl.get(app.private);
        assert!(page.contains(app.shows) && page.ends_with(&format!("\n{shown} 200")), "{page}");
        assert!(relay.saw("\r\nx-forwarded-user: alice\r\n"));

        match app.leave {
            Leave::Link(text) => curl.get(&app.path(&link(&page, text))),
            Leave::Form => {
                let form = Form::with(&page, "logout");
                curl.post(&app.path(&form.action), &form.filled(&[]))
            }
            Leave::Path(path) => curl.get(path),
        };
        assert!(curl.get(app.private).ends_with(&format!("\n{shown} 401")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn djangos_admin_with_curl() {
    fetch(&django()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dokuwiki_with_curl() {
    fetch(&dokuwiki()).await;
}
