//! Carries the session decisions out: look up, confirm, create, rotate, end, keep cookies.

use std::future::Future;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::policy::binding::Binding;
use crate::policy::chain::Chain;
use crate::policy::chain::Standing;
use crate::policy::cookie::Presented;
use crate::policy::csrf::RequestKind;
use crate::policy::headers;
use crate::policy::lifecycle;
use crate::policy::lifecycle::Presenter;
use crate::policy::lifecycle::Verdict;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Identity;
use crate::policy::session::Record;
use crate::policy::session::SessionId;
use crate::policy::session::SessionKey;
use crate::policy::session::UserName;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultChange;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::streams::Bound;
use crate::proxy::streams::Pulse;
use crate::store::Found;
use crate::store::Presence;
use crate::store::StoreError;
use crate::store::Swap;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::RefusedSession;

/// How often a change is decided again because another request changed the record in between.
const ATTEMPTS: usize = 16;
/// Anonymous sessions an address prefix may begin in a minute (S176).
const BEGUN_PER_MINUTE: u32 = 60;

/// The session of a request.
pub(super) enum Session {
    /// None that can be used.
    None {
        /// The presented one was ended by a login or logout a moment ago: nothing may be minted for
        /// it, or a late response would overwrite the new cookie.
        tombstone: bool,
    },
    /// A live one.
    Live(Box<Live>),
}

/// A session that was judged and found alive.
pub(super) struct Live {
    pub(super) handle: Handle,
    pub(super) id: SessionId,
    pub(super) record: Record,
    pub(super) standing: Standing,
}

impl Session {
    pub(super) fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::None { .. } => None,
        }
    }

    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        self.live().and_then(|live| live.record.identity.as_ref())
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.identity().is_some()
    }

    pub(super) fn vault(&self) -> Option<&Vault> {
        self.live().map(|live| &*live.record.vault)
    }
}

