//! How applications read what a login sends. Each reader imitates one family with its quirks and
//! knows nothing of how we read: where two of them differ, a client could be one user to us and
//! another to the application.

use serde::Deserialize;
use serde_json::Value;

use super::decode;
use super::split_line;

/// A request as far as fields are read from it.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub content_type: &'a str,
    pub query: &'a str,
    pub body: &'a [u8],
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What each family of applications finds in the form's field; `None`: nothing, or no text.
pub fn form(sent: Sent<'_>, field: &str) -> Vec<(&'static str, Option<String>)> {
    let name = field.as_bytes();
    let query = urlencoded(sent.query.as_bytes(), b"&");
    let (body, pieces) = match sent.content_type.to_ascii_lowercase() {
        kind if kind.starts_with("application/x-www-form-urlencoded") => {
            (urlencoded(sent.body, b"&"), urlencoded(sent.body, b"&;"))
        }
        kind if kind.starts_with("multipart/form-data") => (multipart(sent), multipart(sent)),
        _ => Default::default(),
    };
    let merged: Fields = query.iter().chain(&body).cloned().collect();
    let readings = [
        ("PHP", php(&body, name)),
        ("PHP, query and body", php(&merged, name)),
        ("first", exactly(body.iter(), name)),
        ("last", exactly(body.iter().rev(), name)),
        ("query before body", exactly(merged.iter(), name)),
        ("semicolons, first", exactly(pieces.iter(), name)),
        ("semicolons, last", exactly(pieces.iter().rev(), name)),
        ("any case, first", whatever_case(body.iter(), name)),
        ("any case, last", whatever_case(body.iter().rev(), name)),
    ];
    readings.into_iter().map(|(family, value)| (family, value.as_deref().map(text))).collect()
}

/// What each family finds in the query.
pub fn query(sent: Sent<'_>, field: &str) -> Vec<(&'static str, Option<String>)> {
    let whole = form(sent, field).into_iter().filter(|(family, _)| family.contains("query"));
    let alone = form(Sent { body: sent.query.as_bytes(), content_type: URLENCODED, query: "" }, field);
    whole.chain(alone).collect()
}

/// What each family finds under a top-level name of a JSON document.
pub fn json(body: &[u8], name: &str) -> Vec<(&'static str, Option<String>)> {
    let Ok(Members(members)) = serde_json::from_slice(body) else { return Vec::new() };
    let go = |text: &str| text.chars().map(simple_fold).collect::<String>();
    let c = |text: &str| text.split('\0').next().unwrap_or("").to_ascii_lowercase();
    let find = |same: &dyn Fn(&str) -> bool| {
        let alike: Vec<_> = members.iter().filter(|(member, _)| same(member)).map(|(_, value)| scalar(value)).collect();
        (alike.first().cloned().flatten(), alike.last().cloned().flatten())
    };
    let (exact, folded, in_c) =
        (find(&|member| member == name), find(&|member| go(member) == go(name)), find(&|member| c(member) == c(name)));
    vec![
        ("first", exact.0),
        ("last", exact.1),
        ("Go: any case, last", folded.1),
        ("any case, first", folded.0),
        ("C strings, any case, first", in_c.0),
    ]
}

pub const URLENCODED: &str = "application/x-www-form-urlencoded";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn urlencoded(text: &[u8], separators: &[u8]) -> Fields {
    text.split(|byte| separators.contains(byte))
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let at = piece.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((piece, &[][..]), |at| (&piece[..at], &piece[at + 1..]));
            (decode(name, true), decode(value, true))
        })
        .collect()
}

fn exactly<'a>(mut fields: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>, name: &[u8]) -> Option<Vec<u8>> {
    fields.find(|(field, _)| field == name).map(|(_, value)| value.clone())
}

fn whatever_case<'a>(mut fields: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>, name: &[u8]) -> Option<Vec<u8>> {
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
}

/// PHP: names become variables (`user.name` and `user name` are `user_name`, `user[x]` is an element
/// of `user`), and a later one replaces an earlier one.
fn php(fields: &Fields, wanted: &[u8]) -> Option<Vec<u8>> {
    let wanted = php_path(wanted)?;
    let mut found = None;
    for (name, value) in fields {
        let Some(path) = php_path(name) else { continue };
        if path == wanted {
            found = Some(value.clone());
        } else if path.starts_with(&wanted) || wanted.starts_with(&path) {
            found = None;
        }
    }
    found
}

