//! One request and its response, as far as it has got: what it asks for, who asks, with which
//! session; and what is owed to the client whatever comes of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use http::header::HeaderName;
use http::uri::PathAndQuery;
use hyper::body::Incoming;

use crate::clock::Timestamp;
use crate::policy::access::Access;
use crate::policy::access::AmbiguousPaths;
use crate::policy::admit;
use crate::policy::admit::Refusal;
use crate::policy::certificate::Certificate;
use crate::policy::client;
use crate::policy::client::Client;
use crate::policy::cookie;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::Presented;
use crate::policy::cookie::Taken;
use crate::policy::csrf;
use crate::policy::csrf::CrossSite;
use crate::policy::csrf::CsrfFacts;
use crate::policy::csrf::CsrfMode;
use crate::policy::csrf::CsrfVerdict;
use crate::policy::csrf::FetchMetadata;
use crate::policy::csrf::RequestKind;
use crate::policy::dbsc;
use crate::policy::dbsc::Endpoint;
use crate::policy::headers::Lines;
use crate::policy::hint;
use crate::policy::location;
use crate::policy::message;
use crate::policy::path::Ambiguity;
use crate::policy::path::Target;
use crate::policy::relax::Rule;
use crate::policy::route::Route;
use crate::policy::site::Site;
use crate::proxy::Gate;
use crate::proxy::Peer;
use crate::proxy::Worker;
use crate::proxy::body::Body;
use crate::proxy::failure::Blame;
use crate::proxy::failure::Failure;
use crate::proxy::reply;
use crate::proxy::session::Session;
use crate::proxy::snapshot::LiveSite;
use crate::proxy::snapshot::Place;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::source::ReadAhead;
use crate::proxy::source::Upload;
use crate::proxy::tunnel::Asking;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::Hint;

/// What is owed to the client, whatever response results.
#[derive(Default)]
pub(super) struct Settled {
    /// Our cookie, set or cleared.
    pub(super) ours: Option<HeaderValue>,
    /// The same of the bound one.
    pub(super) bound: Option<HeaderValue>,
    /// The offer to bind the session to the device.
    pub(super) registration: Option<HeaderValue>,
    /// Cookies of the application that do not belong in the browser.
    pub(super) expired: Vec<HeaderValue>,
    /// `Clear-Site-Data`.
    pub(super) clear: Option<HeaderValue>,
    /// The fields that say where the request comes from, if the answer depends on them (S141).
    pub(super) vary: Option<&'static str>,
}

impl Settled {
    /// Puts it on the response; what carries our cookie is never stored by a cache (S9).
    pub(super) fn apply(&mut self, headers: &mut HeaderMap) {
        for value in self.expired.drain(..) {
            headers.append(header::SET_COOKIE, value);
        }
        for value in [self.ours.take(), self.bound.take()].into_iter().flatten() {
            headers.append(header::SET_COOKIE, value);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(value) = self.registration.take() {
            headers.insert(dbsc::REGISTRATION, value);
        }
        if let Some(value) = self.clear.take() {
            headers.insert(HeaderName::from_static("clear-site-data"), value);
        }
        if let Some(fields) = self.vary {
            headers.append(header::VARY, HeaderValue::from_static(fields));
        }
    }
}

/// What is known of a request for the logs, and what is owed to its client.
pub(super) struct Trace {
    pub(super) context: Context,
    pub(super) settled: Settled,
    pub(super) site: Option<Arc<LiveSite>>,
    pub(super) authenticated: bool,
    /// Whether the answer is for pages of its own origin alone.
    pub(super) isolated: bool,
    snapshot: Arc<Snapshot>,
    method: Method,
    target: Option<PathAndQuery>,
    version: Version,
}

impl Trace {
    pub(super) fn begin(gate: &Gate, peer: &Peer, request: &Request<Option<Incoming>>) -> Self {
        let snapshot = gate.current.load_full();
        Self {
            context: Context {
                request_id: Some(gate.request_ids.next()),
                client: Some(peer.ip()),
                ..Context::default()
            },
            settled: Settled::default(),
            site: None,
            authenticated: false,
            isolated: false,
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            version: request.version(),
            snapshot,
        }
    }

    /// From here on it is known which site it is for.
    fn is_about(&mut self, place: Option<&Place>) {
        if let Some(Place::Site(site) | Place::Alias(site)) = place {
            self.site = Some(Arc::clone(site));
            self.context.site = Some(Arc::clone(&site.name));
        }
    }

