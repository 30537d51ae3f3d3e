//! Client certificates: whose one is (RFC 5280 4.1.2.6), and what the application is told of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;

use crate::policy::session::UserName;

/// The certificate that a client has proved to be its own.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    name: Option<HeaderValue>,
}

impl Certificate {
    /// Of a verified certificate its bytes, those of its subject, and its names of hosts and URIs.
    /// Its name is the subject's common name, else its only other one. Two of a kind are none.
    pub fn new(der: &[u8], subject: &[u8], others: &[&str]) -> Self {
        let name = match (common_names(subject).as_deref(), others) {
            (Some([]), [only]) => Some((*only).to_owned()),
            (Some([only]), _) => only.clone(),
            (Some(_) | None, _) => None,
        };
        let name = name.and_then(|name| UserName::parse(&name).ok());
        Self { der: der.to_vec(), name: name.map(|name| name.header_value()) }
    }

    /// What the header of this name says: `Client-Cert` is the whole certificate (RFC 9440 2.2), any
    /// other the name, if there is one.
    pub fn header_value(&self, header: &HeaderName) -> Option<HeaderValue> {
        if header == "client-cert" {
            return HeaderValue::try_from(format!(":{}:", STANDARD.encode(&self.der))).ok();
        }
        self.name.clone()
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// All of them, `None` for one in an alphabet that nobody should use; `None` for what is no subject.
fn common_names(subject: &[u8]) -> Option<Vec<Option<String>>> {
    let mut names = Vec::new();
    let mut sets = subject;
    while !sets.is_empty() {
        let (mut pairs, rest) = element(sets, SET)?;
        sets = rest;
        while !pairs.is_empty() {
            let (pair, rest) = element(pairs, SEQUENCE)?;
            pairs = rest;
            let (attribute, value) = element(pair, OBJECT_IDENTIFIER)?;
            if attribute == COMMON_NAME {
                let alphabet = *value.first()?;
                let (text, _) = element(value, alphabet)?;
                names.push(decode(alphabet, text));
            }
        }
    }
    Some(names)
}

fn decode(alphabet: u8, text: &[u8]) -> Option<String> {
    match alphabet {
        UTF8_STRING => String::from_utf8(text.to_vec()).ok(),
        PRINTABLE_STRING | IA5_STRING if text.is_ascii() => String::from_utf8(text.to_vec()).ok(),
        BMP_STRING => {
            let (units, rest) = text.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok())?
        }
        _ => None,
    }
}

/// The content of the first element, which must have this tag, and what follows it (X.690 8.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (length, der) = match first {
        short @ ..=0x7f => (usize::from(short), der),
        0x81 => der.split_first().map(|(&length, der)| (usize::from(length), der))?,
        0x82 => der.split_first_chunk().map(|(length, der)| (usize::from(u16::from_be_bytes(*length)), der))?,
        _ => return None,
    };
    if found == tag { der.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            length @ 0..128 => bytes.push(length as u8),
            length @ 128..256 => bytes.extend([0x81, length as u8]),
            length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn attribute(kind: &[u8], alphabet: u8, text: &[u8]) -> Vec<u8> {
        der(SET, &der(SEQUENCE, &[der(OBJECT_IDENTIFIER, kind), der(alphabet, text)].concat()))
    }

    const COUNTRY: &[u8] = &[0x55, 0x04, 0x06];

    fn name(subject: &[u8], others: &[&str]) -> Option<String> {
        let value = Certificate::new(b"x", subject, others).header_value(&HeaderName::from_static("x-client"))?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_certificate_has_one_name_or_none() {
        let cn = |alphabet, text: &[u8]| attribute(COMMON_NAME, alphabet, text);
        let alice = cn(UTF8_STRING, b"alice");
        let country = attribute(COUNTRY, PRINTABLE_STRING, b"DE");
        for (subject, others, expected) in [
            (alice.clone(), &[][..], Some("alice")),
            ([country.clone(), alice.clone()].concat(), &["a.test"], Some("alice")),
            (cn(PRINTABLE_STRING, b"Alice Smith"), &[], Some("Alice Smith")),
            (cn(BMP_STRING, &[0, b'e', 0x30, 0x42]), &[], Some("e%E3%81%82")),
            (cn(UTF8_STRING, "\u{e9}".as_bytes()), &[], Some("%C3%A9")),
            (cn(UTF8_STRING, &[b'x'; 200]), &[], Some(&"x".repeat(200))),
            (country.clone(), &["spiffe://a.test/b"], Some("spiffe://a.test/b")),
            (Vec::new(), &["a.test"], Some("a.test")),
            // Which of two would be a guess.
            ([alice.clone(), alice.clone()].concat(), &[], None),
            (country, &["a.test", "b.test"], None),
            (Vec::new(), &[], None),
            // What is no text, no name, or no subject.
            (cn(UTF8_STRING, &[0xff]), &["a.test"], None),
            (cn(PRINTABLE_STRING, &[0xe9]), &["a.test"], None),
            (cn(BMP_STRING, b"odd"), &["a.test"], None),
            (cn(0x14, b"teletex"), &["a.test"], None),
            (cn(UTF8_STRING, b"alice\r\nx: y"), &["a.test"], None),
            (cn(UTF8_STRING, b""), &["a.test"], None),
            (cn(UTF8_STRING, &[b'x'; 300]), &["a.test"], None),
            (alice[..5].to_vec(), &["a.test"], None),
        ] {
            assert_eq!(name(&subject, others).as_deref(), expected, "{subject:?} {others:?}");
        }
    }

    #[test]
    fn client_cert_is_the_certificate_itself() {
        // RFC 9440 2.2
        let value = Certificate::new(b"\x30\x00\xff", &[], &[]).header_value(&HeaderName::from_static("client-cert"));
        assert_eq!(value.unwrap(), ":MAD/:");
    }

    proptest! {
        #[test]
        fn no_bytes_harm(subject in vec(any::<u8>(), 0..64)) {
            name(&subject, &[]);
        }
    }
}
