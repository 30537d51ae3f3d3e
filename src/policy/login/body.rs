//! Reading the body of a watched request: urlencoded, multipart and JSON, strictly. What the
//! application might read in another way than we do is refused, never guessed (product 3.5).

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use http::header;
use serde_json::Value;

use crate::policy::login::Unreadable;
use crate::policy::login::alias::fold;
use crate::policy::login::fields::Said;
use crate::policy::login::fields::between_semicolons;
use crate::policy::login::multipart;
use crate::policy::login::multipart::Parameterised;
use crate::policy::path::parameters;

/// What a watched request carries.
#[derive(PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// A form.
    Form(Form),
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

/// Fields of a form, and what else an application may find in it.
#[derive(Default, PartialEq, Eq)]
pub struct Form {
    /// The fields in order.
    pub(super) fields: Vec<(String, String)>,
    /// Names of what is no field to us, but may be one to the application: uploaded files, and what
    /// stands between semicolons.
    pub(super) shadows: Vec<String>,
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
    /// When its type, charset or coding is not one that we decode, or it is not what it says it is, or
    /// it could be read in another way.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Unreadable> {
        if body.is_empty() {
            return Ok(Self::Empty);
        }
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Unreadable::Encoding);
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let Some(value) = types.next() else { return Err(Unreadable::Type) };
        if types.next().is_some() {
            return Err(Unreadable::Encoding);
        }
        let kind = Parameterised::parse(value.to_str().map_err(|_| Unreadable::Encoding)?)?;
        if !kind.option("charset")?.is_none_or(multipart::is_utf8) {
            return Err(Unreadable::Encoding);
        }
        match kind.essence.as_str() {
            "application/x-www-form-urlencoded" => Ok(Self::Form(urlencoded(body)?)),
            "multipart/form-data" => Ok(Self::Form(multipart::read(&kind, body)?)),
            essence if essence == "application/json" || essence.ends_with("+json") => {
                Ok(Self::Json(serde_json::from_slice(body).map_err(|_| Unreadable::Malformed)?))
            }
            // Some servers take whatever looks like a form for one.
            essence if essence.contains("form") || essence.starts_with("multipart/") => Err(Unreadable::Encoding),
            _ => Err(Unreadable::Type),
        }
    }

    /// Whether a body of this type may have fields in it.
    pub fn may_have_fields(headers: &HeaderMap) -> bool {
        Self::read(headers, b"-") != Err(Unreadable::Type)
    }

    /// The text or number that a JSON pointer (RFC 6901) leads to.
    ///
    /// # Errors
    /// When two members on the way have the same name after case folding: applications differ in
    /// which one they take.
    pub fn json(&self, pointer: &str) -> Result<Said, Unreadable> {
        let mut place = match self {
            Self::Json(json) => json,
            Self::Empty | Self::Form(_) => return Ok(Said::Nothing),
        };
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match place {
                Json::Object(members) => match member(members, &token)? {
                    Some((name, _)) if *name != token => return Ok(Said::Alike),
                    found => found.map(|(_, value)| value),
                },
                Json::Array(items) => token.parse::<usize>().ok().and_then(|place| items.get(place)),
                Json::Scalar(_) | Json::Other => None,
            };
            let Some(next) = next else { return Ok(Said::Nothing) };
            place = next;
        }
        Ok(match place {
            Json::Scalar(text) => Said::Value(text.clone()),
            // Some applications take the one element of a list for a text.
            Json::Array(_) | Json::Object(_) => Said::Alike,
            Json::Other => Said::Nothing,
        })
    }
}

impl Json {
    /// The text or number that it is.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(text) => Some(text),
            Self::Object(_) | Self::Array(_) | Self::Other => None,
        }
    }
}

/// The one member that may be taken for the wanted one.
fn member<'a>(members: &'a [(String, Json)], wanted: &str) -> Result<Option<&'a (String, Json)>, Unreadable> {
    let folded = fold(wanted);
    let mut alike = members.iter().filter(|(name, _)| fold(name) == folded);
    let found = alike.next();
    if alike.next().is_some() { Err(Unreadable::DuplicateField) } else { Ok(found) }
}

