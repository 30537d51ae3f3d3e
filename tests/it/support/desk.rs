//! The admin interface, asked by curl.

use std::process::Command;

use serde_json::Value;
use vestibule::config::ListenAddress;

/// Where it is asked.
pub struct Desk(pub ListenAddress);

/// What it said.
#[derive(Debug)]
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Desk {
    pub fn get(&self, target: &str) -> Said {
        self.curl(target, &[])
    }

    pub fn delete(&self, target: &str) -> Said {
        self.curl(target, &["--request", "DELETE"])
    }

    /// With further arguments of curl.
    pub fn curl(&self, target: &str, more: &[&str]) -> Said {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "20"]).args(more);
        let url = match &self.0 {
            ListenAddress::Unix(path) => {
                curl.arg("--unix-socket").arg(path);
                format!("http://localhost{target}")
            }
            ListenAddress::Tcp(address) => format!("http://{address}{target}"),
        };
        let output = curl.arg(url).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Said { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The sessions that it lists, by user.
    pub fn sessions(&self, query: &str) -> Vec<Value> {
        let said = self.get(&format!("/sessions{query}"));
        assert_eq!(said.status, 200, "{said:?}");
        let mut sessions: Vec<Value> = said.json()["sessions"].as_array().unwrap().clone();
        sessions.sort_by_key(|session| session["user"].to_string());
        sessions
    }
}
