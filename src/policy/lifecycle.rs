//! The pure session policy: given a record and a request, what is this session?

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::binding::Mismatch;
use crate::policy::binding::OnMismatch;
use crate::policy::chain::Standing;
use crate::policy::dbsc::Lack;
use crate::policy::dbsc::Possession;
use crate::policy::dbsc::possession;
use crate::policy::session::EndReason;
use crate::policy::session::Life;
use crate::policy::session::Record;
use crate::policy::session::SessionId;
use crate::policy::session::SessionRules;

/// Who presents an ID.
#[derive(Clone, Copy, Debug)]
pub struct Presenter<'a> {
    /// The site that is asked, as [`Record::site`] names it.
    pub site: &'a str,
    /// The client's address.
    pub address: std::net::IpAddr,
    /// Its `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// Its bound cookie.
    pub bound: Option<&'a Bytes>,
}

/// What a record means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Usable; how the verifier stands, and a signal worth logging.
    Live {
        /// How the presented verifier stands in its chain.
        standing: Standing,
        /// Something to log that does not end anything.
        signal: Option<Mismatch>,
    },
    /// Past a limit: to be ended for this reason.
    Expired(EndReason),
    /// Presented by another client: as if there were no session; `true` when it is to be ended.
    WrongClient {
        /// End the session for everyone.
        revoke: bool,
        /// What differed.
        mismatch: Mismatch,
    },
    /// Bound to a device, and nothing shows that it is presented by that one: as if there were no session, until
    /// something does.
    Unproven(Lack),
    /// A known selector with a verifier that is not valid (any more).
    Reused,
    /// Issued by another site.
    Foreign,
}

/// Expiry first (VR-57): absolute, then idle; then site, verifier, binding, device. `>=` ends it. Of a verifier that
/// has retired it does not matter where it comes from; of a valid one it does, and a replay of that from
/// elsewhere ends nothing by default (S56).
pub fn judge(
    record: &Record,
    id: &SessionId,
    presenter: Presenter<'_>,
    rules: &SessionRules,
    now: Timestamp,
) -> Verdict {
    if let Some(reason) = expiry(record.life(), rules, now) {
        return Verdict::Expired(reason);
    }
    if *record.site != *presenter.site {
        return Verdict::Foreign;
    }
    let standing = record.chain.standing(id.verifier(), rules.rotation_grace, now);
    if standing == Standing::Reused {
        return Verdict::Reused;
    }
    let mismatch = record.binding.compare(rules.binding, presenter.address, presenter.user_agent);
    match mismatch {
        Some(mismatch @ (Mismatch::Address(action) | Mismatch::UserAgent(action))) => {
            Verdict::WrongClient { revoke: action == OnMismatch::Revoke, mismatch }
        }
        signal @ (None | Some(Mismatch::Signal(_))) => {
            let authenticated = record.identity.as_ref().map(|identity| identity.authenticated);
            match possession(rules.device_bound, record.device.as_deref(), authenticated, presenter.bound, now) {
                Possession::Unasked | Possession::Proven => Verdict::Live { standing, signal },
                Possession::Unproven(lack) => Verdict::Unproven(lack),
                Possession::Overdue => Verdict::Expired(EndReason::Binding),
            }
        }
    }
}

/// Whether a session is past one of its limits at `now`. A clock that ran backwards gives age zero.
pub fn expiry(life: Life, rules: &SessionRules, now: Timestamp) -> Option<EndReason> {
    if now >= life.absolute_end {
        return Some(EndReason::Absolute);
    }
    (now.since(life.seen) >= idle_limit(life, rules)).then_some(EndReason::Idle)
}

/// How long this session may be without activity.
pub fn idle_limit(life: Life, rules: &SessionRules) -> Duration {
    if life.authenticated { rules.idle } else { rules.anonymous }
}

/// How often `seen` is moved at most, so that the many requests of one page load write once. A
/// session may end that much early, never late.
pub fn touch_every(idle: Duration) -> Duration {
    (idle / 20).min(Duration::from_secs(1))
}