impl Exchange<'_> {
    /// Looks the presented ID up and has it judged. Every refusal is the same to the client: no
    /// session (S58).
    pub(super) async fn find_session(&mut self) -> Result<(), Failure> {
        let id = match std::mem::replace(&mut self.presented, Presented::None) {
            Presented::None => return Ok(()),
            Presented::Malformed => {
                self.session_refused(RefusedSession::Malformed);
                return Ok(());
            }
            Presented::Id(id) => id,
        };
        let handle = id.handle();
        for _ in 0..ATTEMPTS {
            let record = match self.worker.gate.store.load(&handle, self.now).await? {
                Found::Record(record) => *record,
                Found::Tombstone => {
                    self.session = Session::None { tombstone: true };
                    self.session_refused(RefusedSession::Ended);
                    return Ok(());
                }
                Found::Absent => {
                    self.session_refused(RefusedSession::Unknown);
                    return Ok(());
                }
            };
            let verdict = self.judge(&record, &id);
            if let Verdict::Live { standing: Standing::Successor, .. } = verdict {
                // Presented for the first time: from now on the predecessor is on its way out.
                let Some(chain) = record.chain.confirm(self.now) else { continue };
                // Whatever the swap says, the record is read and judged again.
                let _judged_again = self.worker.gate.store.swap_chain(handle.key(), record.revision, chain).await?;
                continue;
            }
            return self.adopt(handle, id, record, verdict).await;
        }
        Err(Failure::Unfinished)
    }

    fn judge(&self, record: &Record, id: &SessionId) -> Verdict {
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        let presenter = Presenter { site: &self.site.name, address: self.client.address, user_agent };
        lifecycle::judge(record, id, presenter, &self.site.rules, self.now)
    }

    async fn adopt(&mut self, handle: Handle, id: SessionId, record: Record, verdict: Verdict) -> Result<(), Failure> {
        let key = *handle.key();
        match verdict {
            Verdict::Live { standing, signal } => {
                self.trace.context.session_ref = Some(session_ref(&key, &record));
                self.trace.user = record.identity.clone();
                self.trace.authenticated = record.identity.is_some();
                if let Some(mismatch) = signal {
                    telemetry::audit(&self.trace.context, &Audit::BindingSignal { mismatch });
                }
                self.session = Session::Live(Box::new(Live { handle, id, record, standing }));
            }
            Verdict::Expired(reason) => {
                self.worker.gate.end(&key, reason, false, self.now).await?;
                self.session_refused(RefusedSession::Expired(reason));
            }
            Verdict::WrongClient { revoke, mismatch } => {
                self.trace.context.session_ref = Some(session_ref(&key, &record));
                if revoke {
                    self.worker.gate.end(&key, EndReason::Binding, false, self.now).await?;
                }
                telemetry::audit(&self.trace.context, &Audit::BindingSignal { mismatch });
                self.session_refused(RefusedSession::Binding);
            }
            Verdict::Reused => {
                self.trace.context.session_ref = Some(session_ref(&key, &record));
                self.session_refused(RefusedSession::Reuse);
            }
            Verdict::Foreign => self.session_refused(RefusedSession::Foreign),
        }
        Ok(())
    }

    fn session_refused(&self, reason: RefusedSession) {
        telemetry::audit(&self.trace.context, &Audit::SessionRefused { reason });
    }

    /// Ends the session for good and clears the cookie (product 3.6). Durable when this returns.
    pub(super) async fn end_session(&mut self, reason: EndReason) -> Result<(), Failure> {
        if let Session::Live(live) = &self.session {
            let (gate, key, now) = (Arc::clone(&self.worker.gate), *live.handle.key(), self.now);
            self.must_finish(async move { gate.end(&key, reason, true, now).await }).await??;
        }
        self.trace.settled.ours = Some(self.site.site.cookie.clear());
        Ok(())
    }

    /// Runs a write that has to be carried out although the client may leave meanwhile.
    pub(super) async fn must_finish<T: Send + 'static>(
        &self,
        write: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.worker.gate.writes.spawn(write).await.map_err(|_| Failure::Unfinished)
    }

    /// A new session for the user who has just logged in; the old ID is dead before the new one is
    /// known to anyone (S26). `keep` says which of the application's cookies travel.
    pub(super) async fn begin_authenticated(
        &mut self,
        user: UserName,
        keep: impl FnOnce(Option<&Record>) -> Vault + Send + 'static,
    ) -> Result<(), Failure> {
        let id = new_id()?;
        let handle = id.handle();
        let identity = Arc::new(Identity::new(user, self.now, Arc::from(handle.key().session_ref())));
        let old = self.session.live().map(|live| live.handle.clone());
        let (gate, rules, site) =
            (Arc::clone(&self.worker.gate), Arc::clone(&self.site.rules), Arc::clone(&self.site.name));
        let (now, binding, chain) = (self.now, self.binding(), Chain::begin(id.verifier(), self.now));
        let (known, new) = (Arc::clone(&identity), handle.clone());
        let created = self
            .must_finish(async move {
                // Exactly one login gets the old record, and with it the vault.
                let ended = match old {
                    Some(old) => gate.take(&old, EndReason::Login, now).await?,
                    None => None,
                };
                let record =
                    Record::authenticated(site, known, binding, chain, Arc::new(keep(ended.as_ref())), &rules, now);
                let presence = gate.store.create(&new, record.clone()).await?;
                Ok::<_, StoreError>((presence, record))
            })
            .await?;
        let (presence, record) = created?;
        if presence == Presence::Gone {
            return Err(Failure::NoId);
        }
        self.trace.context.session_ref = Some(Arc::clone(&identity.session_ref));
        telemetry::audit(&self.trace.context, &Audit::SessionAuthenticated { user: identity.user.as_str() });
        self.trace.user = Some(identity);
        self.trace.authenticated = true;
        self.owe_cookie(&id, &record);
        self.session = Session::Live(Box::new(Live { handle, id, record, standing: Standing::Current }));
        Ok(())
    }

    /// Keeps what the application set: in the session, or in a new anonymous one if there is none
    /// and one may be begun (product 3.2).
    pub(super) async fn keep_cookies(&mut self, mut changes: Vec<VaultChange>) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        if let Session::Live(live) = &self.session {
            if live.record.vault.changed(&changes, self.now).is_none() {
                return Ok(());
            }
            // What went to the application just now is in use: it is not what a full vault loses.
            let host = &self.site.site.origin.host;
            changes.extend(live.record.vault.uses_for(&self.target, host, self.cross_site, self.now));
            let (gate, handle, now) = (Arc::clone(&self.worker.gate), live.handle.clone(), self.now);
            let presence =
                self.must_finish(async move { gate.store.change_vault(&handle, &changes, now).await }).await??;
            // Gone: the session ended while the application answered; its cookies end with it.
            let _ended_meanwhile = presence;
            return Ok(());
        }
        let Some(vault) = Vault::default().changed(&changes, self.now).filter(|vault| !vault.is_empty()) else {
            return Ok(());
        };
        if self.may_begin() && self.within_rate() {
            return self.begin_anonymous(vault).await;
        }
        // After a logout or login nothing of the old session is to be kept: that is no loss.
        let ended = matches!(self.session, Session::None { tombstone: true });
        for cookie in vault.cookies().iter().filter(|_| !ended) {
            let name = String::from_utf8_lossy(&cookie.name);
            if self.worker.gate.says_first(format!("dropped {} {name}", self.site.name)) {
                telemetry::audit(&self.trace.context, &Audit::CookieDropped { name: &name });
            }
        }
        Ok(())
    }

    fn may_begin(&self) -> bool {
        let tombstone = matches!(self.session, Session::None { tombstone: true });
        !tombstone && matches!(self.kind, RequestKind::Navigation | RequestKind::Fetch)
    }

    fn within_rate(&self) -> bool {
        let minute = self.now.as_secs() / 60;
        let place = (Arc::clone(&self.site.name), prefix(self.client.address));
        let mut begun = self.worker.gate.begun.entry(place).or_insert((minute, 0));
        if begun.0 != minute {
            *begun = (minute, 0);
        }
        begun.1 += 1;
        begun.1 <= BEGUN_PER_MINUTE
    }

    async fn begin_anonymous(&mut self, vault: Vault) -> Result<(), Failure> {
        let gate = Arc::clone(&self.worker.gate);
        while gate.store.anonymous(&self.site.name).await? >= self.site.site.limits.anonymous_sessions {
            let Some(evicted) = gate.store.evict_anonymous(&self.site.name).await? else { break };
            gate.streams.end(&evicted);
        }
        let id = new_id()?;
        let (handle, chain) = (id.handle(), Chain::begin(id.verifier(), self.now));
        let site = Arc::clone(&self.site.name);
        let record = Record::anonymous(site, self.binding(), chain, Arc::new(vault), &self.site.rules, self.now);
        let (new, stored) = (handle.clone(), record.clone());
        let presence = self.must_finish(async move { gate.store.create(&new, stored).await }).await??;
        if presence == Presence::Gone {
            return Err(Failure::NoId);
        }
        self.trace.context.session_ref = Some(session_ref(handle.key(), &record));
        telemetry::audit(&self.trace.context, &Audit::SessionCreated);
        self.owe_cookie(&id, &record);
        self.session = Session::Live(Box::new(Live { handle, id, record, standing: Standing::Current }));
        Ok(())
    }

    /// Periodic rotation, decided when the response leaves, on the record as it is then.
    pub(super) async fn rotate(&mut self, response: &http::HeaderMap, eligible: bool) -> Result<(), Failure> {
        let Some(every) = self.site.rules.rotate_every else { return Ok(()) };
        let Session::Live(live) = &self.session else { return Ok(()) };
        let overdue = live.record.chain.is_due(every * 2, self.now);
        let due = live.standing == Standing::Superseded || live.record.chain.is_due(every, self.now);
        if !due || self.trace.settled.ours.is_some() || !(overdue || (eligible && !headers::is_cacheable(response))) {
            return Ok(());
        }
        let (handle, id) = (live.handle.clone(), live.id.clone());
        for _ in 0..ATTEMPTS {
            let Found::Record(record) = self.worker.gate.store.load(&handle, self.now).await? else { return Ok(()) };
            let successor = match record.chain.standing(id.verifier(), self.site.rules.rotation_grace, self.now) {
                Standing::Superseded => record.chain.successor(id.verifier()),
                Standing::Current if record.chain.is_due(every, self.now) => {
                    let successor = *new_id()?.verifier();
                    let chain = record.chain.offer(id.verifier(), &successor, self.now);
                    match self.worker.gate.store.swap_chain(handle.key(), record.revision, chain).await? {
                        Swap::Swapped => {
                            telemetry::audit(&self.trace.context, &Audit::SessionRotated);
                            Some(successor)
                        }
                        Swap::Stale => continue,
                        Swap::Gone => return Ok(()),
                    }
                }
                Standing::Current | Standing::Successor | Standing::InGrace | Standing::Reused => None,
            };
            if let Some(successor) = successor {
                self.owe_cookie(&id.with_verifier(successor), &record);
            }
            return Ok(());
        }
        Err(Failure::Unfinished)
    }

    fn owe_cookie(&mut self, id: &SessionId, record: &Record) {
        let remaining = record.absolute_end.since(self.now);
        self.trace.settled.ours = Some(self.site.site.cookie.set(id, remaining));
    }

    fn binding(&self) -> Binding {
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        Binding::new(self.client.address, user_agent)
    }

    /// Ties a stream or tunnel to the session, if there is one.
    pub(super) fn bound(&self, activity: bool) -> Option<Bound> {
        let live = self.session.live()?;
        let guard = self.worker.gate.streams.bind(*live.handle.key(), &self.site.rules);
        Some(Bound::new(guard, activity.then(|| self.pulse(live))))
    }

    pub(super) fn pulse(&self, live: &Live) -> Pulse {
        let gate = &self.worker.gate;
        Pulse::new(Arc::clone(&gate.store), Arc::clone(&gate.clock), *live.handle.key(), &self.site.rules)
    }
}

/// A new ID from the operating system's generator (S16).
fn new_id() -> Result<SessionId, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::NoId)?;
    Ok(SessionId::from_random(bytes))
}

fn session_ref(key: &SessionKey, record: &Record) -> Arc<str> {
    match &record.identity {
        Some(identity) => Arc::clone(&identity.session_ref),
        None => Arc::from(key.session_ref()),
    }
}

/// The /24 or /64 that an address is in.
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address) & 0xffff_ff00)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
    }
}
