//! `multipart/form-data` (RFC 7578), as strictly as browsers write it. Applications differ in what else
//! they make of it, so nothing else is read.

use crate::policy::login::Unreadable;
use crate::policy::login::body::Form;

/// A field value with parameters: `type/subtype; name=value; …`, names in lower case (RFC 9110 8.3.1).
/// Quotes stand around a whole value or not at all; what would need a backslash is not read.
pub(super) struct Parameterised {
    /// What stands in front, in lower case.
    pub(super) essence: String,
    options: Vec<(String, String)>,
}

impl Parameterised {
    /// Reads a field value.
    ///
    /// # Errors
    /// When it could be taken apart in several ways.
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.contains('\\') || text.contains(|character: char| character.is_control() && character != '\t') {
            return Err(Unreadable::Encoding);
        }
        let mut pieces = split_unquoted(text).into_iter();
        let essence = pieces.next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut options = Vec::new();
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').ok_or(Unreadable::Encoding)?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Unreadable::Encoding);
            }
            options.push((name.to_ascii_lowercase(), unquote(value)?.to_owned()));
        }
        Ok(Self { essence, options })
    }

    /// The one value of an option.
    ///
    /// # Errors
    /// When it is there twice.
    pub(super) fn option(&self, wanted: &str) -> Result<Option<&str>, Unreadable> {
        let mut values = self.options.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() { Err(Unreadable::Malformed) } else { Ok(value) }
    }

    /// Whether it has no other options than these.
    fn has_only(&self, known: &[&str]) -> bool {
        self.options.iter().all(|(name, _)| known.contains(&name.as_str()))
    }
}

/// Pieces between `;` that are not in quotes.
fn split_unquoted(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|character| {
        quoted ^= character == '"';
        character == ';' && !quoted
    })
    .collect()
}

fn unquote(value: &str) -> Result<&str, Unreadable> {
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let is_whole = match quoted {
        Some(inner) => !inner.contains('"'),
        // Some take an apostrophe for a quote.
        None => value.bytes().all(|byte| is_token(byte) && byte != b'\''),
    };
    if is_whole { Ok(quoted.unwrap_or(value)) } else { Err(Unreadable::Encoding) }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The fields of a form: every part must have what it needs, and the end must be there.
///
/// # Errors
/// When anything about it is not as browsers write it.
pub(super) fn read(kind: &Parameterised, body: &[u8]) -> Result<Form, Unreadable> {
    // Some take the first thing that looks like a boundary.
    if !kind.has_only(&["boundary", "charset"]) {
        return Err(Unreadable::Encoding);
    }
    let boundary = kind.option("boundary")?.ok_or(Unreadable::Malformed)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(&byte);
    if boundary.is_empty() || boundary.len() > 70 || !boundary.bytes().all(is_plain) {
        return Err(Unreadable::Malformed);
    }
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let opening = &delimiter[2..];
    let mut rest = body.strip_prefix(opening).ok_or(Unreadable::Malformed)?;
    let mut form = Form::default();
    while !matches!(rest, b"--" | b"--\r\n") {
        rest = rest.strip_prefix(b"\r\n").ok_or(Unreadable::Malformed)?;
        let end = find(rest, &delimiter).ok_or(Unreadable::Malformed)?;
        // Some end a part at a delimiter that no CRLF precedes.
        if find(&rest[..end], opening).is_some() {
            return Err(Unreadable::Malformed);
        }
        read_part(&rest[..end], &mut form)?;
        rest = &rest[end + delimiter.len()..];
    }
    Ok(form)
}

fn read_part(part: &[u8], form: &mut Form) -> Result<(), Unreadable> {
    let end = find(part, b"\r\n\r\n").ok_or(Unreadable::Malformed)?;
    let head = std::str::from_utf8(&part[..end]).map_err(|_| Unreadable::Malformed)?;
    let mut disposition = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or(Unreadable::Malformed)?;
        // White space in front continues the line before, to some.
        if field.is_empty() || !field.bytes().all(is_token) {
            return Err(Unreadable::Malformed);
        }
        let value = Parameterised::parse(value)?;
        match field.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(value),
            "content-disposition" => return Err(Unreadable::Malformed),
            "content-type" if !value.option("charset")?.is_none_or(is_utf8) => return Err(Unreadable::Encoding),
            "content-transfer-encoding" => return Err(Unreadable::Encoding),
            _ => {}
        }
    }
    let disposition = disposition.filter(|value| value.essence == "form-data").ok_or(Unreadable::Malformed)?;
    if !disposition.has_only(&["name", "filename", "filename*"]) {
        return Err(Unreadable::Malformed);
    }
    let name = disposition.option("name")?.ok_or(Unreadable::Malformed)?.replace("%22", "\"");
    // Not everyone takes both kinds of file name for a file.
    if disposition.option("filename")?.or(disposition.option("filename*")?).is_some() {
        form.shadows.push(name);
        return Ok(());
    }
    form.fields.push((name, String::from_utf8_lossy(&part[end + 4..]).into_owned()));
    Ok(())
}