/// `php_register_variable_ex`: the variable, and the keys in brackets.
fn php_path(name: &[u8]) -> Option<Vec<Vec<u8>>> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = &name[name.iter().position(|byte| *byte != b' ')?..];
    let variable = |part: &[u8]| part.iter().map(|byte| if b" .[".contains(byte) { b'_' } else { *byte }).collect();
    let open = name.iter().position(|byte| *byte == b'[').filter(|open| name[*open..].contains(&b']'));
    let Some(open) = open else { return Some(vec![variable(name)]) };
    let mut path = vec![variable(&name[..open])];
    let mut rest = &name[open..];
    while let Some(inner) = rest.strip_prefix(b"[") {
        let Some(close) = inner.iter().position(|byte| *byte == b']') else { break };
        let key = &inner[..close];
        path.push(key[key.iter().take_while(|byte| **byte == b' ').count()..].to_vec());
        rest = &inner[close + 1..];
    }
    Some(path)
}

/// PHP's reader of `multipart/form-data`, the most lenient one: bare line feeds, folded lines, quotes of
/// both kinds, parts after the end.
fn multipart(sent: Sent<'_>) -> Fields {
    let mut fields = Vec::new();
    let Some(boundary) = lenient_boundary(sent.content_type) else { return fields };
    let delimiter = [b"--".as_slice(), boundary.as_bytes()].concat();
    let mut rest = sent.body;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        if line.strip_suffix(b"\r").unwrap_or(line) != delimiter {
            continue;
        }
        let disposition;
        (disposition, rest) = part_head(rest);
        let end = [b"\n".as_slice(), &delimiter].concat();
        let at = rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len());
        let value = rest[..at].strip_suffix(b"\r").unwrap_or(&rest[..at]);
        if let Some(name) = disposition.and_then(|line| field_name(&line)) {
            fields.push((name, value.to_vec()));
        }
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    fields
}

fn lenient_boundary(content_type: &str) -> Option<&str> {
    let at = content_type.to_ascii_lowercase().find("boundary")?;
    let (_, value) = content_type[at..].split_once('=')?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split([',', ';']).next(),
    }
}

/// The `Content-Disposition` of a part, unfolded, and what follows the empty line.
fn part_head(mut rest: &[u8]) -> (Option<Vec<u8>>, &[u8]) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        match lines.last_mut().filter(|_| line.starts_with(b" ") || line.starts_with(b"\t")) {
            Some(folded) => folded.extend_from_slice(line),
            None => lines.push(line.to_vec()),
        }
    }
    let wanted = b"content-disposition:";
    let is_disposition =
        |line: &Vec<u8>| line.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted));
    (lines.into_iter().find(is_disposition), rest)
}

/// The last `name`, unless the part is a file.
fn field_name(disposition: &[u8]) -> Option<Vec<u8>> {
    let mut name = None;
    let mut quote = None;
    let options = disposition.split(|byte| {
        match quote {
            Some(open) if open == *byte => quote = None,
            None if b"\"'".contains(byte) => quote = Some(*byte),
            Some(_) | None => {}
        }
        quote.is_none() && *byte == b';'
    });
    for option in options {
        let option = option.trim_ascii_start();
        let Some(at) = option.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (&option[..at], option[at + 1..].trim_ascii());
        if key.eq_ignore_ascii_case(b"filename") {
            return None;
        }
        if key.eq_ignore_ascii_case(b"name") {
            let quote = value.first().copied().filter(|first| b"\"'".contains(first));
            name = Some(match quote {
                Some(quote) => value[1..].split(|byte| *byte == quote).next().unwrap_or_default().to_vec(),
                None => value.to_vec(),
            });
        }
    }
    name
}

/// The case folding of Go's JSON decoder: the Kelvin sign and the long s are letters of ASCII.
fn simple_fold(character: char) -> char {
    match character {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The members of a JSON object, all of them.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}
