//! The browser's proofs: compact JWS (RFC 7515) of type `dbsc+jwt`, signed with ES256 or RS256.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use subtle::ConstantTimeEq;

use crate::policy::dbsc::Offer;
use crate::policy::dbsc::encoded;

/// More is no proof.
const LIMIT: usize = 4096;
/// Bytes of an RSA modulus: 2048 to 4096 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=512;
/// Bytes of an RSA exponent: larger ones only cost time.
const EXPONENT: usize = 4;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// Not one header field of the right form.
    #[error("no proof, or several")]
    Missing,
    /// No compact JWS with JSON in it, or a long one.
    #[error("not a signed token")]
    Form,
    /// Of another type, or with extensions that would have to be understood.
    #[error("a token of another kind")]
    Kind,
    /// `none`, another algorithm, or not the one that was registered.
    #[error("another algorithm")]
    Algorithm,
    /// No key where one belongs, one that fits no algorithm, or one where none belongs.
    #[error("a key that is not accepted")]
    Key,
    /// Not signed with the key.
    #[error("a wrong signature")]
    Signature,
    /// Signed for another address.
    #[error("another audience")]
    Audience,
    /// The challenge is not one that was issued, or no longer.
    #[error("another challenge")]
    Challenge,
    /// The one-time code of the login is another.
    #[error("another authorization")]
    Authorization,
}

impl BadProof {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "proof-missing",
            Self::Form => "form",
            Self::Kind => "kind",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Challenge => "challenge",
            Self::Authorization => "authorization",
        }
    }
}

/// A registered key.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on P-256, uncompressed, for ES256.
    Es256([u8; 65]),
    /// Modulus and exponent, for RS256.
    Rs256 {
        /// The modulus, big-endian.
        n: Vec<u8>,
        /// The exponent, big-endian.
        e: Vec<u8>,
    },
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm(), self.thumbprint())
    }
}

impl PublicKey {
    /// As in the `alg` of tokens.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Rs256 { .. } => "RS256",
        }
    }

    /// RFC 7638: for logs, and for comparing with what a device says.
    pub fn thumbprint(&self) -> String {
        let canonical = match self {
            Self::Es256(point) => {
                let (x, y) = point[1..].split_at(32);
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encoded(x), encoded(y))
            }
            Self::Rs256 { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encoded(e), encoded(n)),
        };
        encoded(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    }

    fn read(algorithm: &str, jwk: &Jwk<'_>) -> Result<Self, BadProof> {
        let bytes = |text: Option<&str>| text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        match (algorithm, jwk.kty) {
            ("ES256", "EC") if jwk.crv == Some("P-256") => {
                let (x, y) = bytes(jwk.x).zip(bytes(jwk.y)).ok_or(BadProof::Key)?;
                let point = [&[4][..], &x, &y].concat();
                let both = x.len() == 32 && y.len() == 32;
                let point = point.try_into().ok().filter(|_| both).ok_or(BadProof::Key)?;
                Ok(Self::Es256(point))
            }
            ("RS256", "RSA") => {
                let (n, e) = bytes(jwk.n).zip(bytes(jwk.e)).ok_or(BadProof::Key)?;
                let is_large = n.len() > *MODULUS.start() || n.first().is_some_and(|first| *first >= 0x80);
                let is_plain = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
                let fits = MODULUS.contains(&n.len()) && is_large && e.len() <= EXPONENT;
                if fits && is_plain(&n) && is_plain(&e) { Ok(Self::Rs256 { n, e }) } else { Err(BadProof::Key) }
            }
            ("ES256" | "RS256", _) => Err(BadProof::Key),
            _ => Err(BadProof::Algorithm),
        }
    }

    /// A point that is not on the curve, or a number that is no modulus, verifies nothing.
    fn verify(&self, token: &Token<'_>) -> Result<(), BadProof> {
        let verified = match self {
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(token.signed, &token.signature)
            }
            Self::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, token.signed, &token.signature)
            }
        };
        verified.map_err(|_| BadProof::Signature)
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(borrow)]
    jwk: Option<Jwk<'a>>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Jwk<'a> {
    kty: &'a str,
    crv: Option<&'a str>,
    x: Option<&'a str>,
    y: Option<&'a str>,
    n: Option<&'a str>,
    e: Option<&'a str>,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    authorization: Option<String>,
    aud: Option<String>,
}

