//! Device-bound sessions (DBSC): what is offered with a login, and the registration that answers it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::StatusCode;

use crate::policy::dbsc;
use crate::policy::dbsc::BOUND_LIFETIME;
use crate::policy::dbsc::Challenges;
use crate::policy::dbsc::Device;
use crate::policy::dbsc::DeviceBound;
use crate::policy::dbsc::Endpoint;
use crate::policy::dbsc::Identifier;
use crate::policy::dbsc::Lack;
use crate::policy::dbsc::OFFER_LIFETIME;
use crate::policy::dbsc::PublicKey;
use crate::policy::dbsc::RefusedDevice;
use crate::policy::dbsc::Registration;
use crate::policy::session::Handle;
use crate::policy::session::SessionKey;
use crate::proxy::Gate;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::reply;
use crate::proxy::session::Session;
use crate::store::Presence;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::sealed::device;
use crate::store::shelf::Kind;
use crate::store::shelf::Name;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::DeviceEvent;

/// Signatures that are looked at for one session in a minute: browsers make six in nine minutes.
const PROOFS_PER_MINUTE: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Why an endpoint does not do what it is asked for.
pub(super) enum Denied {
    /// Whoever asks may not.
    Refused(RefusedDevice),
    /// We cannot.
    Failed(Failure),
}

impl From<RefusedDevice> for Denied {
    fn from(reason: RefusedDevice) -> Self {
        Self::Refused(reason)
    }
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Gate {
    /// From now on the session is none without its bound cookie, and what was opened without it ends.
    pub(super) async fn bind(&self, handle: &Handle) -> Result<Presence, StoreError> {
        let presence = self.store.bind(handle).await?;
        self.streams.end_unproven(handle.key());
        Ok(presence)
    }

    /// Frees what is kept of the browser of a session that has ended. Without the session it is worth nothing,
    /// and goes by itself when that would have ended.
    pub(super) async fn forget_device(&self, device: Option<&Device>) {
        if let Some(device) = device {
            let _best_effort = self.store.unshelve(&name_of(&device.identifier())).await;
        }
    }
}

impl Exchange<'_> {
    fn binds(&self) -> bool {
        self.site.rules.device_bound != DeviceBound::Off
    }

    /// The endpoint that it is for. Also where nothing is offered (any more): browsers forget a key that nobody
    /// wants to see, and it may be offered again, or by another node.
    pub(super) fn device_endpoint(&self) -> Option<Endpoint> {
        Endpoint::of(&self.target)
    }

    /// What a new session is offered to be bound to.
    pub(super) fn new_device(&self) -> Result<Option<Box<Device>>, Failure> {
        if self.binds() { Ok(Some(Box::new(Device::offered(random()?)))) } else { Ok(None) }
    }

    /// The offer, and a bound cookie: what the page asks for while the browser registers has it already.
    pub(super) fn owe_offer(&mut self, device: &Device) {
        self.owe_bound(device.bound_key().issue(self.now));
        self.trace.settled.registration = Some(dbsc::registration(&device.offer()));
    }

    fn owe_bound(&mut self, value: String) {
        self.trace.settled.bound = Some(self.site.site.cookie.set_bound(value, BOUND_LIFETIME));
    }

    /// Clears the bound cookie where there may be one. A browser refreshes only when it has none.
    pub(super) fn clear_bound(&mut self) {
        if self.binds() || self.bound_cookie.is_some() {
            self.trace.settled.bound = Some(self.site.site.cookie.clear_bound());
        }
    }

    /// Writes down that a bound session was presented without the cookie for it.
    pub(super) fn device_lacks(&mut self, session: &SessionKey, context: &Context, lack: Lack) {
        if let Some(word) = dbsc::skipped(&self.headers) {
            self.worker.gate.tally.devices.skipped();
            if self.is_news(session, word) {
                telemetry::audit(context, &Audit::Device(DeviceEvent::Skipped { word }));
            }
        }
        // With it the browser would not refresh.
        if lack != Lack::Missing {
            self.clear_bound();
        }
    }

