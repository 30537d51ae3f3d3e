//! Carries the session decisions out: look up, confirm, create, rotate, end, keep cookies.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::binding::Binding;
use crate::policy::binding::Mismatch;
use crate::policy::chain::Chain;
use crate::policy::chain::Owed;
use crate::policy::chain::Standing;
use crate::policy::cookie::Presented;
use crate::policy::dbsc;
use crate::policy::dbsc::Lack;
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
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::streams::Bound;
use crate::proxy::streams::Pulse;
use crate::proxy::streams::StreamGuard;
use crate::store::Found;
use crate::store::Presence;
use crate::store::StoreError;
use crate::store::Swap;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::RefusedSession;

/// How often a change is decided again because another request changed the record in between.
const ATTEMPTS: usize = 16;
/// A body of at most this length is over so soon that nobody cuts it.
const SHORT: u64 = 256 * 1024;

/// The session of a request.
pub(super) enum Session {
    /// None that can be used.
    None {
        /// The presented one was ended by a login or logout a moment ago: nothing may be minted for
        /// it, or a late response would overwrite the new cookie.
        tombstone: bool,
    },
    /// One that is bound to a device, and the request does not show that it comes from there: none, for all
    /// but what ends it or proves it.
    Unproven(Live),
    /// A live one.
    Live(Live),
}

/// A session that was judged and found alive.
pub(super) struct Live {
    pub(super) handle: Handle,
    pub(super) id: SessionId,
    pub(super) record: Box<Record>,
}

impl Session {
    pub(super) fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::None { .. } | Self::Unproven(_) => None,
        }
    }

    /// The same whether or not the request shows that it comes from the device.
    pub(super) fn known(&self) -> Option<&Live> {
        match self {
            Self::Live(live) | Self::Unproven(live) => Some(live),
            Self::None { .. } => None,
        }
    }

    /// It has shown that it comes from the device.
    pub(super) fn prove(&mut self) {
        *self = match std::mem::replace(self, Self::None { tombstone: false }) {
            Self::Unproven(live) => Self::Live(live),
            other @ (Self::None { .. } | Self::Live(_)) => other,
        };
    }

    /// Whether a response must not begin another session: its cookie would take the place of one that is still
    /// good, or that came after a login or logout.
    pub(super) fn is_not_replaced(&self) -> bool {
        matches!(self, Self::None { tombstone: true } | Self::Unproven(_))
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.live().and_then(|live| live.record.identity.as_ref())
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.identity().is_some()
    }

    pub(super) fn vault(&self) -> Option<&Vault> {
        self.live().map(|live| &live.record.vault)
    }
}

