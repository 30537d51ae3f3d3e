//! One key: ECDSA on P-256 (ES256), because there is hardly a library for JWTs, in whatever language, that
//! does not know it.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;

use crate::clock::Timestamp;
use crate::signing::KeysError;

/// A key pair, and from when on it signs.
pub struct Key {
    /// Whole seconds.
    pub(super) begins: Timestamp,
    pair: EcdsaKeyPair,
    id: String,
    jwk: Value,
    /// The head of what it signs, encoded.
    head: String,
    pem: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A new one.
    pub(super) fn generate(begins: Timestamp) -> Result<Self, KeysError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| KeysError::NoRandomness)?;
        Self::from_pkcs8(begins, pkcs8.as_ref()).ok_or(KeysError::NoRandomness)
    }

    /// One that was written by [`Key::pem`].
    pub(super) fn from_pem(begins: Timestamp, pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        Self::from_pkcs8(begins, der.secret_pkcs8_der())
    }

    fn from_pkcs8(begins: Timestamp, der: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
        // Uncompressed (SEC 1, 2.3.3): 4, x, y.
        let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // Its thumbprint (RFC 7638): the same key has the same name wherever it is read.
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()));
        let jwk =
            json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id.as_str(), "alg": "ES256", "use": "sig" });
        let head = json!({ "alg": "ES256", "typ": "JWT", "kid": id.as_str() }).to_string();
        let begins = Timestamp::from_millis(begins.as_secs() * 1000);
        Some(Self { begins, pair, id, jwk, head: URL_SAFE_NO_PAD.encode(head), pem: pem(der) })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public half.
    pub(super) fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// What is written into its file.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The claims as a signed JWT (RFC 7515, compact); `None` without randomness.
    pub fn sign(&self, claims: &str) -> Option<String> {
        let mut token = format!("{}.{}", self.head, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }
}

/// PKCS #8 as text (RFC 7468), which `openssl pkey` reads.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END PRIVATE KEY-----\n"
}