/// Whether `seen` should be moved.
pub fn touch_is_due(record: &Record, rules: &SessionRules, now: Timestamp) -> bool {
    now.since(record.seen) >= touch_every(idle_limit(record.life(), rules))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::binding::Bind;
    use crate::policy::binding::Binding;
    use crate::policy::binding::BindingRules;
    use crate::policy::chain::Chain;
    use crate::policy::dbsc::Device;
    use crate::policy::dbsc::DeviceBound;
    use crate::policy::session::Identity;
    use crate::policy::session::UserName;
    use crate::policy::vault::Vault;

    const HOUR: u64 = 3_600_000;

    fn rules() -> SessionRules {
        SessionRules {
            idle: Duration::from_secs(1800),
            absolute: Duration::from_secs(8 * 3600),
            anonymous: Duration::from_secs(1800),
            rotate_every: Some(Duration::from_secs(900)),
            rotation_grace: Duration::from_secs(30),
            max_per_user: None,
            binding: BindingRules {
                bind: Bind::Subnet,
                on_mismatch: OnMismatch::Reauthenticate,
                on_user_agent_change: OnMismatch::Log,
            },
            device_bound: DeviceBound::Off,
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn id() -> SessionId {
        SessionId::from_random([5; 32])
    }

    fn record() -> Record {
        let identity = Identity {
            user: UserName::parse("alice").unwrap(),
            authenticated: at(0),
            session_ref: id().key().session_ref(),
        };
        let binding = Binding::new([127, 0, 0, 1].into(), Some("test"));
        let chain = Chain::begin(id().verifier(), at(0));
        Record::authenticated(Arc::from("https://a"), identity, binding, chain, Vault::default(), &rules(), at(0))
    }

    fn verdict(record: &Record, address: [u8; 4], site: &str, now: Timestamp) -> Verdict {
        let presenter = Presenter { site, address: address.into(), user_agent: Some("test"), bound: None };
        judge(record, &id(), presenter, &rules(), now)
    }

    #[test]
    fn a_session_lives_until_its_limits_and_not_longer() {
        // S36, S37, VR-25: one millisecond before, and at the limit.
        let mut record = record();
        let live = Verdict::Live { standing: Standing::Current, signal: None };
        assert_eq!(verdict(&record, [127, 0, 0, 1], "https://a", at(HOUR / 2 - 1)), live);
        assert_eq!(verdict(&record, [127, 0, 0, 1], "https://a", at(HOUR / 2)), Verdict::Expired(EndReason::Idle));
        record.seen = at(8 * HOUR - 1000);
        assert_eq!(verdict(&record, [127, 0, 0, 1], "https://a", at(8 * HOUR - 1)), live);
        assert_eq!(verdict(&record, [127, 0, 0, 1], "https://a", at(8 * HOUR)), Verdict::Expired(EndReason::Absolute));
    }

    #[test]
    fn a_clock_that_ran_backwards_ends_nothing() {
        // S39
        let mut record = record();
        record.seen = at(HOUR);
        assert_eq!(expiry(record.life(), &rules(), at(0)), None);
    }

    #[test]
    fn a_session_is_valid_on_its_site_only() {
        // VR-55
        assert_eq!(verdict(&record(), [127, 0, 0, 1], "https://b", at(1)), Verdict::Foreign);
    }

    #[test]
    fn another_client_is_told_apart() {
        // S54, S56
        let wrong = verdict(&record(), [127, 0, 9, 1], "https://a", at(1));
        let mismatch = Mismatch::Address(OnMismatch::Reauthenticate);
        assert_eq!(wrong, Verdict::WrongClient { revoke: false, mismatch });
    }

    #[test]
    fn another_verifier_is_reuse() {
        // S35: also from elsewhere.
        let forged = id().with_verifier([9; 16]);
        for address in [[127, 0, 0, 1], [127, 0, 9, 1]] {
            let (address, user_agent) = (address.into(), Some("test"));
            let presenter = Presenter { site: "https://a", address, user_agent, bound: None };
            assert_eq!(judge(&record(), &forged, presenter, &rules(), at(1)), Verdict::Reused);
        }
    }

    #[test]
    fn a_device_is_asked_for_last() {
        // S61: who presents a retired ID is a thief also without the cookie, and nothing outlives its limits.
        let device = Device::offered([5; 32]).bound();
        let good = Bytes::from(device.bound_key().issue(at(0)));
        let mut record = record();
        record.device = Some(Box::new(device));
        let rules = SessionRules { device_bound: DeviceBound::Prefer, ..rules() };
        let judged = |id: &SessionId, bound, now| {
            let (address, user_agent) = ([127, 0, 0, 1].into(), Some("test"));
            judge(&record, id, Presenter { site: "https://a", address, user_agent, bound }, &rules, now)
        };
        let live = Verdict::Live { standing: Standing::Current, signal: None };
        assert_eq!(judged(&id(), Some(&good), at(1)), live);
        assert_eq!(judged(&id(), None, at(1)), Verdict::Unproven(Lack::Missing));
        assert_eq!(judged(&id(), Some(&good), at(631_000)), Verdict::Unproven(Lack::Expired));
        assert_eq!(judged(&id().with_verifier([9; 16]), None, at(1)), Verdict::Reused);
        assert_eq!(judged(&id(), None, at(HOUR)), Verdict::Expired(EndReason::Idle));
    }

    #[test]
    fn who_has_to_register_and_does_not_logs_in_again() {
        let rules = SessionRules { device_bound: DeviceBound::Require, ..rules() };
        let (address, user_agent) = ([127, 0, 0, 1].into(), Some("test"));
        let presenter = Presenter { site: "https://a", address, user_agent, bound: None };
        let judged = |now| judge(&record(), &id(), presenter, &rules, now);
        assert_eq!(judged(at(59_999)), Verdict::Live { standing: Standing::Current, signal: None });
        assert_eq!(judged(at(60_000)), Verdict::Expired(EndReason::Binding));
    }

    #[test]
    fn the_requests_of_one_page_load_write_once() {
        let record = record();
        assert!(!touch_is_due(&record, &rules(), at(999)));
        assert!(touch_is_due(&record, &rules(), at(1_000)));
    }
}
