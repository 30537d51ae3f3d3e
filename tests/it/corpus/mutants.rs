//! The cases of the corpus, slightly changed: what they mean then is nobody's business, but what holds for every
//! connection must still hold. The same changes each time; the fuzz targets make others.

use super::case::Case;
use super::cases;
use super::http1;
use crate::invariants::connections;

/// Numbers that look as if they were random, and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// What is put in where it may matter.
const PIECES: [&str; 16] = [
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    ":",
    "0",
    "\r\n\r\n",
    "0\r\n\r\n",
    "Content-Length: 5\r\n",
    "chunked",
    ";",
    ",",
    "Transfer-Encoding: chunked\r\n",
    "GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n",
];

/// These bytes with one change, or joined with others in their midst.
fn changed(bytes: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = numbers.below(bytes.len());
    let end = (at + 1 + numbers.below(12)).min(bytes.len());
    let at = at.min(end);
    match numbers.below(6) {
        0 if at < end => bytes[at] ^= 1 << numbers.below(8),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        3 => drop(bytes.splice(at..end, other[numbers.below(other.len())..].iter().copied())),
        4 => bytes.extend_from_slice(other),
        _ => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].bytes())),
    }
    bytes
}

/// A change of each of these, each joined with one from elsewhere.
fn changes(originals: &[Vec<u8>]) -> impl Iterator<Item = Vec<u8>> {
    let mut numbers = Numbers(0x5eed);
    originals.iter().map(move |bytes| changed(bytes, &originals[numbers.below(originals.len())], &mut numbers))
}

fn small(cases: &[Case], bytes: impl Fn(&Case) -> Vec<u8>) -> Vec<Vec<u8>> {
    let all = cases.iter().map(bytes);
    all.filter(|bytes| (1..4096).contains(&bytes.len())).collect()
}

#[test]
fn changed_requests_reach_the_application_as_they_were_judged() {
    let originals = small(&cases("http1"), http1::sent);
    assert!(originals.len() > 300);
    for bytes in changes(&originals) {
        println!("{}", bytes.escape_ascii());
        connections::check_requests(&bytes);
    }
}

#[test]
fn changed_answers_are_taken_for_no_other() {
    let originals = small(&cases("http1"), http1::answered);
    assert!(originals.len() > 100);
    for (number, bytes) in changes(&originals).enumerate() {
        // GET, HEAD and POST by turns, every other connection ended.
        let how = (number % 3) as u8 + if number % 2 == 0 { 0x80 + 1 } else { 0 };
        println!("{how} {}", bytes.escape_ascii());
        connections::check_answers(&[&[how], &bytes[..]].concat());
    }
}