    /// One line per failure, at the level of who is to blame.
    pub(super) fn report(&self, failure: &Failure) {
        let is_spared = |rule: &Rule| self.site.as_ref().is_some_and(|site| site.site.relax.has(*rule));
        let rule = failure.rule().filter(|rule| !is_spared(rule));
        let event = match (failure.blame(), failure) {
            (Blame::Us, Failure::Store(error)) => Audit::StoreFailed { error },
            (Blame::Client, _) => Audit::RequestRefused { error: failure, rule },
            (Blame::Upstream, _) => Audit::ExchangeFailed { error: failure, rule },
            (Blame::Us, _) => Audit::InternalFailure { error: failure },
        };
        if let (Blame::Upstream, Some(site)) = (failure.blame(), &self.site) {
            site.lasting.traffic.unanswered();
        }
        telemetry::audit(&self.context, &event);
    }

    /// The answer to a failure. After a message that could be read in two ways nothing on the connection
    /// is read any more (S96).
    pub(super) fn answer(&self, failure: &Failure) -> Response<Body> {
        self.report(failure);
        let mut response = failure.response();
        if matches!(failure, Failure::Malformed(_)) && self.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    pub(super) fn log(&self, response: &Response<Body>, duration: Duration) {
        if !self.snapshot.access_log {
            return;
        }
        let path = self.target.as_ref().map_or("*", PathAndQuery::as_str);
        let path = if self.snapshot.log_queries { path } else { path.split('?').next().unwrap_or(path) };
        telemetry::access(
            &self.context,
            &telemetry::AccessEntry {
                method: &self.method,
                // The servlet's session ID is a secret (S161).
                path: &location::without_session_parameter(path),
                version: self.version,
                status: response.status(),
                duration,
            },
        );
    }
}

/// A request on its way.
pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Worker,
    pub(super) trace: &'a mut Trace,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) site: Arc<LiveSite>,
    pub(super) now: Timestamp,
    pub(super) peer: IpAddr,
    pub(super) client: Client,
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: Target,
    /// As it came.
    pub(super) uri: Uri,
    pub(super) route: Route,
    pub(super) headers: HeaderMap,
    /// What the application gets beside fields of the client's.
    pub(super) lines: Lines,
    pub(super) body: Option<Upload>,
    /// The body, or its beginning, when it had to be looked at.
    pub(super) ahead: Option<ReadAhead>,
    pub(super) cross_site: bool,
    /// It asks for a WebSocket.
    pub(super) asking: Option<Asking>,
    pub(super) kind: RequestKind,
    pub(super) user_agent: Option<HeaderValue>,
    /// The client's cookies without ours.
    pub(super) cookies: Vec<CookiePair>,
    pub(super) presented: Presented,
    /// What it has as bound cookie.
    pub(super) bound_cookie: Option<Bytes>,
    pub(super) session: Session,
    /// For how long no more IDs like the presented one are taken from where it comes from.
    pub(super) throttled: Option<Duration>,
    /// Whether it is a login attempt or a logout.
    pub(super) watched: bool,
}

/// What became of a request at the door.
pub(super) enum Opened<'a> {
    /// It goes on.
    Exchange(Box<Exchange<'a>>),
    /// It has its answer.
    Answered(Response<Body>),
}

/// Judged is what the application gets (VR-13): without a servlet's session if that is in the vault, or
/// if a login form is sent there.
fn target_of(site: &Site, method: &Method, raw: &str) -> Target {
    let bare = Target::parse(&location::without_session_parameter(raw), site.paths);
    let is_login = || site.login.iter().any(|rule| rule.matches_head(method, &bare));
    let is_bare = site.cookies.vaults_servlet_sessions() || bare.raw() == raw || is_login();
    if is_bare { bare } else { Target::parse(raw, site.paths) }
}

/// What makes the target one that this site does not take, if anything.
fn doubt_about(site: &Site, target: &Target) -> Option<Ambiguity> {
    let is_refused =
        |doubt: &Ambiguity| site.access.ambiguous == AmbiguousPaths::Reject && !site.relax.has(Rule::Path(*doubt));
    target.doubts().iter().copied().find(is_refused)
}

impl<'a> Exchange<'a> {
    /// Refuses what is ambiguous, finds the site, reads what the request presents.
    pub(super) fn open(
        worker: &'a Worker,
        peer: &Peer,
        request: Box<Request<Option<Incoming>>>,
        trace: &'a mut Trace,
    ) -> Result<Opened<'a>, Failure> {
        let snapshot = Arc::clone(&trace.snapshot);
        let (mut parts, body) = request.into_parts();
        if parts.version >= Version::HTTP_2 {
            message::trim(&mut parts.headers);
        }
        let asking = Asking::take(&mut parts);
        let body = Upload::new(body, parts.version, &parts.headers);
        let authority = message::authority(parts.version, &parts.uri, &parts.headers)?;
        let place = snapshot.place(&authority);
        trace.is_about(place);
        let (limits, relaxed) = snapshot.rules_of(place);
        message::check(&parts.method, parts.version, &parts.uri, &parts.headers, limits, relaxed)?;
        let raw = message::target(&parts.uri);
        let site = match place {
            Some(Place::Site(site)) => Arc::clone(site),
            Some(Place::Alias(site)) if matches!(parts.method, Method::GET | Method::HEAD) => {
                return Ok(Opened::Answered(reply::permanent(&format!("{}{raw}", site.name))));
            }
            Some(Place::Alias(_)) | None => return Err(Failure::Misdirected),
        };
        if !peer.hosts.contains(&site.site.origin.host) {
            return Err(Failure::Misdirected);
        }
        asking.as_ref().map_or(Ok(()), |asking| asking.check(site.site.websocket_h2))?;
        let target = target_of(&site.site, &parts.method, &raw);
        let client = client::identify(peer.ip(), &parts.headers, &snapshot.trusted);
        trace.context.client = Some(client.address);
        doubt_about(&site.site, &target).map_or(Ok(()), |doubt| Err(Failure::Ambiguous(doubt)))?;
        let FetchMetadata { kind, cross_site } = FetchMetadata::of(&parts.headers);
        let mut cookies = cookie::pairs(&parts.headers);
        let Taken { session: presented, bound: bound_cookie } = site.site.cookie.take(&mut cookies);
        Ok(Opened::Exchange(Box::new(Self {
            now: worker.gate.clock.now(),
            peer: peer.ip(),
            certificate: peer.certificate.clone(),
            client,
            kind,
            route: Route::of(&site.site, &parts.method, &target),
            user_agent: parts.headers.get(header::USER_AGENT).cloned(),
            method: parts.method,
            version: parts.version,
            uri: parts.uri,
            headers: parts.headers,
            lines: Lines::default(),
            body: Some(body),
            ahead: None,
            cross_site,
            session: Session::None { tombstone: false },
            throttled: None,
            watched: false,
            worker,
            trace,
            snapshot,
            site,
            target,
            asking,
            cookies,
            presented,
            bound_cookie,
        })))
    }

