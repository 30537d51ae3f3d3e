//! The sessions of one user together: as many as they may have, and all that are to end at once.

use std::sync::Arc;

use http::HeaderMap;

use crate::clock::Timestamp;
use crate::policy::logout;
use crate::policy::logout::LogoutRule;
use crate::policy::logout::Told;
use crate::policy::session::EndReason;
use crate::policy::session::Identity;
use crate::policy::session::SessionRules;
use crate::proxy::Gate;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::logout::clear_site_data;
use crate::proxy::session::Session;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;

impl Gate {
    /// Ends all sessions of a user on a site.
    pub(super) async fn end_all(
        &self,
        identity: &Identity,
        site: &str,
        now: Timestamp,
        by: &Context,
    ) -> Result<(), StoreError> {
        for key in self.store.by_user(identity.user.as_str(), Some(site)).await? {
            self.end(&key, EndReason::Logout, true, now, by).await?;
        }
        Ok(())
    }

    /// Ends the oldest of a user's sessions, of which there may be too many since the last login. Logins at
    /// the same time may each do it: they agree on which ones go.
    pub(super) async fn displace(
        &self,
        identity: &Identity,
        site: &str,
        rules: &SessionRules,
        now: Timestamp,
        by: &Context,
    ) -> Result<(), StoreError> {
        let Some(most) = rules.max_per_user.and_then(|most| usize::try_from(most).ok()) else { return Ok(()) };
        let mut live = Vec::new();
        for key in self.store.by_user(identity.user.as_str(), Some(site)).await? {
            // Those whose time is up are none any more, and must not push others out.
            if self.store.peek(&key).await?.is_some_and(|session| self.end_of(&session, now).is_some()) {
                live.push(key);
            }
        }
        let excess = live.len().saturating_sub(most);
        for key in &live[..excess] {
            self.end(key, EndReason::Displaced, false, now, by).await?;
        }
        Ok(())
    }
}

impl Exchange<'_> {
    /// Ends all sessions of this user here; carried out although the client may leave meanwhile.
    pub(super) async fn end_everywhere(&self, identity: Identity) -> Result<(), Failure> {
        let (gate, site, now) = (Arc::clone(&self.worker.gate), Arc::clone(&self.site.name), self.now);
        let by = self.trace.context.clone();
        Ok(self.must_finish(async move { gate.end_all(&identity, &site, now, &by).await }).await??)
    }

    /// What an answer of the application says is over (product 3.6).
    fn told(&self, answer: &HeaderMap) -> Option<(Arc<LogoutRule>, Told)> {
        let (rule, told) = logout::told(&self.site.site.logout, answer)?;
        if told.is_none() && self.worker.gate.says_first(format!("end_header {}", self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::EndMisread);
        }
        Some((Arc::clone(rule), told?))
    }

    /// Ends what an answer says. As after a logout nothing in it is kept or mints.
    pub(super) async fn end_as_told(&mut self, answer: &HeaderMap) -> Result<(), Failure> {
        let Some((rule, told)) = self.told(answer).filter(|_| self.session.live().is_some()) else { return Ok(()) };
        let identity = self.session.identity().cloned();
        self.end_session(EndReason::Logout).await?;
        if let (Told::User, Some(identity)) = (told, identity) {
            self.end_everywhere(identity).await?;
        }
        self.trace.settled.clear = clear_site_data(&rule.clear_site_data);
        self.session = Session::None { tombstone: true };
        Ok(())
    }

    /// The same for the answer to a logout, which has ended this session already.
    pub(super) async fn end_others_as_told(
        &self,
        answer: &HeaderMap,
        identity: Option<Identity>,
    ) -> Result<(), Failure> {
        match (self.told(answer), identity) {
            (Some((_, Told::User)), Some(identity)) => self.end_everywhere(identity).await,
            (Some((_, Told::User | Told::Session)) | None, _) => Ok(()),
        }
    }
}
