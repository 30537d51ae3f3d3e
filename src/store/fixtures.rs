//! What the tests of stores are made of.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::policy::binding::Bind;
use crate::policy::binding::Binding;
use crate::policy::binding::BindingRules;
use crate::policy::binding::OnMismatch;
use crate::policy::chain::Chain;
use crate::policy::session::Handle;
use crate::policy::session::Identity;
use crate::policy::session::Record;
use crate::policy::session::SessionId;
use crate::policy::session::SessionRules;
use crate::policy::session::UserName;

/// The site of all records.
pub(super) const SITE: &str = "https://app.test";

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

pub(super) fn handle(number: u8) -> Handle {
    SessionId::from_random([number; 32]).handle()
}

pub(super) fn rules() -> SessionRules {
    SessionRules {
        idle: Duration::from_secs(1800),
        absolute: Duration::from_secs(8 * 3600),
        anonymous: Duration::from_secs(1800),
        rotate_every: None,
        rotation_grace: Duration::from_secs(30),
        max_per_user: None,
        binding: BindingRules { bind: Bind::Off, on_mismatch: OnMismatch::Log, on_user_agent_change: OnMismatch::Log },
    }
}

/// A session of this user, who has just logged in.
pub(super) fn of(user: &str) -> Record {
    let identity = Identity::new(UserName::parse(user).unwrap(), at(0), Arc::from("ref"));
    let binding = Binding::new([127, 0, 0, 1].into(), None);
    let chain = Chain::begin(&[0; 16], at(0));
    Record::authenticated(Arc::from(SITE), Arc::new(identity), binding, chain, Arc::default(), &rules(), at(0))
}