    /// The CSRF filter (product 3.7).
    pub(super) fn refuse_cross_site(&mut self) -> Option<Response<Body>> {
        let rules = &self.site.site.csrf;
        let (origin, client_certificate) = (&self.site.site.origin, self.certificate.is_some());
        if self.asking.is_some() && !csrf::upgrade_origin_allowed(rules, &self.headers, origin, client_certificate) {
            // No mode lets it pass: scripts of other sites could read what comes back (S119).
            return Some(self.cross_site(CrossSite::Origin, true));
        }
        // What another site asks for is refreshed as well. The proof is what counts, and nobody forges that.
        if rules.mode == CsrfMode::Off || self.device_endpoint() == Some(Endpoint::Refresh) {
            return None;
        }
        let (route, access) = (&self.route, &self.site.site.access);
        // Our own endpoints tell nothing that a page of another site could see.
        let is_named = route.access == Access::Public && access.names_as_public(&self.method, &self.target);
        let open_on_purpose = route.own || is_named;
        let facts = CsrfFacts {
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            origin: &self.site.site.origin,
            login_or_logout: route.may_log_in_or_out(&self.site.site, &self.method, &self.target, &self.headers),
            basic_login: route.basic_login,
            client_certificate,
            open_on_purpose,
        };
        self.trace.isolated = rules.isolates(facts);
        let verdict = csrf::judge(rules, facts);
        let CsrfVerdict::Fails(cross_site) = verdict else {
            // Caches keep the answers to safe methods.
            let depends = verdict == CsrfVerdict::Passes && csrf::is_safe(&self.method);
            self.trace.settled.vary = depends.then(|| rules.vary());
            return None;
        };
        let is_enforced = rules.mode == CsrfMode::Enforce;
        let response = self.cross_site(cross_site, is_enforced);
        is_enforced.then_some(response)
    }

    /// Writes it down; the answer if it is refused.
    fn cross_site(&mut self, reason: CrossSite, enforced: bool) -> Response<Body> {
        self.trace.settled.vary = Some(self.site.site.csrf.vary());
        self.site.lasting.traffic.cross_site(reason, enforced);
        let (method, path) = (&self.method, self.target.path());
        telemetry::audit(&self.trace.context, &Audit::CsrfRefused { reason, enforced, method, path });
        reply::text(StatusCode::FORBIDDEN, "Cross-site request refused.")
    }

