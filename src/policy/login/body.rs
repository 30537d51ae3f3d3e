//! Reading the body of a watched request: urlencoded, multipart and JSON, strictly. What the
//! application might read in another way than we do is refused, never guessed (product 3.5).

use std::fmt;

use http::HeaderMap;
use http::header;
use serde_json::Value;

use crate::policy::login::FieldCondition;
use crate::policy::login::Unreadable;
use crate::policy::path::parameters;

/// What a watched request carries.
#[derive(PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Fields of a form, in order.
    Form(Vec<(String, String)>),
    /// A JSON document.
    Json(Json),
}

// What is in a login request is nobody's to print.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Form(_) => "Form(..)",
            Self::Json(_) => "Json(..)",
        })
    }
}

/// A JSON value that remembers every member of its objects, also those of equal name.
#[derive(Clone, PartialEq, Eq)]
pub enum Json {
    /// An object.
    Object(Vec<(String, Json)>),
    /// An array.
    Array(Vec<Json>),
    /// A text or number, as text.
    Scalar(String),
    /// `null`, `true`, `false`.
    Other,
}

impl Body {
    /// Reads a body by its `Content-Type`.
    ///
    /// # Errors
    /// When its type, charset or coding is not one that we decode, or it is not what it says it is.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Unreadable> {
        if body.is_empty() {
            return Ok(Self::Empty);
        }
        if headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(Unreadable::Encoding);
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (types.next(), types.next()) else { return Err(Unreadable::Encoding) };
        let (essence, options) = media_type(value.to_str().map_err(|_| Unreadable::Encoding)?)?;
        let charset = option(&options, "charset")?.unwrap_or("utf-8");
        if !is_utf8(charset) {
            return Err(Unreadable::Encoding);
        }
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Ok(Self::Form(urlencoded(body)?)),
            "multipart/form-data" => {
                let boundary = option(&options, "boundary")?.ok_or(Unreadable::Malformed)?;
                Ok(Self::Form(multipart(boundary, body)?))
            }
            essence if essence == "application/json" || essence.ends_with("+json") => {
                Ok(Self::Json(serde_json::from_slice(body).map_err(|_| Unreadable::Malformed)?))
            }
            _ => Err(Unreadable::Encoding),
        }
    }

    /// Whether a form field (or a top-level JSON member) meets the condition.
    pub fn meets(&self, condition: &FieldCondition) -> bool {
        let is = |name: &str, value: &str| {
            name == condition.name && condition.value.as_ref().is_none_or(|wanted| wanted == value)
        };
        match self {
            Self::Empty => false,
            Self::Form(fields) => fields.iter().any(|(name, value)| is(name, value)),
            Self::Json(Json::Object(members)) => {
                members.iter().any(|(name, value)| matches!(value, Json::Scalar(value) if is(name, value)))
            }
            Self::Json(Json::Array(_) | Json::Scalar(_) | Json::Other) => false,
        }
    }

    /// The values of a form field.
    pub fn fields<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a str> {
        let fields: &[(String, String)] = match self {
            Self::Form(fields) => fields,
            Self::Empty | Self::Json(_) => &[],
        };
        fields.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// The text or number that a JSON pointer (RFC 6901) leads to.
    ///
    /// # Errors
    /// When two members on the way have the same name after case folding: applications differ in
    /// which one they take.
    pub fn json(&self, pointer: &str) -> Result<Option<&str>, Unreadable> {
        let mut place = match self {
            Self::Json(json) => json,
            Self::Empty | Self::Form(_) => return Ok(None),
        };
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match place {
                Json::Object(members) => member(members, &token)?,
                Json::Array(items) => token.parse::<usize>().ok().and_then(|place| items.get(place)),
                Json::Scalar(_) | Json::Other => None,
            };
            let Some(next) = next else { return Ok(None) };
            place = next;
        }
        Ok(match place {
            Json::Scalar(text) => Some(text),
            Json::Object(_) | Json::Array(_) | Json::Other => None,
        })
    }
}