    /// Whether a bound session is presented without proof by a browser that says it has none for now: it
    /// has signed as often as it may, or got no answer. It keeps its key, and so its user the session, which a login
    /// would end. Anybody can say so, and gets nothing by it (S63).
    pub(super) fn is_proven_later(&self) -> bool {
        matches!(self.session, Session::Unproven(_)) && dbsc::skipped(&self.headers).is_some()
    }

    /// Answers a request for one of the endpoints.
    pub(super) async fn answer_device(&mut self, endpoint: Endpoint) -> Result<Response<Body>, Failure> {
        let answered = match endpoint {
            Endpoint::Register => self.register().await,
            Endpoint::Refresh => self.refresh().await,
        };
        match answered {
            Ok(response) => Ok(response),
            Err(Denied::Refused(reason)) => Ok(self.refuse_device(endpoint, reason)),
            Err(Denied::Failed(failure)) => Err(failure),
        }
    }

    fn refuse_device(&self, endpoint: Endpoint, reason: RefusedDevice) -> Response<Body> {
        self.worker.gate.tally.devices.refused();
        self.say_refused(endpoint, reason);
        match (endpoint, reason) {
            (_, RefusedDevice::Unknown | RefusedDevice::NoSession | RefusedDevice::NotOffered) if !self.binds() => {
                reply::problem(StatusCode::NOT_FOUND, "There is no such endpoint.")
            }
            (Endpoint::Register | Endpoint::Refresh, RefusedDevice::TooMany) => self.too_many(MINUTE),
            // Browsers keep a session that cannot be refreshed for now, and ask for the page without: it is
            // for the binding to say what that is worth.
            (Endpoint::Refresh, RefusedDevice::WrongClient) => reply::later("Not from here."),
            // Browsers forget a session that is refused so, and its user logs in again.
            (Endpoint::Refresh, _) | (Endpoint::Register, RefusedDevice::NoSession) => {
                self.throttled.map_or_else(reply::unauthorized, |wait| self.too_many(wait))
            }
            (Endpoint::Register, _) => reply::problem(StatusCode::FORBIDDEN, "The key is not registered."),
        }
    }

    /// Once an hour per session, client and reason, as with IDs; what is asked for no session at all is only counted.
    fn say_refused(&self, endpoint: Endpoint, reason: RefusedDevice) {
        let about = match endpoint {
            Endpoint::Register => self.session.known().map(|live| *live.handle.key()),
            Endpoint::Refresh => self.named().map(|identifier| SessionKey(*identifier.bytes())),
        };
        let about = about.filter(|_| reason != RefusedDevice::Unknown);
        if about.is_some_and(|key| self.is_news(&key, reason.as_str())) {
            telemetry::audit(&self.trace.context, &Audit::Device(DeviceEvent::Refused { endpoint, reason }));
        }
    }

    /// Registers a browser's key for the session that it presents. Once: a second key would be a thief's (S63).
    async fn register(&mut self) -> Result<Response<Body>, Denied> {
        let live = self.session.known().ok_or(RefusedDevice::NoSession)?;
        let (handle, key, now) = (live.handle.clone(), *live.handle.key(), self.now);
        let identity = live.record.identity.as_ref().ok_or(RefusedDevice::NoSession)?;
        let device = live.record.device.as_deref().ok_or(RefusedDevice::NotOffered)?;
        let (is_bound, identifier) = (device.is_bound(), device.identifier());
        if dbsc::is_scripts(&self.headers) {
            return Err(RefusedDevice::Script.into());
        }
        if now.since(identity.authenticated) >= OFFER_LIFETIME {
            return Err(Denied::from(if is_bound { RefusedDevice::Again } else { RefusedDevice::Late }));
        }
        let proof = dbsc::text(&self.headers, &dbsc::RESPONSE);
        let answer = dbsc::answer(proof, &device.offer(), &self.audience(Endpoint::Register));
        let answer = answer.map_err(RefusedDevice::Proof)?;
        // Only now: who has not seen the offer uses up nothing of what the browser may try.
        self.may_prove(&key)?;
        let registration = Registration {
            session: key,
            site: Arc::clone(&self.site.name),
            key: answer.verified().map_err(RefusedDevice::Proof)?,
            bound: device.bound_key(),
            challenges: Challenges::begin(random()?, now),
            absolute_end: live.record.absolute_end,
        };
        let (name, value) = (name_of(&identifier), sealed(&identifier, &registration)?);
        let (gate, lives) = (Arc::clone(&self.worker.gate), registration.absolute_end.since(now));
        let session = handle.clone();
        let is_first = self.must_finish(async move {
            // First the key, which exactly one can put there: a bound session always has one.
            if is_bound || gate.store.shelve(&name, None, value, lives, now).await? != Swap::Swapped {
                return Ok(false);
            }
            let presence = gate.bind(&session).await?;
            if presence == Presence::Gone {
                gate.store.unshelve(&name).await?;
                return Err(Denied::from(RefusedDevice::NoSession));
            }
            Ok(true)
        });
        if !is_first.await?? {
            return self.register_again(handle, identifier, &registration.key).await;
        }
        self.worker.gate.tally.devices.registered();
        telemetry::audit(&self.trace.context, &Audit::Device(DeviceEvent::Registered { key: &registration.key }));
        Ok(self.grant(&identifier, &registration))
    }

