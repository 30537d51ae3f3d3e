//! The corpus: message after message as bytes on the wire, with what the client must see and exactly what
//! may reach the application (security.md 1.5 to 1.8). `README.md` says how cases are written.

mod application;
mod case;
mod hpack;
mod http1;
mod http2;
mod mutants;
mod place;

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;

use self::case::Case;
use self::place::Place;

/// The files of one protocol.
fn files(protocol: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus").join(protocol);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn cases(protocol: &str) -> Vec<Case> {
    files(protocol).iter().flat_map(|file| case::read(file)).collect()
}

#[test]
fn there_are_enough_cases_and_each_is_another() {
    for (protocol, least) in [("http1", 200), ("http2", 100)] {
        let cases = cases(protocol);
        assert!(cases.len() >= least, "{protocol}: {}", cases.len());
        let (mut names, mut essences) = (HashSet::new(), HashSet::new());
        for case in cases {
            case.check();
            assert!(names.insert(case.name.clone()), "two cases are called {}", case.name);
            assert!(essences.insert(case.essence()), "{} is there under another name", case.name);
        }
    }
}

/// What went wrong with the cases of one file, where this client speaks to the application.
async fn failures_of(file: &Path, client: &str) -> Vec<String> {
    let mut cases = case::read(file);
    // One case by its name, to look into it.
    if let Ok(name) = std::env::var("CORPUS_CASE") {
        cases.retain(|case| case.name.contains(&name));
    }
    let mut place = Place::with(client).await;
    let mut failures = Vec::new();
    for case in cases {
        let played = match file.parent().unwrap().ends_with("http1") {
            true => http1::play(&place, &case).await,
            false => http2::play(&place, &case).await,
        };
        if let Err(failure) = played {
            failures.push(format!("=== {} | {}\n{failure}\n", case.name, case.numbers.join(" ")));
            // What it left behind is no other case's concern.
            place = Place::with(client).await;
        }
    }
    failures
}

async fn hold(files: &[PathBuf], client: &str) {
    let failures = join_all(files.iter().map(|file| failures_of(file, client))).await.concat();
    assert!(failures.is_empty(), "{} cases failed\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn http_1_cases_hold() {
    hold(&files("http1"), "native").await;
}

#[tokio::test]
async fn http_1_cases_hold_for_the_librarys_client() {
    // It cannot tell whether an answer has begun.
    let is_told = |file: &PathBuf| !file.ends_with("halves.txt");
    let files: Vec<_> = files("http1").into_iter().filter(is_told).collect();
    hold(&files, "hyper").await;
}

#[tokio::test]
async fn http_2_cases_hold() {
    hold(&files("http2"), "native").await;
}

/// A case that holds, to be made wrong.
const RIGHT: &str = "=== right | S93
A sentence that says why it must be so.
> POST /x HTTP/1.1
> Host: app.test
> Content-Length: 5
>
> hello\\
>> POST /x HTTP/1.1
>> host: app.test
>> content-length: 5
>> {forwarding}
>>
>> hello\\
<< HTTP/1.1 200 OK
<< X-Name: a
<< Content-Length: 2
<<
<< ok\\
< HTTP/1.1 200 OK
< x-name: a
< content-length: 2
< {added}
<
< ok\\
= kept, upstream kept
";

#[tokio::test]
async fn a_case_that_is_wrong_fails() {
    assert_eq!(http1::play(&Place::open().await, &case::parse(RIGHT)[0]).await, Ok(()));
    for (right, wrong) in [
        (">> hello", ">> hellO"),
        (">> content-length: 5", ">> x-name: a\n>> content-length: 5"),
        (">> POST /x", ">> POST /y"),
        (">> POST /x HTTP/1.1", ">> GET /y HTTP/1.1\n>> host: app.test\n>>\n>> POST /x HTTP/1.1"),
        (">> hello\\\n", ">> hello\\\n>> {cut}\n"),
        ("< HTTP/1.1 200 OK\n< x-name", "< HTTP/1.1 200 Ok\n< x-name"),
        ("< x-name: a\n", ""),
        ("< x-name: a", "< x-name: b"),
        ("< ok", "< ko"),
        ("< {added}\n", ""),
        ("< HTTP/1.1 200 OK\n< x-name", "< 404\n< HTTP/1.1 200 OK\n< x-name"),
        ("<< ok", "<< o"),
        ("<< ok", "<< okok"),
        ("<< ok\\\n", "<< ok\\\n<< {close}\n"),
        ("> hello\\", "> hello\\\n> {hidden}"),
        ("> Content-Length: 5", "> Content-Length: 4"),
        ("> Content-Length: 5", "> Content-Length: 6"),
        ("= kept", "= closed"),
        ("= kept", "= cut"),
        ("upstream kept", "upstream closed"),
    ] {
        let text = RIGHT.replacen(right, wrong, 1);
        assert_ne!(text, RIGHT);
        let mut place = Place::open().await;
        // How long a wrong case takes to fail, and nothing else.
        place.application.patience = Duration::from_millis(300);
        assert!(http1::play(&place, &case::parse(&text)[0]).await.is_err(), "nobody notices {wrong:?}");
    }
}
