//! The application's cookies on their way back: to the vault, to the browser, or nowhere (product 3.3);
//! and the anonymous sessions that exist only to keep them.

use std::sync::Arc;

use http::HeaderMap;
use http::header;

use crate::policy::binding::prefix;
use crate::policy::chain::Chain;
use crate::policy::cookie::SetCookie;
use crate::policy::csrf::RequestKind;
use crate::policy::lifecycle;
use crate::policy::login;
use crate::policy::session::EndReason;
use crate::policy::session::Record;
use crate::policy::vault::Fate;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultChange;
use crate::policy::vault::VaultCookie;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::session::Live;
use crate::proxy::session::Session;
use crate::proxy::session::new_id;
use crate::store::Presence;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Dropped;

/// Anonymous sessions an address prefix may begin in a minute (S176).
const BEGUN_PER_MINUTE: u32 = 60;

impl Exchange<'_> {
    /// Splits the application's cookies and keeps what is to be kept. A store that cannot answer is
    /// a failure only for requests that have a session; others lose the cookie (product 3.8).
    pub(super) async fn take_cookies(&mut self, headers: &mut HeaderMap) -> Result<(), Failure> {
        let changes = self.split_cookies(headers);
        let kept = self.keep_cookies(changes).await;
        match (kept, &self.session) {
            (Err(Failure::Store(error)), Session::None { .. } | Session::Unproven(_)) => {
                let error: &StoreError = &error;
                telemetry::audit(&self.trace.context, &Audit::StoreFailed { error });
                Ok(())
            }
            (kept, Session::None { .. } | Session::Unproven(_) | Session::Live(_)) => kept,
        }
    }

    /// The changes to the vault; what goes to the browser stays in the headers, one line each, in
    /// order (S7).
    pub(super) fn split_cookies(&self, headers: &mut HeaderMap) -> Vec<VaultChange> {
        let header::Entry::Occupied(lines) = headers.entry(header::SET_COOKIE) else { return Vec::new() };
        let (_, lines) = lines.remove_entry_mult();
        let lines: Vec<_> = lines.collect();
        let (site, learned) = (&self.site.site, &self.site.lasting.learned);
        let mut changes = Vec::new();
        for line in lines {
            let Some(cookie) = SetCookie::parse(&line, self.now) else {
                // Without `=` it is all value, and not to be written down.
                let name = line.as_bytes().iter().position(|byte| *byte == b'=').unwrap_or(0);
                self.say_dropped(&line.as_bytes()[..name], Dropped::Refused);
                continue;
            };
            if site.cookie.is_imitated_by(&cookie) {
                self.say_dropped(&cookie.name, Dropped::Reserved);
                continue;
            }
            self.say_unwatched(&cookie);
            match site.cookies.fate(&cookie, &|name| learned.knows(name)) {
                Fate::Vault => {
                    let change = VaultChange::of(&cookie, &self.target, &site.origin.host, self.now);
                    if change.is_none() {
                        self.say_dropped(&cookie.name, Dropped::Refused);
                    }
                    if change.is_some() && site.cookies.is_learned_from(&cookie) {
                        learned.learn(&cookie.name);
                    }
                    changes.extend(change);
                }
                Fate::Harden => {
                    headers.append(header::SET_COOKIE, cookie.hardened());
                }
                Fate::Pass => {
                    headers.append(header::SET_COOKIE, line);
                }
                Fate::Drop => {}
            }
        }
        changes
    }

    /// One line per name and reason.
    pub(super) fn say_dropped(&self, name: &[u8], reason: Dropped) {
        let name = String::from_utf8_lossy(name);
        if self.worker.gate.says_first(format!("dropped {reason:?} {} {name}", self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::CookieDropped { name: &name, reason });
        }
    }

    /// A session cookie that some login rule waits for, set where no rule watches; said once.
    fn say_unwatched(&self, cookie: &SetCookie) {
        if self.watched || self.session.is_authenticated() || cookie.is_deletion(self.now) {
            return;
        }
        let Ok(name) = std::str::from_utf8(&cookie.name) else { return };
        let is_awaited = login::awaits_cookie(&self.site.site.login, name);
        if is_awaited && self.worker.gate.says_first(format!("unwatched {} {name}", self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::LoginUnwatched { cookie: name });
        }
    }

    /// Drops what an anonymous session kept for the application.
    pub(super) async fn forget_vault(&mut self) -> Result<(), Failure> {
        let Some(vault) = self.session.vault() else { return Ok(()) };
        let remove = |cookie: &VaultCookie| VaultChange::Remove {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            domain: cookie.domain.clone(),
        };
        let changes = vault.cookies().iter().map(remove).collect();
        self.keep_cookies(changes).await?;
        if let Session::Live(live) = &mut self.session {
            live.record.vault = Vault::default();
        }
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
            self.say_overflow(&live.record.vault, &changes);
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
            self.say_overflow(&Vault::default(), &changes);
            return self.begin_anonymous(vault).await;
        }
        // After a logout or login nothing of the old session is to be kept: that is no loss.
        let is_no_loss = self.session.is_not_replaced();
        for cookie in vault.cookies().iter().filter(|_| !is_no_loss) {
            self.say_dropped(&cookie.name, Dropped::NoSession);
        }
        Ok(())
    }

    fn say_overflow(&self, vault: &Vault, changes: &[VaultChange]) {
        for name in vault.overflow(changes, self.now) {
            self.say_dropped(&name, Dropped::Full);
        }
    }

    fn may_begin(&self) -> bool {
        let replaces_none = !self.session.is_not_replaced() && !self.withholds_our_cookie();
        replaces_none && matches!(self.kind, RequestKind::Navigation | RequestKind::Fetch)
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
        while gate.store.population(&self.site.name).await?.anonymous >= self.site.site.limits.anonymous_sessions {
            let Some((key, session)) = gate.store.evict_anonymous(&self.site.name).await? else { break };
            gate.ended(&key, &session, EndReason::Displaced, &self.trace.context);
        }
        let id = new_id()?;
        let (handle, chain) = (id.handle(), Chain::begin(id.verifier(), self.now));
        let site = Arc::clone(&self.site.name);
        let record = Record::anonymous(site, self.binding(), chain, vault, &self.site.rules, self.now);
        let (new, stored) = (handle.clone(), record.clone());
        let idle = lifecycle::idle_limit(record.life(), &self.site.rules);
        let presence = self.must_finish(async move { gate.store.create(&new, stored, idle).await }).await??;
        if presence == Presence::Gone {
            return Err(Failure::NoId);
        }
        self.trace.context.session_ref = Some(handle.key().session_ref());
        self.worker.gate.tally.begun(false);
        telemetry::audit(&self.trace.context, &Audit::SessionCreated);
        self.owe_cookie(&id, &record);
        self.session = Session::Live(Live { handle, id, record: Box::new(record) });
        Ok(())
    }
}
