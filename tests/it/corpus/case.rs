//! What a case of the corpus says; `README.md` beside the cases describes how it is written.

use std::collections::VecDeque;
use std::path::Path;

/// One case: what is sent, what must be seen, and why.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub name: String,
    /// S- and VR-numbers.
    pub numbers: Vec<String>,
    /// Which sentence of which document decides.
    pub reason: String,
    /// `>` and `!`: what the client does.
    pub client: Vec<String>,
    /// `>>`: what the application must receive.
    pub received: Vec<String>,
    /// `<<`: what the application answers.
    pub answers: Vec<String>,
    /// `<`: what the client must see.
    pub seen: Vec<String>,
    /// `=`: how it ends, for the client and for the connection to the application.
    pub ends: Vec<String>,
}

/// All cases of a file.
pub fn read(path: &Path) -> Vec<Case> {
    parse(&std::fs::read_to_string(path).unwrap())
}

/// All cases of a text.
pub fn parse(text: &str) -> Vec<Case> {
    let (mut cases, mut common): (Vec<Case>, _) = (Vec::new(), String::new());
    let mut is_common = false;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(text) = line.strip_prefix("--- ") {
            (common, is_common) = (text.to_owned(), true);
        } else if let Some(title) = line.strip_prefix("=== ") {
            let (name, numbers) = title.split_once(" | ").unwrap_or_else(|| panic!("{title}: no numbers"));
            let numbers = numbers.split(' ').map(str::to_owned).collect();
            let reason = common.clone();
            cases.push(Case { name: name.to_owned(), numbers, reason, ..Case::default() });
            is_common = false;
        } else if is_common {
            common.push_str(line);
        } else if let Some(case) = cases.last_mut() {
            case.add(line);
        }
    }
    cases
}

impl Case {
    fn add(&mut self, line: &str) {
        let (mark, text) = line.split_once(' ').unwrap_or((line, ""));
        let lines = match mark {
            "" => return,
            ">" => &mut self.client,
            "!" => {
                self.client.push(format!("! {text}"));
                return;
            }
            ">>" => &mut self.received,
            "<<" => &mut self.answers,
            "<" => &mut self.seen,
            "=" => {
                self.ends.extend(text.split(", ").map(str::to_owned));
                return;
            }
            _ => {
                assert!(self.client.is_empty(), "{}: {line:?} is no line of a case", self.name);
                self.reason.push_str(line);
                return;
            }
        };
        lines.push(text.to_owned());
    }

    /// Whether it says all that a case must: one that expects nothing would prove nothing.
    pub fn check(&self) {
        let Self { name, numbers, reason, client, received, seen, ends, .. } = self;
        let is_number = |number: &String| {
            let digits = number.strip_prefix("VR-").or_else(|| number.strip_prefix('S'));
            digits.is_some_and(|digits| digits.parse::<u16>().is_ok())
        };
        assert!(!numbers.is_empty() && numbers.iter().all(is_number), "{name}: {numbers:?}");
        assert!(reason.len() > 20, "{name}: no reason");
        assert!(
            !client.is_empty() && !received.is_empty() && !seen.is_empty() && !ends.is_empty(),
            "{name}: too little"
        );
    }

    /// What is sent and expected, to find cases that are there twice.
    pub fn essence(&self) -> String {
        [&self.client, &self.answers, &self.received].map(|lines| lines.join("\n")).join("\n\n")
    }

    /// Whether it ends like this.
    pub fn ends(&self, how: &str) -> bool {
        self.ends.iter().any(|found| found == how)
    }
}

/// The bytes of a line. It ends with CRLF unless a backslash is its last character.
pub fn bytes_of(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest: VecDeque<char> = repeated(line).chars().collect();
    while let Some(next) = rest.pop_front() {
        let byte = match (next, rest.front()) {
            ('\\', None) => return bytes,
            ('\\', Some('x')) => {
                let digits: String = rest.drain(..3).skip(1).collect();
                u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("{line}"))
            }
            ('\\', Some(_)) => match rest.pop_front() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('s') => b' ',
                Some('\\') => b'\\',
                other => panic!("{line}: {other:?}"),
            },
            (other, _) => {
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        bytes.push(byte);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// `{3*ab}` is `ababab`.
fn repeated(line: &str) -> String {
    let Some((before, rest)) = line.split_once('{') else { return line.to_owned() };
    let Some((inside, after)) = rest.split_once('}') else { return line.to_owned() };
    let inside = match inside.split_once('*').map(|(count, text)| (count.parse::<usize>(), text)) {
        Some((Ok(count), text)) => text.repeat(count),
        Some((Err(_), _)) | None => format!("{{{inside}}}"),
    };
    format!("{before}{inside}{}", repeated(after))
}

/// The bytes of lines.
pub fn bytes_of_all<'a>(lines: impl IntoIterator<Item = &'a String>) -> Vec<u8> {
    lines.into_iter().flat_map(|line| bytes_of(line)).collect()
}