    /// The key that is there already, once more: its answer was lost, or the write that binds. Another one is a
    /// thief's (S63).
    async fn register_again(
        &mut self,
        session: Handle,
        identifier: Identifier,
        key: &PublicKey,
    ) -> Result<Response<Body>, Denied> {
        let registration = self.load_registration(identifier).await?.registration;
        if registration.key != *key {
            return Err(RefusedDevice::Again.into());
        }
        self.bind(session).await?;
        Ok(self.grant(&identifier, &registration))
    }

    /// Binds the session, which changes nothing if it is bound.
    pub(super) async fn bind(&self, session: Handle) -> Result<(), Denied> {
        let gate = Arc::clone(&self.worker.gate);
        match self.must_finish(async move { gate.bind(&session).await }).await?? {
            Presence::Present => Ok(()),
            Presence::Gone => Err(RefusedDevice::NoSession.into()),
        }
    }

    /// Whether what this request opens goes on when a browser registers: it comes from the device, or nobody
    /// will register.
    pub(super) fn outlives_registration(&self, device: Option<&Device>) -> bool {
        let Some(device) = device.filter(|device| !device.is_bound()) else { return true };
        let is_good = |value| device.bound_key().check(value, self.now).is_ok();
        // The login itself is answered with the cookie.
        self.trace.settled.registration.is_some() || self.bound_cookie.as_ref().is_some_and(|value| is_good(value))
    }

    /// The answer to a proof: a new bound cookie, and what is to be signed next. Browsers send a proof again
    /// until they are given another challenge.
    pub(super) fn grant(&mut self, identifier: &Identifier, registration: &Registration) -> Response<Body> {
        self.owe_bound(registration.bound.issue(self.now));
        let instructions = dbsc::instructions(identifier, &self.site.site.cookie);
        let mut response = reply::json(StatusCode::OK, &instructions);
        let challenge = dbsc::challenge(&registration.challenges.text(), identifier);
        response.headers_mut().insert(dbsc::CHALLENGE, challenge);
        response
    }

    /// What the `aud` of a proof has to be, if there is one.
    pub(super) fn audience(&self, endpoint: Endpoint) -> String {
        format!("{}{}", self.site.name, endpoint.path())
    }

    /// Looks at so many signatures for one session, and not more.
    pub(super) fn may_prove(&self, session: &SessionKey) -> Result<(), RefusedDevice> {
        let minute = self.now.as_secs() / 60;
        let mut proofs = self.worker.gate.proofs.entry(*session).or_insert((minute, 0));
        if proofs.0 != minute {
            *proofs = (minute, 0);
        }
        proofs.1 += 1;
        if proofs.1 <= PROOFS_PER_MINUTE { Ok(()) } else { Err(RefusedDevice::TooMany) }
    }
}

/// What the registration of a browser is called on the shelf.
pub(super) fn name_of(identifier: &Identifier) -> Name {
    Name::of(Kind::Devices, &[identifier.bytes()])
}

/// The registration, ready to be kept.
pub(super) fn sealed(identifier: &Identifier, registration: &Registration) -> Result<Bytes, Failure> {
    device::seal(identifier, registration).map(Bytes::from).ok_or(Failure::NoId)
}

/// From the operating system's generator.
pub(super) fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::NoId)?;
    Ok(bytes)
}
