//! What a Redis is asked, counted: a change that asks more than before shows here.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::redis::Redis;
use crate::support::redis::vestibule_at;

/// What keys of sessions, and of what lists them, begin with.
const SESSIONS: [&str; 5] = ["s:", "i:", "n:", "u:", "sites"];

/// What those begin with under which attempts to log in are counted.
const ATTEMPTS: &str = "t:";

/// What a sweep asks, which comes when it comes.
const SWEEP: [&str; 2] = ["SMEMBERS", "ZRANGEBYSCORE"];

/// All that a Redis is asked from now on.
struct Questions(BufReader<TcpStream>);

impl Questions {
    fn of(redis: &Redis) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut questions = Self(BufReader::new(stream));
        assert_eq!(questions.line(), "+OK\r\n");
        questions
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Those since the last call, without what scripts ask themselves.
    fn since(&mut self, redis: &Redis) -> Asked {
        redis.say(&["ECHO", "so far"]);
        let mut asked = Asked::default();
        loop {
            let line = self.line();
            // +1700000000.000000 [0 127.0.0.1:50000] "EVALSHA" "…" "1" "vestibule:s:…"
            let (from, words) = line.split_once("] \"").unwrap();
            let command = words.split('"').next().unwrap().to_uppercase();
            if command == "ECHO" {
                return asked;
            }
            let is_about = |start: &str| words.contains(&format!("\"vestibule:{start}"));
            if from.ends_with("lua") || SWEEP.contains(&command.as_str()) {
                continue;
            } else if is_about(ATTEMPTS) {
                asked.of_attempts += 1;
            } else if SESSIONS.into_iter().any(is_about) && command == "HGETALL" {
                asked.reads += 1;
            } else if SESSIONS.into_iter().any(is_about) {
                asked.changes.push(command);
            }
        }
    }
}

/// What was asked meanwhile.
#[derive(Debug, Default)]
struct Asked {
    /// Commands that change sessions.
    changes: Vec<String>,
    /// Commands that read one.
    reads: usize,
    /// Commands about attempts to log in.
    of_attempts: usize,
}

fn moved(browser: &Browser, to: &Vestibule) -> Browser {
    let mut moved = to.browser();
    moved.cookies = browser.cookies.clone();
    moved
}

/// What is asked on the way from a login to a logout.
async fn asked_on_the_way() -> Vec<(&'static str, Asked)> {
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let url = redis.url();
    let at = || vestibule_at(&url, "", &app, SITE);
    let (one, two) = (at().await, at().await);
    let (mut questions, mut browser) = (Questions::of(&redis), one.browser());
    let mut asked = Vec::new();
    let mut so_far = |what| asked.push((what, questions.since(&redis)));

    browser.log_in("alice").await;
    so_far("a login");
    browser.get("/").await;
    browser.get("/").await;
    so_far("its first two requests");
    browser.get("/").await;
    browser.get("/").await;
    so_far("further requests");
    let mut there = moved(&browser, &two);
    there.get("/").await;
    there.get("/").await;
    so_far("two at another node");
    one.advance(Duration::from_secs(16 * 60));
    let before = browser.session();
    browser.get("/").await;
    assert_ne!(browser.session(), before);
    so_far("a new ID");
    browser.get("/").await;
    so_far("its first use");
    browser.get("/").await;
    so_far("its second use");
    browser.get("/").await;
    so_far("its third use");
    browser.log_in("alice").await;
    so_far("another login");
    browser.get("/logout").await;
    so_far("a logout");
    asked
}

/// What changes sessions; how many reads at most: one that is overtaken by the word that this node itself has
/// changed the record a moment before is not kept, and done again; how many commands count attempts.
const EXPECTED: [(&str, &str, usize, usize); 10] = [
    // Together: the index of sites, of the site, of the user. Then the record. Of attempts: three are read, two
    // changed, and then all that again.
    ("a login", "SADD ZADD EVALSHA EVALSHA", 0, 10),
    ("its first two requests", "", 2, 0),
    ("further requests", "", 0, 0),
    ("two at another node", "", 1, 0),
    // Activity after a long pause is written at once.
    ("a new ID", "EVALSHA EVALSHA", 1, 0),
    ("its first use", "EVALSHA", 2, 0),
    ("its second use", "", 1, 0),
    ("its third use", "", 0, 0),
    // The old record; what lists it, together; then as any login.
    ("another login", "EVALSHA ZREM ZREM EVALSHA SADD ZADD EVALSHA EVALSHA", 0, 10),
    ("a logout", "EVALSHA ZREM ZREM EVALSHA", 1, 0),
];

fn is_expected(asked: &[(&str, Asked)]) -> bool {
    asked.len() == EXPECTED.len()
        && asked.iter().zip(EXPECTED).all(|((what, asked), (of, changes, reads, attempts))| {
            *what == of && asked.changes.join(" ") == changes && asked.reads <= reads && asked.of_attempts == attempts
        })
}

/// A node that stood still for a second believes nothing and reads again, and activity is written after five:
/// a machine that is busy elsewhere asks more once, a change that asks more does so every time.
#[tokio::test]
async fn nothing_asks_more_than_it_must() {
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked = asked_on_the_way().await;
        if is_expected(&asked) {
            return;
        }
    }
    panic!("{asked:#?}");
}
