//! Sessions, as an administrator sees and ends them.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::guard::Caller;
use crate::admin::reply;
use crate::admin::reply::Reply;
use crate::admin::route::Whose;
use crate::clock::Timestamp;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::policy::session::SessionRef;
use crate::policy::session::UserName;
use crate::proxy::Gate;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;

/// Sessions that are looked up together when all are to end.
const BATCH: usize = 20_000;

/// For the audit log: what was to end.
impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(_) => "session",
            Self::User(_) => "user",
            Self::Everybody => "all",
        })
    }
}

/// A page of those whose time is not up.
pub(super) async fn list(
    gate: &Gate,
    user: Option<&UserName>,
    from: Option<&str>,
    limit: usize,
) -> Result<Reply, StoreError> {
    let Some(page) = gate.store().list(user.map(UserName::as_str), from, limit).await? else {
        return Ok(reply::problem(StatusCode::BAD_REQUEST, "cursor is not the next of a page"));
    };
    let now = gate.now();
    let sessions: Vec<Value> =
        page.sessions.iter().filter_map(|(key, session)| describe(gate, key, session, now)).collect();
    Ok(reply::json(&json!({ "sessions": sessions, "next": page.next })))
}

pub(super) async fn show(gate: &Gate, session_ref: &str) -> Result<Reply, StoreError> {
    let Some(key) = gate.store().find(session_ref).await? else { return Ok(unknown()) };
    let session = gate.store().peek(&key).await?;
    let described = session.and_then(|session| describe(gate, &key, &session, gate.now()));
    Ok(described.map_or_else(unknown, |session| reply::json(&session)))
}

fn unknown() -> Reply {
    reply::problem(StatusCode::NOT_FOUND, "There is no such session.")
}

/// `None` when its time is up.
fn describe(gate: &Gate, key: &SessionKey, session: &Outline, now: Timestamp) -> Option<Value> {
    let expires = gate.end_of(session, now)?;
    Some(json!({
        // From the key: what stands in a store outside the process is not believed.
        "ref": &*key.session_ref(),
        "user": session.user.as_ref().map(UserName::as_str),
        "site": &*session.site,
        "created": rfc3339(session.created),
        "authenticated": session.authenticated.map(rfc3339),
        "last_seen": rfc3339(session.seen),
        "expires": rfc3339(expires),
        "address": session.binding.address,
        "user_agent": session.binding.user_agent.as_deref(),
    }))
}

fn rfc3339(time: Timestamp) -> Option<String> {
    let nanoseconds = i128::from(time.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?.format(&Rfc3339).ok()
}

/// Ends sessions for good, and writes down who did it: also when the store fails on the way, or when
/// whoever asked has left (S191).
pub(super) async fn revoke(gate: &Arc<Gate>, whose: Whose, caller: Caller) -> Result<Reply, StoreError> {
    let ending = Arc::clone(gate);
    let all = async move {
        let (mut context, mut ended) = (Context::default(), 0);
        match &whose {
            Whose::One(session_ref) => context.session_ref = SessionRef::parse(session_ref),
            Whose::User(user) => context.user = Some(user.clone()),
            Whose::Everybody => {}
        }
        let outcome = end_all(&ending, &whose, &mut ended).await;
        if !matches!(outcome, Ok(false)) {
            let (actor, scope) = (caller.to_string(), whose.to_string());
            telemetry::audit(&context, &Audit::AdminRevoked { actor: &actor, scope: &scope, count: ended });
        }
        Ok(if outcome? { reply::json(&json!({ "revoked": ended })) } else { unknown() })
    };
    gate.must_finish(all).await?
}

/// Whether there is what was named; counts the sessions.
async fn end_all(gate: &Arc<Gate>, whose: &Whose, ended: &mut usize) -> Result<bool, StoreError> {
    match whose {
        Whose::One(session_ref) => {
            let Some(key) = gate.store().find(session_ref).await? else { return Ok(false) };
            gate.revoke(vec![key], ended).await?;
        }
        Whose::User(user) => gate.revoke(gate.store().by_user(user.as_str(), None).await?, ended).await?,
        Whose::Everybody => {
            let mut from = None;
            while let Some(page) = gate.store().list(None, from.as_deref(), BATCH).await? {
                gate.revoke(page.sessions.into_iter().map(|(key, _)| key).collect(), ended).await?;
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
        }
    }
    Ok(true)
}
