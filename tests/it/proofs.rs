//! The table of forged proofs of device-bound sessions (S62), without a network.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use aws_lc_rs::signature::RsaKeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;
use vestibule::policy::dbsc::BadProof;
use vestibule::policy::dbsc::Device;
use vestibule::policy::dbsc::Offer;
use vestibule::policy::dbsc::PublicKey;
use vestibule::policy::dbsc::answer;
use vestibule::policy::dbsc::signed;

const AUDIENCE: &str = "https://app.test/.vestibule/dbsc/register";

enum Signer {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self) -> Value {
        match self {
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) })
            }
            Self::Rsa(key) => {
                let n = key.public_key().modulus().big_endian_without_leading_zero().to_vec();
                let e = key.public_key().exponent().big_endian_without_leading_zero().to_vec();
                json!({ "kty": "RSA", "n": encoded(&n), "e": encoded(&e) })
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", encoded(&signature))
    }

    fn header(&self) -> Value {
        json!({ "alg": self.algorithm(), "typ": "dbsc+jwt", "jwk": self.jwk() })
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn offer() -> Offer {
    Device::offered([1; 32]).offer()
}

fn claims() -> Value {
    json!({ "jti": offer().challenge, "authorization": offer().authorization })
}

fn with(value: Value, name: &str, other: Value) -> Value {
    let mut value = value;
    value[name] = other;
    value
}

fn without(value: Value, name: &str) -> Value {
    let mut value = value;
    value.as_object_mut().unwrap().remove(name);
    value
}

fn register(text: &str) -> Result<PublicKey, BadProof> {
    answer(Some(text), &offer(), AUDIENCE)?.verified()
}

#[test]
fn browsers_register_with_either_algorithm() {
    for signer in [Signer::ec(), Signer::rsa()] {
        let token = signer.token(&signer.header(), &claims());
        let key = register(&token).unwrap();
        assert_eq!(key.algorithm(), signer.algorithm());
        let audience = with(claims(), "aud", json!(AUDIENCE));
        assert_eq!(register(&signer.token(&signer.header(), &audience)), Ok(key));
    }
}

#[test]
fn a_registration_that_is_not_quite_right_is_none() {
    // S62
    let (signer, other) = (Signer::ec(), Signer::ec());
    let header = || signer.header();
    let jwk = |name: &str, value: Value| with(header(), "jwk", with(signer.jwk(), name, value));
    for (what, header, claims, expected) in [
        ("none", with(header(), "alg", json!("none")), claims(), BadProof::Algorithm),
        ("a secret of both", with(header(), "alg", json!("HS256")), claims(), BadProof::Algorithm),
        ("another curve's", with(header(), "alg", json!("ES384")), claims(), BadProof::Algorithm),
        ("an algorithm that the key is not for", with(header(), "alg", json!("RS256")), claims(), BadProof::Key),
        ("no algorithm", without(header(), "alg"), claims(), BadProof::Form),
        ("another type", with(header(), "typ", json!("jwt")), claims(), BadProof::Kind),
        ("no type", without(header(), "typ"), claims(), BadProof::Form),
        ("an extension", with(header(), "crit", json!(["b64"])), claims(), BadProof::Kind),
        ("no key", without(header(), "jwk"), claims(), BadProof::Key),
        ("another curve", jwk("crv", json!("P-384")), claims(), BadProof::Key),
        ("another kind of key", jwk("kty", json!("oct")), claims(), BadProof::Key),
        ("half a point", jwk("y", json!(encoded(&[1; 31]))), claims(), BadProof::Key),
        ("no point of the curve", jwk("y", json!(encoded(&[1; 32]))), claims(), BadProof::Signature),
        ("somebody else's key", with(header(), "jwk", other.jwk()), claims(), BadProof::Signature),
        ("another challenge", header(), with(claims(), "jti", json!(encoded(&[2; 32]))), BadProof::Challenge),
        ("no challenge", header(), without(claims(), "jti"), BadProof::Form),
        ("another login's code", header(), with(claims(), "authorization", json!("x")), BadProof::Authorization),
        ("no code", header(), without(claims(), "authorization"), BadProof::Authorization),
        ("another audience", header(), with(claims(), "aud", json!("https://evil.test/")), BadProof::Audience),
    ] {
        assert_eq!(register(&signer.token(&header, &claims)), Err(expected), "{what}");
    }
    assert_eq!(answer(None, &offer(), AUDIENCE).err(), Some(BadProof::Missing));
}

#[test]
fn small_and_odd_moduli_are_no_keys() {
    let signer = Signer::rsa();
    let with_key = |n: &[u8], e: &[u8]| {
        let jwk = json!({ "kty": "RSA", "n": encoded(n), "e": encoded(e) });
        register(&signer.token(&with(signer.header(), "jwk", jwk), &claims()))
    };
    assert_eq!(with_key(&[0xff; 128], &[1, 0, 1]), Err(BadProof::Key), "1024 bits");
    assert_eq!(with_key(&[0x7f; 256], &[1, 0, 1]), Err(BadProof::Key), "2047 bits");
    assert_eq!(with_key(&[0xff; 513], &[1, 0, 1]), Err(BadProof::Key), "more than 4096 bits");
    assert_eq!(with_key(&[0xff; 256], &[1; 5]), Err(BadProof::Key), "an exponent that only costs time");
    assert_eq!(with_key(&[0xff; 256], &[0]), Err(BadProof::Key));
    assert_eq!(with_key(&[&[0][..], &[0xff; 256]].concat(), &[1, 0, 1]), Err(BadProof::Key), "a zero in front");
    assert_eq!(with_key(&[0xff; 256], &[1, 0, 1]), Err(BadProof::Signature));
}

#[test]
fn tokens_are_compact_and_short_and_exactly_as_they_were_signed() {
    let signer = Signer::ec();
    let token = signer.token(&signer.header(), &claims());
    let long = with(claims(), "x", json!("a".repeat(4096)));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let twice = signer.header().to_string().replacen('{', r#"{"alg":"none","#, 1);
    let twice = format!("{}.{}", encoded(twice.as_bytes()), encoded(claims().to_string().as_bytes()));
    let twice = format!("{twice}.{}", encoded(&signer.sign(twice.as_bytes())));
    for (what, text, expected) in [
        ("nothing", String::new(), BadProof::Form),
        ("two parts", signed.to_owned(), BadProof::Form),
        ("four parts", format!("{token}.x"), BadProof::Form),
        ("padding", format!("{token}="), BadProof::Form),
        ("a long one", signer.token(&signer.header(), &long), BadProof::Form),
        ("two algorithms", twice, BadProof::Form),
        ("no signature", format!("{signed}."), BadProof::Signature),
        ("a signature of zeros", format!("{signed}.{}", encoded(&[0; 64])), BadProof::Signature),
        ("half a signature", format!("{signed}.{}", &signature[..40]), BadProof::Signature),
    ] {
        assert_eq!(register(&text), Err(expected), "{what}");
    }
}

#[test]
fn a_refresh_is_signed_with_the_registered_key_and_brings_none() {
    // S62
    for (signer, other) in [(Signer::ec(), Signer::ec()), (Signer::rsa(), Signer::rsa()), (Signer::ec(), Signer::rsa())]
    {
        let key = register(&signer.token(&signer.header(), &claims())).unwrap();
        let asked = json!({ "jti": "asked" });
        let bare = without(signer.header(), "jwk");
        let refresh = |token: &str| signed(token, &key, AUDIENCE);
        assert_eq!(refresh(&signer.token(&bare, &asked)), Ok("asked".to_owned()));
        let wrong = if other.algorithm() == signer.algorithm() { BadProof::Signature } else { BadProof::Algorithm };
        assert_eq!(refresh(&other.token(&without(other.header(), "jwk"), &asked)), Err(wrong));
        assert_eq!(refresh(&other.token(&bare, &asked)), Err(BadProof::Signature), "says it is the key's");
        assert_eq!(refresh(&signer.token(&signer.header(), &asked)), Err(BadProof::Key), "its own key");
        assert_eq!(refresh(&other.token(&with(bare.clone(), "jwk", other.jwk()), &asked)), Err(BadProof::Key));
        let none = with(bare.clone(), "alg", json!("none"));
        assert_eq!(refresh(&signer.token(&none, &asked)), Err(BadProof::Algorithm));
        let unsigned = signer.token(&none, &asked);
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        assert_eq!(refresh(&unsigned), Err(BadProof::Algorithm));
        assert_eq!(refresh(&signer.token(&bare, &with(asked, "aud", json!("x")))), Err(BadProof::Audience));
    }
}
