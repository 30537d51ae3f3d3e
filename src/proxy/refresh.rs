//! The refresh of a device-bound session: a new bound cookie for a proof. It is asked for by the
//! identifier alone, since what another site asks for brings none of our cookies; where the session's cookie
//! comes along, the refresh is also its periodic rotation.

use std::time::Duration;

use http::Response;
use http::StatusCode;

use crate::policy::binding::Mismatch;
use crate::policy::binding::OnMismatch;
use crate::policy::dbsc;
use crate::policy::dbsc::Answered;
use crate::policy::dbsc::BadProof;
use crate::policy::dbsc::Endpoint;
use crate::policy::dbsc::Identifier;
use crate::policy::dbsc::RefusedDevice;
use crate::policy::dbsc::Registration;
use crate::policy::lifecycle;
use crate::policy::session::SessionKey;
use crate::proxy::body::Body;
use crate::proxy::device::Denied;
use crate::proxy::device::name_of;
use crate::proxy::device::random;
use crate::proxy::device::sealed;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::reply;
use crate::store::Swap;
use crate::store::sealed::device;
use crate::store::shelf::Name;
use crate::store::shelf::Version;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::DeviceEvent;

/// How often a refresh is decided again because another one came first.
const ATTEMPTS: usize = 16;

/// The registration that a refresh is about.
pub(super) struct Found {
    identifier: Identifier,
    name: Name,
    version: Version,
    pub(super) registration: Registration,
}

