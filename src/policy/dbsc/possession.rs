//! Does a request come from the device that its session is bound to? And if not, what is to be done?

use bytes::Bytes;
use http::HeaderMap;
use http::Method;

use crate::clock::Timestamp;
use crate::policy::dbsc::Device;
use crate::policy::dbsc::DeviceBound;
use crate::policy::dbsc::OFFER_LIFETIME;

/// What is wrong with the bound cookie of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is none.
    Missing,
    /// It was good once.
    Expired,
    /// It is another session's, or nobody's.
    Wrong,
}

impl Lack {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Wrong => "wrong",
        }
    }
}

/// What a request shows of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Possession {
    /// It need not show anything.
    Unasked,
    /// It comes from the device.
    Proven,
    /// It does not, as far as it shows: there is no session for it (S61).
    Unproven(Lack),
    /// Nobody has registered in time: the session is to be ended.
    Overdue,
}

/// Judges the bound cookie that a request presents, if any, by what its session's record knows.
/// `authenticated`: when somebody logged in; anonymous sessions are never bound.
pub fn possession(
    mode: DeviceBound,
    device: Option<&Device>,
    authenticated: Option<Timestamp>,
    presented: Option<&Bytes>,
    now: Timestamp,
) -> Possession {
    match (mode, device, authenticated) {
        (DeviceBound::Off, _, _) | (_, _, None) => Possession::Unasked,
        (DeviceBound::Prefer | DeviceBound::Require, Some(device), Some(_)) if device.is_bound() => {
            let checked = presented.map_or(Err(Lack::Missing), |value| device.bound_key().check(value, now));
            checked.map_or_else(Possession::Unproven, |()| Possession::Proven)
        }
        (DeviceBound::Prefer, _, Some(_)) => Possession::Unasked,
        (DeviceBound::Require, _, Some(since)) if now.since(since) < OFFER_LIFETIME => Possession::Unasked,
        (DeviceBound::Require, _, Some(_)) => Possession::Overdue,
    }
}

/// Whether a page load that lacks the bound cookie is worth a second try from one of our own pages.
/// Browsers refresh before what a page of the site asks for, and not before what comes from elsewhere:
/// a link in a mail, an address that is typed. What a page of the site asks for had its chance.
pub fn can_try_again(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &str, word: &[u8]| headers.get(name).is_some_and(|value| value.as_bytes() == word);
    *method == Method::GET && is("sec-fetch-mode", b"navigate") && !is("sec-fetch-site", b"same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_bound_session_is_one_only_with_a_live_bound_cookie() {
        // S61
        use DeviceBound::{Off, Prefer, Require};
        use Possession::{Overdue, Proven, Unasked, Unproven};
        let offered = Device::offered([5; 32]);
        let bound = offered.bound();
        let good = Bytes::from(bound.bound_key().issue(at(1000)));
        let other = Bytes::from(Device::offered([6; 32]).bound_key().issue(at(1000)));
        let user = Some(at(1000));
        for (mode, device, authenticated, presented, now, expected) in [
            (Off, Some(&bound), user, None, 9000, Unasked),
            (Prefer, None, None, None, 9000, Unasked),
            (Require, None, None, None, 9000, Unasked),
            (Prefer, None, user, None, 9000, Unasked),
            (Prefer, Some(&offered), user, None, 9000, Unasked),
            (Prefer, Some(&offered), user, Some(&other), 1000, Unasked),
            (Prefer, Some(&bound), user, None, 1000, Unproven(Lack::Missing)),
            (Prefer, Some(&bound), user, Some(&good), 1629, Proven),
            (Prefer, Some(&bound), user, Some(&good), 1630, Unproven(Lack::Expired)),
            (Prefer, Some(&bound), user, Some(&other), 1000, Unproven(Lack::Wrong)),
            (Require, Some(&bound), user, Some(&good), 1000, Proven),
            (Require, Some(&bound), user, None, 1000, Unproven(Lack::Missing)),
            (Require, Some(&offered), user, None, 1059, Unasked),
            (Require, Some(&offered), user, None, 1060, Overdue),
            (Require, Some(&offered), user, Some(&good), 1060, Overdue),
            (Require, None, user, None, 1059, Unasked),
            (Require, None, user, None, 1060, Overdue),
        ] {
            let found = possession(mode, device, authenticated, presented, at(now));
            assert_eq!(found, expected, "{mode:?} {device:?} {authenticated:?} at {now}");
        }
    }

    #[test]
    fn page_loads_from_elsewhere_are_tried_again() {
        for (method, site, mode, expected) in [
            (Method::GET, "cross-site", "navigate", true),
            (Method::GET, "same-site", "navigate", true),
            (Method::GET, "none", "navigate", true),
            (Method::GET, "same-origin", "navigate", false),
            (Method::POST, "cross-site", "navigate", false),
            (Method::HEAD, "cross-site", "navigate", false),
            (Method::GET, "cross-site", "no-cors", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", site.parse().unwrap());
            headers.insert("sec-fetch-mode", mode.parse().unwrap());
            assert_eq!(can_try_again(&method, &headers), expected, "{method} {site} {mode}");
        }
        assert!(!can_try_again(&Method::GET, &HeaderMap::new()), "curl is told at once");
    }
}