fn member<'a>(members: &'a [(String, Json)], wanted: &str) -> Result<Option<&'a Json>, Unreadable> {
    let folded = wanted.to_lowercase();
    let mut alike = members.iter().filter(|(name, _)| name.to_lowercase() == folded);
    let found = alike.next();
    if alike.next().is_some() {
        return Err(Unreadable::DuplicateField);
    }
    Ok(found.filter(|(name, _)| name == wanted).map(|(_, value)| value))
}

fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// `type/subtype; name=value; …`, names in lower case (RFC 9110 8.3.1).
fn media_type(text: &str) -> Result<(String, Vec<(String, String)>), Unreadable> {
    let mut pieces = split_quoted(text).into_iter();
    let essence = pieces.next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut options = Vec::new();
    for piece in pieces {
        if piece.trim().is_empty() {
            continue;
        }
        let (name, value) = piece.split_once('=').ok_or(Unreadable::Encoding)?;
        options.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
    }
    Ok((essence, options))
}

/// Pieces between `;` that are not in quotes.
fn split_quoted(text: &str) -> Vec<&str> {
    let (mut pieces, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        // Browsers write a quote as %22; older ones escape it.
        text.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    text
}

/// The one value of an option.
fn option<'a>(options: &'a [(String, String)], wanted: &str) -> Result<Option<&'a str>, Unreadable> {
    let mut values = options.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let value = values.next();
    if values.next().is_some() { Err(Unreadable::Malformed) } else { Ok(value) }
}

fn urlencoded(body: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?;
    let fields: Vec<_> = parameters(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    // U+FFFD stands for bytes that are no UTF-8: the application would read something else.
    let lossy = fields.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'));
    if lossy { Err(Unreadable::Encoding) } else { Ok(fields) }
}

/// `multipart/form-data` (RFC 7578): every part must have what it needs, and the end must be there.
fn multipart(boundary: &str, body: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
    if boundary.is_empty() || boundary.len() > 70 {
        return Err(Unreadable::Malformed);
    }
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let opening = &delimiter[2..];
    let mut rest = body.strip_prefix(opening).ok_or(Unreadable::Malformed)?;
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or(Unreadable::Malformed)?;
        let end = find(rest, &delimiter).ok_or(Unreadable::Malformed)?;
        fields.extend(part(&rest[..end])?);
        rest = &rest[end + delimiter.len()..];
    }
}

/// Name and value of one part; `None` for an uploaded file.
fn part(part: &[u8]) -> Result<Option<(String, String)>, Unreadable> {
    let end = find(part, b"\r\n\r\n").ok_or(Unreadable::Malformed)?;
    let head = std::str::from_utf8(&part[..end]).map_err(|_| Unreadable::Malformed)?;
    let mut name = None;
    let mut is_file = false;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or(Unreadable::Malformed)?;
        match field.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => {
                let (disposition, options) = media_type(value)?;
                if disposition != "form-data" || name.is_some() {
                    return Err(Unreadable::Malformed);
                }
                is_file = options.iter().any(|(option, _)| option == "filename" || option == "filename*");
                name = Some(option(&options, "name")?.ok_or(Unreadable::Malformed)?.replace("%22", "\""));
            }
            "content-type" => {
                let (_, options) = media_type(value)?;
                if !option(&options, "charset")?.is_none_or(is_utf8) {
                    return Err(Unreadable::Encoding);
                }
            }
            "content-transfer-encoding" => return Err(Unreadable::Encoding),
            _ => {}
        }
    }
    let name = name.ok_or(Unreadable::Malformed)?;
    if is_file {
        return Ok(None);
    }
    let value = std::str::from_utf8(&part[end + 4..]).map_err(|_| Unreadable::Encoding)?;
    Ok(Some((name, value.to_owned())))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> serde::de::Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Scalar(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Scalar(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Scalar(number.to_string()))
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}