impl Exchange<'_> {
    /// Gives a new bound cookie, or something to sign.
    pub(super) async fn refresh(&mut self) -> Result<Response<Body>, Denied> {
        let found = self.registration().await?;
        self.may_still_be_used(&found).await?;
        let (is_proven, Found { identifier, registration, .. }) = self.prove(found).await?;
        if !is_proven {
            self.worker.gate.tally.devices.challenged();
            let mut response = reply::problem(StatusCode::FORBIDDEN, "Sign the challenge.");
            let challenge = dbsc::challenge(&registration.challenges.text(), &identifier);
            response.headers_mut().insert(dbsc::CHALLENGE, challenge);
            return Ok(response);
        }
        self.mend(&registration.session).await?;
        self.rotate_proven(&registration.session).await?;
        self.worker.gate.tally.devices.refreshed();
        telemetry::audit(&self.trace.context, &Audit::Device(DeviceEvent::Refreshed));
        Ok(self.grant(&identifier, &registration))
    }

    /// The registration that is named; it is worth nothing on another site.
    async fn registration(&mut self) -> Result<Found, Denied> {
        let identifier = self.named().ok_or(RefusedDevice::Unknown)?;
        match self.load_registration(identifier).await {
            Ok(found) if found.registration.site == self.site.name => Ok(found),
            Ok(_) | Err(Denied::Refused(RefusedDevice::Unknown)) => {
                // Guessed as IDs are, and counted with them (S59).
                self.suspect(&SessionKey(*identifier.bytes()), &self.trace.context.clone());
                Err(RefusedDevice::Unknown.into())
            }
            Err(other) => Err(other),
        }
    }

    /// What a refresh says that it is for.
    pub(super) fn named(&self) -> Option<Identifier> {
        dbsc::text(&self.headers, &dbsc::SESSION_ID).and_then(Identifier::parse)
    }

    pub(super) async fn load_registration(&self, identifier: Identifier) -> Result<Found, Denied> {
        let name = name_of(&identifier);
        let shelved = self.worker.gate.store.shelved(&name, self.now).await?.ok_or(RefusedDevice::Unknown)?;
        let registration = device::open(&identifier, &shelved.value).map_err(|_| RefusedDevice::Unusable)?;
        Ok(Found { identifier, name, version: shelved.version, registration })
    }

    /// Whether the session is still there, within its limits, and may be used by this client.
    async fn may_still_be_used(&mut self, found: &Found) -> Result<(), Denied> {
        let (gate, session) = (&self.worker.gate, &found.registration.session);
        let Some(outline) = gate.store.peek(session).await? else {
            gate.store.unshelve(&found.name).await?;
            return Err(RefusedDevice::NoSession.into());
        };
        self.trace.context = self.trace.context.about(session, &outline);
        if let Some(reason) = lifecycle::expiry(outline.life(), &self.site.rules, self.now) {
            gate.end(session, reason, false, self.now, &self.trace.context).await?;
            gate.store.unshelve(&found.name).await?;
            return Err(RefusedDevice::NoSession.into());
        }
        let user_agent = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        match outline.binding.compare(self.site.rules.binding, self.client.address, user_agent) {
            Some(Mismatch::Address(action) | Mismatch::UserAgent(action)) if action != OnMismatch::Log => {
                Err(RefusedDevice::WrongClient.into())
            }
            Some(Mismatch::Address(_) | Mismatch::UserAgent(_) | Mismatch::Signal(_)) | None => Ok(()),
        }
    }

    /// Judges the proof, if there is one. A challenge is used once: then there is a new one. Whoever has no proof
    /// gets the one that is there: nobody pushes out what the browser is to sign.
    async fn prove(&self, mut found: Found) -> Result<(bool, Found), Denied> {
        let jti = self.signed_challenge(&found.registration)?;
        for _ in 0..ATTEMPTS {
            let challenges = &found.registration.challenges;
            let answered = jti.as_deref().map_or(Answered::Stale, |jti| challenges.answered(jti, self.now));
            match answered {
                Answered::Previous => return Ok((true, found)),
                Answered::Stale => return Ok((false, found)),
                Answered::Current if self.renew(&mut found).await? => return Ok((true, found)),
                Answered::Current => {}
            }
            found = self.load_registration(found.identifier).await?;
        }
        Err(Failure::Unfinished.into())
    }

    /// The challenge that was signed with the registered key; `None` without a proof.
    fn signed_challenge(&self, registration: &Registration) -> Result<Option<String>, RefusedDevice> {
        if !self.headers.contains_key(dbsc::RESPONSE) {
            return Ok(None);
        }
        self.may_prove(&registration.session)?;
        let proof = dbsc::text(&self.headers, &dbsc::RESPONSE).ok_or(RefusedDevice::Proof(BadProof::Missing))?;
        let signed = dbsc::signed(proof, &registration.key, &self.audience(Endpoint::Refresh));
        signed.map(Some).map_err(RefusedDevice::Proof)
    }

    /// Puts a new challenge in the place of the current one; `false` when somebody else has done so.
    async fn renew(&self, found: &mut Found) -> Result<bool, Denied> {
        found.registration.challenges = found.registration.challenges.next(random()?, self.now);
        let value = sealed(&found.identifier, &found.registration)?;
        let lives = found.registration.absolute_end.since(self.now);
        match self.worker.gate.store.shelve(&found.name, Some(found.version), value, lives, self.now).await? {
            Swap::Swapped => Ok(true),
            Swap::Stale => Ok(false),
            Swap::Gone => Err(RefusedDevice::NoSession.into()),
        }
    }

    /// Binds the session if it came along and does not know that it is bound: the write may have been lost, in a
    /// crash or with a Redis that failed over, and without it the session's cookie alone would do.
    async fn mend(&self, session: &SessionKey) -> Result<(), Denied> {
        let Some(live) = self.session.known().filter(|live| live.handle.key() == session) else { return Ok(()) };
        if live.record.device.as_ref().is_none_or(|device| device.is_bound()) {
            return Ok(());
        }
        self.bind(live.handle.clone()).await
    }

    /// The periodic rotation, if the session's cookie came along.
    async fn rotate_proven(&mut self, session: &SessionKey) -> Result<(), Failure> {
        let is_presented = self.session.known().is_some_and(|live| live.handle.key() == session);
        if !is_presented || self.site.rules.rotate_every.is_none() {
            return Ok(());
        }
        self.session.prove();
        self.hand_on(Duration::ZERO).await
    }
}