impl Exchange<'_> {
    /// Looks the presented ID up and has it judged. Every refusal is the same to the client: no
    /// session (S58).
    pub(super) async fn find_session(&mut self) -> Result<(), Failure> {
        let id = match std::mem::replace(&mut self.presented, Presented::None) {
            Presented::None => return Ok(()),
            Presented::Malformed => {
                let reason = RefusedSession::Malformed;
                telemetry::audit(&self.trace.context, &Audit::SessionRefused { reason });
                return Ok(());
            }
            Presented::Id(id) => id,
        };
        let handle = id.handle();
        let mut found = self.worker.gate.store.load(&handle, self.now).await?;
        let mut is_fresh = false;
        for _ in 0..ATTEMPTS {
            let record = match found {
                Found::Record(record) => record,
                Found::Tombstone => {
                    self.session = Session::None { tombstone: true };
                    self.refuse_session(handle.key(), None, RefusedSession::Ended);
                    return Ok(());
                }
                Found::Absent => {
                    self.refuse_session(handle.key(), None, RefusedSession::Unknown);
                    return Ok(());
                }
            };
            let verdict = self.judge(&record, &id);
            match verdict {
                Verdict::Live { standing: Standing::Successor, .. } => {
                    // Presented for the first time: from now on the predecessor is on its way out.
                    if let Some(chain) = record.chain.confirm(self.binding(), self.now) {
                        // Whatever the swap says, the record is read and judged again.
                        let store = &self.worker.gate.store;
                        let _judged_again = store.swap_chain(handle.key(), record.revision, chain).await?;
                    }
                }
                Verdict::Live { signal, .. } => {
                    self.adopt(handle, id, record, signal);
                    return Ok(());
                }
                // Nobody is turned away on what was known before: another node may know better.
                Verdict::Unproven(lack) => {
                    if is_fresh {
                        self.doubt(handle, id, record, lack);
                        return Ok(());
                    }
                }
                Verdict::Expired(_) | Verdict::WrongClient { .. } | Verdict::Reused | Verdict::Foreign => {
                    if is_fresh && self.dismiss(handle.key(), &record, verdict).await? {
                        return Ok(());
                    }
                }
            }
            found = self.worker.gate.store.reload(&handle, self.now).await?;
            is_fresh = true;
        }
        Err(Failure::Unfinished)
    }

    fn judge(&self, record: &Record, id: &SessionId) -> Verdict {
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        let (address, bound) = (self.client.address, self.bound_cookie.as_ref());
        let presenter = Presenter { site: &self.site.name, address, user_agent, bound };
        lifecycle::judge(record, id, presenter, &self.site.rules, self.now)
    }

    fn adopt(&mut self, handle: Handle, id: SessionId, record: Box<Record>, signal: Option<Mismatch>) {
        let key = handle.key();
        self.trace.context.session_ref = Some(key.session_ref());
        self.trace.context.user = record.identity.as_ref().map(|identity| identity.user.clone());
        self.trace.authenticated = record.identity.is_some();
        if let Some(mismatch) = signal {
            self.say_changed(key, &self.trace.context, mismatch);
        }
        self.session = Session::Live(Live { handle, id, record });
    }

    /// It is not used, and not replaced or ended either: its owner may prove yet that it is theirs.
    fn doubt(&mut self, handle: Handle, id: SessionId, record: Box<Record>, lack: Lack) {
        let context = self.context_of(handle.key(), Some(&record));
        // Honest browsers come here to prove it, and when they are sent by another site.
        if self.device_endpoint().is_none() {
            if !dbsc::can_try_again(&self.method, &self.headers) {
                self.refuse_session(handle.key(), Some(&record), RefusedSession::Device(lack));
            } else if self.is_news(handle.key(), "device, for now") {
                let reason = RefusedSession::DeviceForNow(lack);
                telemetry::audit(&context, &Audit::SessionRefused { reason });
            }
        }
        self.device_lacks(handle.key(), &context, lack);
        self.session = Session::Unproven(Live { handle, id, record });
    }

    fn say_changed(&self, key: &SessionKey, context: &Context, mismatch: Mismatch) {
        if self.is_news(key, mismatch.as_str()) {
            telemetry::audit(context, &Audit::BindingSignal { mismatch });
        }
    }

    /// Turns away who presents an ID that does not let them in, and ends the session if that is the answer.
    /// No: the session has changed since it was judged.
    async fn dismiss(&mut self, key: &SessionKey, record: &Record, verdict: Verdict) -> Result<bool, Failure> {
        let context = self.context_of(key, Some(record));
        match verdict {
            Verdict::Expired(reason) => {
                self.worker.gate.end(key, reason, false, self.now, &self.trace.context).await?;
                self.refuse_session(key, Some(record), RefusedSession::Expired(reason));
            }
            Verdict::WrongClient { revoke, mismatch } => {
                if revoke {
                    self.worker.gate.end(key, EndReason::Binding, false, self.now, &context).await?;
                }
                self.say_changed(key, &context, mismatch);
                self.refuse_session(key, Some(record), RefusedSession::Binding);
            }
            Verdict::Reused => {
                let (gate, key, revision, by) = (Arc::clone(&self.worker.gate), *key, record.revision, context.clone());
                let ended = self.must_finish(async move { gate.end_copied(&key, revision, &by).await }).await?;
                if matches!(ended, Ok(false)) {
                    return Ok(false);
                }
                let holder = record.chain.holder.as_ref().unwrap_or(&record.binding);
                let changed = holder.changes(&self.binding());
                telemetry::audit(&context, &Audit::SessionReused { holder: holder.address, changed: &changed });
                self.suspect(&key, &context);
                // Said before: it may have been carried out although nobody heard so, and the ID was copied anyway.
                ended?;
            }
            Verdict::Foreign => self.refuse_session(key, Some(record), RefusedSession::Foreign),
            Verdict::Live { .. } | Verdict::Unproven(_) => {}
        }
        Ok(true)
    }

    /// Ends the session for good and clears the cookie (product 3.6). Durable when this returns.
    pub(super) async fn end_session(&mut self, reason: EndReason) -> Result<(), Failure> {
        if let Some(live) = self.session.known() {
            let (gate, key, now) = (Arc::clone(&self.worker.gate), *live.handle.key(), self.now);
            let (device, by) = (live.record.device.clone(), self.trace.context.clone());
            let ended = self.must_finish(async move {
                gate.end(&key, reason, true, now, &by).await?;
                gate.forget_device(device.as_deref()).await;
                Ok::<_, StoreError>(())
            });
            ended.await??;
        }
        self.trace.settled.ours = Some(self.site.site.cookie.clear());
        self.clear_bound();
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
        let identity = Identity { user, authenticated: self.now, session_ref: handle.key().session_ref() };
        let old = self.session.known().map(|live| live.handle.clone());
        // What a thief has of it does not travel.
        let is_proven = self.session.live().is_some();
        let device = self.new_device()?;
        let (gate, rules, site) =
            (Arc::clone(&self.worker.gate), Arc::clone(&self.site.rules), Arc::clone(&self.site.name));
        let (now, binding, chain) = (self.now, self.binding(), Chain::begin(id.verifier(), self.now));
        let (known, new, by) = (identity.clone(), handle.clone(), self.trace.context.clone());
        let created = self
            .must_finish(async move {
                // Exactly one login gets the old record, and with it the vault.
                let ended = match old {
                    Some(old) => gate.take(&old, EndReason::Login, now, &by).await?,
                    None => None,
                };
                if let Some(ended) = &ended {
                    gate.forget_device(ended.device.as_deref()).await;
                }
                let vault = keep(ended.filter(|_| is_proven).as_ref());
                let record = Record::authenticated(site, known, binding, chain, vault, &rules, now);
                let record = Record { device, ..record };
                let idle = lifecycle::idle_limit(record.life(), &rules);
                let presence = gate.store.create(&new, record.clone(), idle).await?;
                if let Some(identity) = &record.identity {
                    gate.displace(identity, &record.site, &rules, now, &by).await?;
                }
                Ok::<_, StoreError>((presence, record))
            })
            .await?;
        let (presence, record) = created?;
        if presence == Presence::Gone {
            return Err(Failure::NoId);
        }
        self.trace.context.session_ref = Some(identity.session_ref);
        self.trace.context.user = Some(identity.user);
        self.worker.gate.tally.begun(true);
        telemetry::audit(&self.trace.context, &Audit::SessionAuthenticated);
        self.trace.authenticated = true;
        self.owe_cookie(&id, &record);
        if let Some(device) = &record.device {
            self.owe_offer(device);
        }
        self.session = Session::Live(Live { handle, id, record: Box::new(record) });
        Ok(())
    }

    /// Periodic rotation, decided when the response leaves, on the record as it is then.
    pub(super) async fn rotate(&mut self, response: &http::HeaderMap, eligible: bool) -> Result<(), Failure> {
        let Some(every) = self.site.rules.rotate_every else { return Ok(()) };
        let Session::Live(live) = &self.session else { return Ok(()) };
        let is_overdue = live.record.chain.age(self.now) >= every * 2;
        let is_time = is_overdue || (eligible && !headers::is_cacheable(response));
        if !is_time || self.trace.settled.ours.is_some() {
            return Ok(());
        }
        self.hand_on(every).await
    }

    /// Gives the client the successor of its ID, if that is of this age.
    pub(super) async fn hand_on(&mut self, every: Duration) -> Result<(), Failure> {
        let Session::Live(live) = &self.session else { return Ok(()) };
        let (grace, now) = (self.site.rules.rotation_grace, self.now);
        let owes = |record: &Record| record.chain.owes(live.id.verifier(), every, grace, now);
        if owes(&live.record) == Owed::Nothing {
            return Ok(());
        }
        let store = Arc::clone(&self.worker.gate.store);
        for _ in 0..ATTEMPTS {
            let Found::Record(record) = store.load(&live.handle, now).await? else { return Ok(()) };
            if lifecycle::expiry(record.life(), &self.site.rules, now).is_some() {
                return Ok(());
            }
            let successor = match owes(&record) {
                Owed::Nothing => return Ok(()),
                Owed::Successor(successor) => {
                    if let Some(chain) = record.chain.share(&self.binding()) {
                        match store.swap_chain(live.handle.key(), record.revision, chain).await? {
                            Swap::Swapped => self.say_shared(&record),
                            Swap::Stale => continue,
                            Swap::Gone => return Ok(()),
                        }
                    }
                    successor
                }
                Owed::New => {
                    let successor = *new_id()?.verifier();
                    let chain = record.chain.offer(live.id.verifier(), &successor, self.binding(), now);
                    match store.swap_chain(live.handle.key(), record.revision, chain).await? {
                        Swap::Swapped => telemetry::audit(&self.trace.context, &Audit::SessionRotated),
                        Swap::Stale => continue,
                        Swap::Gone => return Ok(()),
                    }
                    successor
                }
            };
            let id = live.id.with_verifier(successor);
            self.owe_cookie(&id, &record);
            return Ok(());
        }
        Err(Failure::Unfinished)
    }

    fn say_shared(&self, record: &Record) {
        let holder = record.chain.holder.as_ref().unwrap_or(&record.binding);
        let changed = holder.changes(&self.binding());
        telemetry::audit(&self.trace.context, &Audit::SessionShared { holder: holder.address, changed: &changed });
    }

    pub(super) fn owe_cookie(&mut self, id: &SessionId, record: &Record) {
        let remaining = record.absolute_end.since(self.now);
        self.trace.settled.ours = Some(self.site.site.cookie.set(id, remaining));
    }

    pub(super) fn binding(&self) -> Binding {
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        Binding::new(self.client.address, user_agent)
    }

    /// Ties a body to the session, if there is one and the body is not so short that it does not matter.
    /// While it moves the session does not idle, unless this is no `activity`.
    pub(super) fn bound(&self, length: Option<u64>, activity: bool) -> Option<Bound> {
        if length.is_some_and(|length| length <= SHORT) {
            return None;
        }
        Some(Bound::new(self.guard()?, if activity { self.pulse() } else { None }))
    }

    /// Ends what holds it with the session.
    pub(super) fn guard(&self) -> Option<StreamGuard> {
        let live = self.session.live()?;
        let is_proven = self.outlives_registration(live.record.device.as_deref());
        Some(self.worker.gate.streams.bind(*live.handle.key(), live.record.absolute_end, is_proven))
    }

    /// Keeps the session from idling, unless the path is `untouched`.
    pub(super) fn pulse(&self) -> Option<Pulse> {
        let live = self.session.live().filter(|_| !self.is_untouched())?;
        let gate = &self.worker.gate;
        let idle = lifecycle::idle_limit(live.record.life(), &self.site.rules);
        Some(Pulse::new(Arc::clone(&gate.store), Arc::clone(&gate.clock), *live.handle.key(), idle))
    }
}

/// A new ID from the operating system's generator (S16).
pub(super) fn new_id() -> Result<SessionId, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::NoId)?;
    Ok(SessionId::from_random(bytes))
}