/// The text or number that a pointer leads to in a document that the application wrote.
pub(super) fn text_at(document: &[u8], pointer: &str) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    match document.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(content_type: &str, body: &[u8]) -> Result<Body, Unreadable> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        Body::read(&headers, body)
    }

    fn form(fields: &[(&str, &str)]) -> Body {
        Body::Form(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    const PART: &str = "--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nalice\r\n--b--\r\n";

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let urlencoded = read("application/x-www-form-urlencoded", b"user=al+ice&p=%C3%A9&&x").unwrap();
        assert_eq!(urlencoded, form(&[("user", "al ice"), ("p", "\u{e9}"), ("x", "")]));
        assert_eq!(read("multipart/form-data; boundary=b", PART.as_bytes()).unwrap(), form(&[("user", "alice")]));
        let quoted = "--b\r\ncontent-disposition: form-data; name=\"a;b\"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n1\r\n\
                      --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n\x00\r\n--b--";
        assert_eq!(read("multipart/form-data; boundary=\"b\"", quoted.as_bytes()).unwrap(), form(&[("a;b", "1")]));
    }

    #[test]
    fn what_we_do_not_decode_is_refused() {
        // product 3.5
        let encoding = Some(Unreadable::Encoding);
        let malformed = Some(Unreadable::Malformed);
        for (content_type, body, expected) in [
            ("text/plain", "user=alice", encoding),
            ("application/x-www-form-urlencoded; charset=utf-7", "user=alice", encoding),
            ("application/x-www-form-urlencoded; charset=UTF-8", "user=alice", None),
            ("application/x-www-form-urlencoded", "user=%ff", encoding),
            ("multipart/form-data", PART, malformed),
            ("multipart/form-data; boundary=b; boundary=c", PART, malformed),
            ("multipart/form-data; boundary=b", &PART[..PART.len() - 6], malformed),
            ("multipart/form-data; boundary=c", PART, malformed),
            ("application/json", "{\"user\":", malformed),
            ("application/json", "{} {}", malformed),
            ("application/vnd.api+json", "{}", None),
        ] {
            assert_eq!(read(content_type, body.as_bytes()).err(), expected, "{content_type} {body}");
        }
        let coded = PART.replace("\r\n\r\nalice", "\r\nContent-Transfer-Encoding: base64\r\n\r\nalice");
        assert_eq!(read("multipart/form-data; boundary=b", coded.as_bytes()).err(), encoding);
        assert_eq!(Body::read(&HeaderMap::new(), b""), Ok(Body::Empty));
        assert_eq!(Body::read(&HeaderMap::new(), b"x").err(), encoding);
    }

    #[test]
    fn json_members_of_equal_name_are_in_doubt() {
        let body = |text: &str| read("application/json", text.as_bytes()).unwrap();
        assert_eq!(body("{\"a\":{\"user\":\"alice\"}}").json("/a/user"), Ok(Some("alice")));
        assert_eq!(body("{\"user\":7}").json("/user"), Ok(Some("7")));
        assert_eq!(body("[\"x\"]").json("/0"), Ok(Some("x")));
        assert_eq!(body("{\"User\":\"alice\"}").json("/user"), Ok(None));
        assert_eq!(body("{\"user\":\"a\",\"user\":\"b\"}").json("/user"), Err(Unreadable::DuplicateField));
        assert_eq!(body("{\"user\":\"a\",\"USER\":\"b\"}").json("/user"), Err(Unreadable::DuplicateField));
        assert_eq!(body("{\"user\":null}").json("/user"), Ok(None));
    }

    #[test]
    fn nothing_typed_is_printed() {
        // S161
        assert_eq!(format!("{:?}", form(&[("password", "hunter2")])), "Form(..)");
    }

    proptest! {
        #[test]
        fn reading_never_panics(kind in 0..3usize, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kinds = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json"];
            let _ = read(kinds[kind], &body);
        }

        #[test]
        fn what_a_form_serialises_is_read_back(fields in proptest::collection::vec(("[a-z]{1,6}", "\\PC{0,12}"), 0..5)) {
            let mut serializer = url::form_urlencoded::Serializer::new(String::new());
            serializer.extend_pairs(&fields);
            let text = serializer.finish();
            let expected = if text.is_empty() { Body::Empty } else { Body::Form(fields.clone()) };
            let clean = fields.iter().all(|(_, value)| !value.contains('\u{fffd}'));
            prop_assume!(clean);
            prop_assert_eq!(read("application/x-www-form-urlencoded", text.as_bytes()).unwrap(), expected);
        }
    }
}
