//! What a browser does for device-bound sessions, in software: it registers a key, and signs what it is told to.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::BOUND;
use super::Browser;
use super::OURS;
use super::empty;
use super::labelled;

pub const REGISTER: &str = "/.vestibule/dbsc/register";
pub const REFRESH: &str = "/.vestibule/dbsc/refresh";

/// The usual site with device-bound sessions where browsers can.
pub const PREFER: &str = r#"
[site.session]
device_bound = "prefer"
"#;

/// A key, and what the proxy said about it.
pub struct Device {
    key: EcdsaKeyPair,
    /// What the session is called.
    pub identifier: String,
    /// What is to be signed next.
    pub challenge: String,
}

/// A parameter of `Secure-Session-Registration`.
pub fn offered(login: &Answer, parameter: &str) -> String {
    let offer = login.header("secure-session-registration").expect("no registration is offered");
    between(offer, &format!("{parameter}=\""), "\"").to_owned()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).expect("not there").0
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Device {
    /// With a new key, not registered.
    pub fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { key, identifier: String::new(), challenge: String::new() }
    }

    /// Logs in and registers.
    pub async fn logged_in(browser: &mut Browser, user: &str) -> Self {
        let login = browser.log_in(user).await;
        let mut device = Self::new();
        let answer = device.register(browser, &login).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        device
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
    }

    /// A token with this header and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The header of a registration.
    pub fn with_key(&self) -> Value {
        json!({ "alg": "ES256", "typ": "dbsc+jwt", "jwk": self.jwk() })
    }

    /// The proof for this challenge.
    pub fn proof(&self, challenge: &str) -> String {
        self.token(&json!({ "alg": "ES256", "typ": "dbsc+jwt" }), &json!({ "jti": challenge }))
    }

    /// The proof that registers the key with what a login offered.
    pub fn registration(&self, login: &Answer) -> String {
        let claims = json!({ "jti": offered(login, "challenge"), "authorization": offered(login, "authorization") });
        self.token(&self.with_key(), &claims)
    }

    /// Registers, as Chromium does.
    pub async fn register(&mut self, browser: &mut Browser, login: &Answer) -> Answer {
        let proof = self.registration(login);
        let answer = browser.send(register(&proof)).await;
        self.learn(&answer);
        answer
    }

    /// Refreshes, as Chromium does: when it is told to sign something else it does so.
    pub async fn refresh(&mut self, browser: &mut Browser) -> Answer {
        let answer = self.refresh_once(browser).await;
        if answer.status == 403 { self.refresh_once(browser).await } else { answer }
    }

    /// Refreshes with a proof for what it was told to sign last.
    pub async fn refresh_once(&mut self, browser: &mut Browser) -> Answer {
        let answer = browser.send(refresh(&self.identifier, Some(&self.proof(&self.challenge)))).await;
        self.learn(&answer);
        answer
    }

    fn learn(&mut self, answer: &Answer) {
        if let Some(said) = answer.header("secure-session-challenge") {
            self.challenge = between(said, "\"", "\"").to_owned();
            self.identifier = between(said, "id=\"", "\"").to_owned();
        }
    }
}

/// A request to register.
pub fn register(proof: &str) -> Request<Full<Bytes>> {
    let request = labelled("POST", REGISTER, "same-origin", "no-cors", "empty").header("origin", "https://app.test");
    empty(request.header("secure-session-response", proof))
}

/// A request to refresh.
pub fn refresh(identifier: &str, proof: Option<&str>) -> Request<Full<Bytes>> {
    let request = labelled("POST", REFRESH, "same-origin", "no-cors", "empty").header("origin", "https://app.test");
    let request = request.header("sec-secure-session-id", identifier);
    empty(match proof {
        Some(proof) => request.header("secure-session-response", proof),
        None => request,
    })
}

/// What a thief has who copied the session's cookie, and nothing else.
pub fn stolen(browser: &Browser) -> Browser {
    browser.with_session(&browser.session().unwrap())
}

/// The browser after its bound cookie has ended.
pub fn without_bound(browser: &Browser) -> Browser {
    let mut browser = browser.clone();
    browser.cookies.remove(BOUND);
    browser
}

/// The browser without any of our cookies: what Chromium sends when another site asks.
pub fn without_ours(browser: &Browser) -> Browser {
    let mut browser = without_bound(browser);
    browser.cookies.remove(OURS);
    browser
}
