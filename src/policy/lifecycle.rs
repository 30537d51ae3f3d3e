//! The pure session policy: given a record and a request, what is this session?

use crate::clock::Timestamp;
use crate::policy::binding::Mismatch;
use crate::policy::chain::Standing;
use crate::policy::session::EndReason;
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
    /// A known selector with a verifier that is not valid (any more).
    Reused,
    /// Issued by another site.
    Foreign,
}

/// Expiry first (VR-57): absolute, then idle; then site, verifier, binding. `>=` ends it.
pub fn judge(
    record: &Record,
    id: &SessionId,
    presenter: Presenter<'_>,
    rules: &SessionRules,
    now: Timestamp,
) -> Verdict {
    let _ = (record, id, presenter, rules, now);
    Verdict::Foreign
}

/// Whether the record is past one of its limits at `now`.
pub fn expiry(record: &Record, rules: &SessionRules, now: Timestamp) -> Option<EndReason> {
    let _ = (record, rules, now);
    None
}

/// Whether `seen` should be moved: only when it is older than a twentieth of the idle timeout, a
/// minute at most, so that most requests write nothing.
pub fn touch_is_due(record: &Record, rules: &SessionRules, now: Timestamp) -> bool {
    let _ = (record, rules, now);
    false
}