fn urlencoded(body: &[u8]) -> Result<Form, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::Malformed)?;
    let fields: Vec<_> = parameters(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    // U+FFFD stands for bytes that are no UTF-8: the application may read another name. Values are looked
    // at one by one: a password may be in the application's own charset.
    if fields.iter().any(|(name, _)| name.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(Unreadable::Encoding);
    }
    Ok(Form { fields, shadows: between_semicolons(text).map(Cow::into_owned).collect() })
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

    fn form(fields: &[(&str, &str)], shadows: &[&str]) -> Body {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Body::Form(Form { fields, shadows: shadows.iter().map(|name| (*name).to_owned()).collect() })
    }

    const PART: &str = "--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nalice\r\n--b--\r\n";

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let urlencoded = read("application/x-www-form-urlencoded", b"user=al+ice&p=%C3%A9&&x").unwrap();
        assert_eq!(urlencoded, form(&[("user", "al ice"), ("p", "\u{e9}"), ("x", "")], &[]));
        assert_eq!(read("multipart/form-data; boundary=b", PART.as_bytes()).unwrap(), form(&[("user", "alice")], &[]));
        let quoted = "--b\r\ncontent-disposition: form-data; name=\"a;b\"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n1\r\n\
                      --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n\x00\r\n--b--";
        assert_eq!(
            read("multipart/form-data; boundary=\"b\"", quoted.as_bytes()).unwrap(),
            form(&[("a;b", "1")], &["f"])
        );
    }

    #[test]
    fn what_we_do_not_decode_is_refused() {
        // product 3.5
        let encoding = Some(Unreadable::Encoding);
        let malformed = Some(Unreadable::Malformed);
        for (content_type, body, expected) in [
            ("text/plain", "user=alice", Some(Unreadable::Type)),
            ("application/x-www-form-urlencoded2", "user=alice", encoding),
            ("multipart/mixed; boundary=b", PART, encoding),
            ("application/x-www-form-urlencoded; charset=utf-7", "user=alice", encoding),
            ("application/x-www-form-urlencoded; charset=UTF-8", "user=alice", None),
            ("application/x-www-form-urlencoded", "us%ffr=alice", encoding),
            ("application/x-www-form-urlencoded", "user=%ff", None),
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
        assert_eq!(Body::read(&HeaderMap::new(), b"x").err(), Some(Unreadable::Type));
    }

    #[test]
    fn json_members_of_equal_name_are_in_doubt() {
        let value = |text: &str| Ok(Said::Value(text.to_owned()));
        for (body, pointer, expected) in [
            (r#"{"a":{"user":"alice"}}"#, "/a/user", value("alice")),
            (r#"{"user":7}"#, "/user", value("7")),
            (r#"["x"]"#, "/0", value("x")),
            (r#"{"user":null}"#, "/user", Ok(Said::Nothing)),
            (r#"{"user":["alice"]}"#, "/user", Ok(Said::Alike)),
            (r#"{"User":"alice"}"#, "/user", Ok(Said::Alike)),
            (r#"{"user":"a","user":"b"}"#, "/user", Err(Unreadable::DuplicateField)),
            (r#"{"user":"a","USER":"b"}"#, "/user", Err(Unreadable::DuplicateField)),
            ("{\"user\":\"a\",\"u\u{17f}er\":\"b\"}", "/user", Err(Unreadable::DuplicateField)),
            (r#"{"user":"a","user\u0000":"b"}"#, "/user", Err(Unreadable::DuplicateField)),
        ] {
            assert_eq!(read("application/json", body.as_bytes()).unwrap().json(pointer), expected, "{body}");
        }
    }

    #[test]
    fn nothing_typed_is_printed() {
        // S161
        assert_eq!(format!("{:?}", form(&[("password", "hunter2")], &[])), "Form(..)");
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
            let form = Form { fields: fields.clone(), shadows: Vec::new() };
            let expected = if text.is_empty() { Body::Empty } else { Body::Form(form) };
            let clean = fields.iter().all(|(_, value)| !value.contains('\u{fffd}'));
            prop_assume!(clean);
            prop_assert_eq!(read("application/x-www-form-urlencoded", text.as_bytes()).unwrap(), expected);
        }
    }
}