    /// Whether our cookie may well be there, but does not come along: another site asks, and it is
    /// `SameSite=Strict`. So nothing is known of the session, and none may take its place.
    pub(super) fn withholds_our_cookie(&self) -> bool {
        self.site.site.cookie.strict && self.cross_site && self.session.known().is_none()
    }

    /// The answer to a link on another site that does not bring our cookie: a page from which it does (VR-21).
    pub(super) fn led_here(&self) -> Option<Response<Body>> {
        // Most sites have no such cookie, and the fields need not be searched.
        let is_led = self.withholds_our_cookie() && csrf::opens_page(&self.method, &self.headers);
        is_led.then(|| reply::go_on(self.target.path()))
    }

    /// Whether the request may pass.
    pub(super) fn admit(&self) -> Option<Refusal> {
        let authenticated = self.session.is_authenticated();
        admit::admit(&self.site.site, &self.route, &self.method, &self.target, self.kind, authenticated)
    }

    /// The answer to a request that may not pass.
    pub(super) fn refuse(&self, refusal: Refusal) -> Response<Body> {
        if refusal == Refusal::Denied {
            telemetry::audit(&self.trace.context, &Audit::AccessDenied { path: self.target.path() });
        }
        if let Some(wait) = self.throttled.filter(|_| refusal != Refusal::Denied) {
            return self.too_many(wait);
        }
        if refusal != Refusal::Denied && hint::is_from_login_page(&self.site.site, &self.headers) {
            self.hint_login_page();
        }
        match (refusal, &self.session) {
            (refusal @ (Refusal::SignIn(_) | Refusal::Unauthorized), _) if self.is_proven_later() => {
                reply::proven_later(refusal)
            }
            (Refusal::SignIn(page), Session::Unproven(_)) if dbsc::can_try_again(&self.method, &self.headers) => {
                reply::once_more(&page)
            }
            (refusal, _) => super::refusal(refusal),
        }
    }

    /// The answer to who needs a session and presents one more of many that are none (S59). A browser gets
    /// to the login page from there: it may be one of many whose sessions were lost.
    pub(super) fn too_many(&self, wait: Duration) -> Response<Body> {
        let mut response = if self.kind == RequestKind::Navigation && !self.site.site.login.is_empty() {
            let says = "Too many sessions that are unknown here came from your network. Log in, or try again later.";
            let link = Some((self.site.site.login_page(), "Log in"));
            reply::page(StatusCode::TOO_MANY_REQUESTS, "Please wait", &[says.to_owned()], link)
        } else {
            reply::problem(StatusCode::TOO_MANY_REQUESTS, "Too many unknown sessions or proofs. Try again later.")
        };
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }

    /// Says once which line a login page lacks: `public` for its assets, `path` for its login.
    fn hint_login_page(&self) {
        let path = self.target.path();
        if self.kind == RequestKind::Subresource {
            self.say_hint(path, &hint::public(path), Hint::LoginPage);
        } else if self.method == Method::POST
            && self.route.login.is_none()
            && self.worker.gate.says_first(format!("unwatched {} {path}", self.site.name))
        {
            telemetry::audit(&self.trace.context, &Audit::LoginElsewhere { path });
        }
    }

    /// Says once per pattern what would open a path.
    pub(super) fn say_hint(&self, path: &str, pattern: &str, hint: Hint) {
        if self.worker.gate.says_first(format!("hint {} {pattern}", self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::PublicHint { path, pattern, hint });
        }
    }

    /// Says once per rule that it took out a field which the application may need.
    pub(super) fn say_header_dropped(&self, rule: Rule, name: &HeaderName) {
        if self.worker.gate.says_first(format!("header {} {}", rule.name(), self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::HeaderDropped { name: name.as_str(), rule });
        }
    }

    /// Activity moves the idle timer, unless the path is `untouched`.
    pub(super) async fn touch(&self) -> Result<(), Failure> {
        let Session::Live(live) = &self.session else { return Ok(()) };
        if !crate::policy::lifecycle::touch_is_due(&live.record, &self.site.rules, self.now) || self.is_untouched() {
            return Ok(());
        }
        // Gone is fine: a session that ended meanwhile is not revived (VR-48).
        let idle = crate::policy::lifecycle::idle_limit(live.record.life(), &self.site.rules);
        let _revives_nothing = self.worker.gate.store.touch(live.handle.key(), self.now, idle).await?;
        Ok(())
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.site.site.access.is_untouched(&self.method, &self.target)
    }
}