/// A token that was taken apart; nothing in it is believed yet.
struct Token<'a> {
    header: Vec<u8>,
    claims: Vec<u8>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    fn read(text: &'a str) -> Option<Self> {
        if text.len() > LIMIT {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        Some(Self {
            header: decode(header)?,
            claims: decode(claims)?,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    fn header(&self) -> Result<Header<'_>, BadProof> {
        let header: Header<'_> = serde_json::from_slice(&self.header).map_err(|_| BadProof::Form)?;
        if header.typ == "dbsc+jwt" && header.crit.is_none() { Ok(header) } else { Err(BadProof::Kind) }
    }

    /// What was signed; the audience is said by few browsers, and then has to be right.
    fn claims(&self, audience: &str) -> Result<Claims, BadProof> {
        let claims: Claims = serde_json::from_slice(&self.claims).map_err(|_| BadProof::Form)?;
        if claims.aud.as_ref().is_none_or(|said| said == audience) { Ok(claims) } else { Err(BadProof::Audience) }
    }
}

/// A registration that answers its offer: only who has the offer writes one. Whether it is signed is open.
pub struct Answer<'a> {
    token: Token<'a>,
    key: PublicKey,
}

impl Answer<'_> {
    /// The key that it registers, if it is signed with that.
    ///
    /// # Errors
    /// It is not.
    pub fn verified(self) -> Result<PublicKey, BadProof> {
        self.key.verify(&self.token)?;
        Ok(self.key)
    }
}

/// Reads a registration.
///
/// # Errors
/// What is wrong with it, or that it does not answer this offer.
pub fn answer<'a>(text: Option<&'a str>, offer: &Offer, audience: &str) -> Result<Answer<'a>, BadProof> {
    let token = Token::read(text.ok_or(BadProof::Missing)?).ok_or(BadProof::Form)?;
    let header = token.header()?;
    let key = match (header.alg, &header.jwk) {
        (algorithm @ ("ES256" | "RS256"), Some(jwk)) => PublicKey::read(algorithm, jwk)?,
        ("ES256" | "RS256", None) => return Err(BadProof::Key),
        _ => return Err(BadProof::Algorithm),
    };
    let claims = token.claims(audience)?;
    if !is_same(&claims.jti, &offer.challenge) {
        return Err(BadProof::Challenge);
    }
    if !is_same(claims.authorization.as_deref().unwrap_or_default(), &offer.authorization) {
        return Err(BadProof::Authorization);
    }
    Ok(Answer { token, key })
}

/// The challenge that a refresh answers, if it is signed with the registered key.
///
/// # Errors
/// What is wrong with it.
pub fn signed(text: &str, key: &PublicKey, audience: &str) -> Result<String, BadProof> {
    let token = Token::read(text).ok_or(BadProof::Form)?;
    let header = token.header()?;
    if header.alg != key.algorithm() {
        return Err(BadProof::Algorithm);
    }
    if header.jwk.is_some() {
        return Err(BadProof::Key);
    }
    key.verify(&token)?;
    Ok(token.claims(audience)?.jti)
}

fn is_same(said: &str, expected: &str) -> bool {
    said.as_bytes().ct_eq(expected.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::dbsc::Device;

    #[test]
    fn thumbprints_are_those_of_rfc_7638() {
        // Its example, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
                 oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdA\
                 ZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-\
                 kEgU8awapJzKnqDKgw";
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = PublicKey::Rs256 { n: decode(n), e: decode("AQAB") };
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics_or_proves(text in "[a-zA-Z0-9_.=-]{0,300}") {
            let offer = Device::offered([1; 32]).offer();
            prop_assert!(answer(Some(&text), &offer, "https://app.test").is_err());
        }
    }
}