/// Whether we decode this charset.
pub(super) fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(kind: &str, body: &str) -> Result<Vec<(String, String)>, Unreadable> {
        read(&Parameterised::parse(kind)?, body.as_bytes()).map(|form| form.fields)
    }

    fn part(head: &str, value: &str) -> String {
        format!("--b\r\n{head}\r\n\r\n{value}\r\n--b--\r\n")
    }

    const NAMED: &str = "Content-Disposition: form-data; name=\"user\"";

    #[test]
    fn what_browsers_and_clients_write_is_read() {
        let alice = Ok(vec![("user".to_owned(), "alice".to_owned())]);
        for kind in ["multipart/form-data; boundary=b", "multipart/form-data; boundary=\"b\"; charset=utf-8"] {
            assert_eq!(read_as(kind, &part(NAMED, "alice")), alice, "{kind}");
        }
        for head in [
            "content-disposition: form-data; name=user",
            "Content-Disposition:form-data;name=\"user\"",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"user\"",
        ] {
            assert_eq!(read_as("multipart/form-data; boundary=b", &part(head, "alice")), alice, "{head}");
        }
    }

    #[test]
    fn what_some_application_reads_in_another_way_is_refused() {
        // product 3.5: PHP reads each of these as something else than the letter of the RFC says.
        let kind = "multipart/form-data; boundary=b";
        for head in [
            "Content-Disposition: form-data; name='user'",
            "Content-Disposition: form-data; name=\"us\\er\"",
            "Content-Disposition: form-data; name=us\"er\"",
            "Content-Disposition: form-data; name =\"user\"",
            "Content-Disposition: form-data; name=\"user\"; name=\"x\"",
            "Content-Disposition: form-data; name=\"x\"; name*=utf-8''user",
            "Content-Disposition: form-data; name=\"x\"\r\n ; x:; name=\"user\"",
            "Content-Disposition: form-data; name=\"x\"\n\nContent-Disposition: form-data; name=\"user\"",
            "Content-Disposition : form-data; name=\"user\"",
            "Content-Disposition: attachment; name=\"user\"",
            "Content-Type: text/plain",
        ] {
            assert!(read_as(kind, &part(head, "alice")).is_err(), "{head}");
        }
        for kind in ["xboundary=c; boundary=b", "boundary=b,c", "boundary=\"b,c\"", "boundary=b; boundary=b", "x=y"] {
            let body = part(NAMED, "alice");
            assert!(read_as(&format!("multipart/form-data; {kind}"), &body).is_err(), "{kind}");
        }
        for body in [
            part(NAMED, &format!("x\n--b\n{NAMED}\n\nbob")),
            format!("{}--b\r\n{NAMED}\r\n\r\nbob\r\n--b--", part(NAMED, "alice")),
            format!("preamble\r\n{}", part(NAMED, "alice")),
        ] {
            assert!(read_as(kind, &body).is_err(), "{body}");
        }
    }

    #[test]
    fn files_are_no_fields_but_remembered() {
        let body = part("Content-Disposition: form-data; name=\"user\"; filename*=x", "bob");
        let form = read(&Parameterised::parse("multipart/form-data; boundary=b").unwrap(), body.as_bytes()).unwrap();
        assert_eq!((form.fields, form.shadows), (Vec::new(), vec!["user".to_owned()]));
    }
}
