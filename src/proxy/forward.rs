//! The way to the application: the request as it leaves, the answer as it comes.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http::header;

use crate::policy::cookie;
use crate::policy::headers;
use crate::policy::headers::Forwarding;
use crate::policy::headers::Lines;
use crate::policy::headers::Signs;
use crate::policy::hint;
use crate::policy::location;
use crate::policy::message;
use crate::policy::message::Malformed;
use crate::policy::path::Target;
use crate::policy::relax::Relaxed;
use crate::policy::relax::Rule;
use crate::policy::session::Identity;
use crate::policy::site::UpstreamProtocol;
use crate::policy::vault;
use crate::policy::vault::CookieContext;
use crate::policy::vault::Vault;
use crate::policy::websocket;
use crate::policy::websocket::Handshake;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::flow::Stream;
use crate::proxy::pool::Lease;
use crate::proxy::reply;
use crate::proxy::source::Pace;
use crate::proxy::source::Source;
use crate::proxy::source::Upload;
use crate::proxy::streams::Bound;
use crate::proxy::tunnel::Asking;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::tunnel::Upgrade;
use crate::proxy::upstream::UpstreamError;
use crate::proxy::upstream::UpstreamFailure;
use crate::telemetry;
use crate::telemetry::Audit;

/// The application's answer.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    /// What the head had when it came.
    pub(super) signs: Signs,
    pub(super) body: AnswerBody,
}

/// Its body, as far as it was looked at.
pub(super) enum AnswerBody {
    /// Nothing was.
    Unread(Source, Lease),
    /// These bytes were; there is more.
    Begun(Bytes, Source, Lease),
    /// All of it is here, and the connection that it came on is free again.
    Whole(Bytes),
}

impl Exchange<'_> {
    /// Ordinary traffic: forward, finish. A login page that the application answers in a circle is
    /// asked for once more without the client's cookies (product 3.4).
    pub(super) async fn pass(&mut self) -> Result<Response<Body>, Failure> {
        // It asks us and not the application (RFC 9110 7.6.2, S89).
        if message::hops_left(&self.method, &self.headers) == Some(0) {
            return Ok(reply::options());
        }
        if let Some(client) = self.asking.take() {
            websocket::check_version(&self.headers)?;
            return Box::pin(self.tunnel(client)).await;
        }
        let is_page = self.route.login_page && !self.session.is_authenticated();
        let again = is_page.then(|| self.headers.clone());
        let length = self.body.as_ref().and_then(Upload::length);
        let bound = self.bound(length, true);
        let body = self.streamed_body(bound)?;
        let answer = self.ask(body, false).await?;
        if let Some(headers) = again
            && self.leads_back(&answer).is_some()
        {
            return Box::pin(self.break_loop(headers)).await;
        }
        self.finish(answer).await
    }

    /// The client's body as a stream with the limits that apply to it, `bound` to the session unless it
    /// outlives that.
    pub(super) fn streamed_body(&mut self, bound: Option<Bound>) -> Result<Body, Failure> {
        if let Some(ahead) = self.ahead.take() {
            if ahead.is_whole {
                return Ok(Body::bytes(ahead.bytes));
            }
            let read = ahead.bytes.len() as u64;
            let stream = Stream::new(ahead.rest, self.snapshot.timeouts.body_idle).with_prefix(ahead.bytes);
            return self.limited(stream.with_pace(self.pace()).with_bound(bound), read);
        }
        let Some(body) = self.body.take().map(Source::from).filter(|body| !http_body::Body::is_end_stream(body)) else {
            return Ok(Body::empty());
        };
        let stream = Stream::new(body, self.snapshot.timeouts.body_idle).with_pace(self.pace()).with_bound(bound);
        self.limited(stream.with_trailers(self.site.trailers.as_ref()), 0)
    }

    /// How fast a client must send at least. Over HTTP/2 to the application a body may be one side of a
    /// conversation, as in gRPC.
    fn pace(&self) -> Option<Pace> {
        match self.site.site.upstream_protocol {
            UpstreamProtocol::Http1 => self.snapshot.timeouts.body_idle.map(Pace::of),
            UpstreamProtocol::Http2 => None,
        }
    }

    /// Applies the body limit to a stream of which `read` bytes are in its prefix.
    pub(super) fn limited(&self, stream: Stream, read: u64) -> Result<Body, Failure> {
        let Some(limit) = self.site.site.limits.body else { return Ok(Body::stream(stream)) };
        let declared =
            self.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > limit) || read > limit {
            return Err(Failure::TooLarge);
        }
        Ok(Body::stream(stream.with_limit(limit - read)))
    }

    /// Sends the request with this body and waits for the head of the answer.
    pub(super) async fn ask(&mut self, body: Body, identity_coding: bool) -> Result<Answer, Failure> {
        let headers = self.outgoing_headers(identity_coding, true)?;
        let request = self.request(self.method.clone(), headers, body)?;
        let answer = self.send(request).await.map_err(Failure::of_exchange)?;
        Ok(self.answer(answer))
    }

    /// The answer with correct framing, URLs of the application's inner address turned into what
    /// browsers see (S155).
    pub(super) fn answer(&self, (mut response, lease): (Response<Source>, Lease)) -> Answer {
        let signs = lease.signs;
        if signs.length {
            correct_length(&mut response, signs);
        }
        let (mut head, body) = response.into_parts();
        let (inner, origin) = (&self.site.inner_hosts, &self.site.site.origin);
        for name in [header::LOCATION, header::CONTENT_LOCATION].into_iter().filter(|_| signs.location) {
            if let Some(value) = head.headers.get(&name).and_then(|value| location::to_public(value, inner, origin)) {
                head.headers.insert(name, value);
            }
        }
        if http_body::Body::is_end_stream(&body) {
            lease.give_back(body);
            return Answer { head, signs, body: AnswerBody::Whole(Bytes::new()) };
        }
        Answer { head, signs, body: AnswerBody::Unread(body, lease) }
    }

    /// Sends a request; what the answer changes is decided at the time when it is there. The connection of
    /// an answer that is none is closed (S98, S121).
    pub(super) async fn send(
        &mut self,
        request: Box<Request<Body>>,
    ) -> Result<(Response<Source>, Lease), UpstreamFailure> {
        let (site, pool) = (&self.site, &self.worker.pool);
        let turn = site.turn();
        let upgrades = request.headers().contains_key(header::UPGRADE);
        let (timeouts, context) = (&self.snapshot.timeouts, &self.trace.context);
        let answer = pool.send(&site.upstreams, turn, request, &self.lines, timeouts, context).await?;
        if let Some(cause) = wrong_with(&answer.0, answer.1.signs, upgrades, &site.site.relax) {
            return Err(answer.1.upstream.failure(cause));
        }
        self.now = self.worker.gate.clock.now();
        Ok(answer)
    }

    /// # Errors
    /// When the target cannot be written: one that was longer before it was written out in ASCII.
    pub(super) fn request(
        &self,
        method: Method,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Box<Request<Body>>, Failure> {
        say_length(&mut headers, &body);
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = method;
        let sent = self.uri.path_and_query().filter(|sent| sent.as_str() == self.target.raw());
        // Where it is another, it was cut from one.
        *request.uri_mut() = match sent {
            Some(sent) => sent.clone().into(),
            // Another one would be judged by one name and sent by another (VR-13).
            None => self.target.raw().parse().map_err(|_too_long| Malformed::UriLength)?,
        };
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The client's headers as the application gets them: hop-by-hop, identity and forwarding fields
    /// taken out first, ours put in last (S66).
    pub(super) fn outgoing_headers(&mut self, identity_coding: bool, with_cookies: bool) -> Result<HeaderMap, Failure> {
        let assertion = self.assertion()?;
        let mut headers = std::mem::take(&mut self.headers);
        let cookies = std::mem::take(&mut self.cookies);
        let site = Arc::clone(&self.site);
        let takes_trailers = site.trailers.is_some() && headers::takes_trailers(&headers);
        for (rule, name) in headers::clean_request(&mut headers, &site.site.identity, self.client, &site.site.relax) {
            self.say_header_dropped(rule, &name);
        }
        if takes_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(hops) = message::hops_left(&self.method, &headers) {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(hops.saturating_sub(1)));
        }
        if !with_cookies {
            headers.remove(header::COOKIE);
        } else {
            for name in self.put_cookies(&mut headers, cookies, self.session.vault(), self.cross_site) {
                self.trace.settled.expired.extend(cookie::expire_in_browser(&name, self.target.raw_path()));
            }
        }
        headers.insert(header::HOST, site.host.clone());
        if let Some(inner) = &site.inner_origin {
            for name in [header::ORIGIN, header::REFERER] {
                let translated =
                    headers.get(&name).and_then(|value| location::to_inner(value, inner, &site.site.origin));
                if let Some(value) = translated {
                    headers.insert(name, value);
                }
            }
        }
        if identity_coding {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        self.lines = self.forwarding(&mut headers, self.session.identity(), assertion.as_ref());
        Ok(headers)
    }

    /// Forwarding and identity headers: the last, and beside the others.
    pub(super) fn forwarding(
        &self,
        headers: &mut HeaderMap,
        identity: Option<&Identity>,
        assertion: Option<&HeaderValue>,
    ) -> Lines {
        headers::forward_request(
            headers,
            &self.site.site.identity,
            Forwarding {
                client: self.client,
                peer: self.peer,
                public: &self.site.public,
                version: self.version,
                certificate: self.certificate.as_deref(),
                identity,
                assertion,
            },
        )
    }

    /// The client's cookies and the vault's, in the place of what the client sent; returns the names that do not
    /// belong in the browser.
    pub(super) fn put_cookies(
        &self,
        headers: &mut HeaderMap,
        cookies: Vec<cookie::CookiePair>,
        vault: Option<&Vault>,
        cross_site: bool,
    ) -> Vec<Bytes> {
        let learned = &self.site.lasting.learned;
        let outgoing = vault::outgoing(
            cookies,
            vault,
            &CookieContext {
                rules: &self.site.site.cookies,
                learned: &|name| learned.knows(name),
                target: &self.target,
                host: &self.site.site.origin.host,
                cross_site,
                now: self.now,
            },
        );
        match outgoing.header {
            Some(value) => drop(headers.insert(header::COOKIE, value)),
            None => drop(headers.remove(header::COOKIE)),
        }
        outgoing.expire
    }

    /// A WebSocket: asked for like any page, then bytes both ways.
    async fn tunnel(&mut self, client: Asking) -> Result<Response<Body>, Failure> {
        let mut headers = self.outgoing_headers(false, true)?;
        switch_to_websocket(&mut headers);
        // Over HTTP/2 there is no key: the application gets one of ours (RFC 8441 5).
        let key = match client.handshake {
            Handshake::Upgrade => None,
            Handshake::Connect => Some(new_key(&mut headers)?),
        };
        let request = self.request(Method::GET, headers, Body::empty())?;
        let (response, lease) = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.finish(self.answer((response, lease))).await;
        }
        let is_answer = key.is_none_or(|key| websocket::accepts(response.headers(), &key));
        if !(is_answer && websocket::switches(response.headers())) {
            return Err(lease.upstream.failure(UpstreamError::UnaskedUpgrade).into());
        }
        let (mut head, body) = response.into_parts();
        let Some(upstream) = Upgrade::of(&mut head.extensions, body) else {
            return Err(lease.upstream.failure(UpstreamError::UnaskedUpgrade).into());
        };
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let mut headers = std::mem::take(&mut head.headers);
        // Bound to the session that asked: it ends with it also if this very answer ends it (S50).
        let (guard, pulse) = (self.guard(), self.pulse());
        self.end_as_told(&headers).await?;
        self.clean(&mut headers, lease.signs);
        // Neither a 101 nor what answers a CONNECT has one (RFC 9110 8.6, S100).
        headers.remove(header::CONTENT_LENGTH);
        self.take_cookies(&mut headers).await?;
        self.rotate(&headers, false).await?;
        match client.handshake {
            Handshake::Upgrade => switch_to_websocket(&mut headers),
            Handshake::Connect => drop(headers.remove(header::SEC_WEBSOCKET_ACCEPT)),
        }
        *answer.headers_mut() = headers;
        let idle = self.snapshot.timeouts.tunnel_idle;
        let stopping = self.worker.stopping.clone();
        let context = self.trace.context.clone();
        let tunnel = Tunnel { client, upstream, lease, guard, pulse, idle, stopping, context };
        tokio::spawn(tunnel.run());
        Ok(answer)
    }

    /// Where an answer to the login page leads in a circle, if it does.
    fn leads_back(&self, answer: &Answer) -> Option<Target> {
        let location = answer.head.headers.get(header::LOCATION).filter(|_| answer.head.status.is_redirection());
        hint::guarded(&self.site.site, location, &self.target)
    }

    /// Asks for the login page once more, as a browser without cookies would.
    async fn break_loop(&mut self, headers: HeaderMap) -> Result<Response<Body>, Failure> {
        let names: Vec<_> = cookie::pairs(&headers).into_iter().map(|pair| pair.name).collect();
        let names: Vec<_> = names.into_iter().filter(|name| !self.site.site.cookie.is_called(name)).collect();
        self.headers = headers;
        let mut headers = self.outgoing_headers(false, false)?;
        // Whatever body the request had was sent the first time.
        headers.remove(header::CONTENT_LENGTH);
        let request = self.request(self.method.clone(), headers, Body::empty())?;
        let sent = self.send(request).await?;
        let answer = self.answer(sent);
        for name in &names {
            self.trace.settled.expired.extend(cookie::expire_in_browser(name, self.target.raw_path()));
        }
        self.forget_vault().await?;
        let Some(to) = self.leads_back(&answer) else { return self.finish(answer).await };
        let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        telemetry::audit(&self.trace.context, &Audit::LoginLoop { cookies: &names, to: to.path() });
        let paragraphs = [
            "The application redirects its own login page to a page that needs a login.".to_owned(),
            match names.is_empty() {
                true => "The browser sent no cookies of the application's, so they are not the cause.".to_owned(),
                false => {
                    format!("These cookies were removed from the browser: {}. Load the page again.", names.join(", "))
                }
            },
        ];
        Ok(reply::page(StatusCode::BAD_GATEWAY, "The login page cannot be reached", &paragraphs, None))
    }
}

fn switch_to_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// What makes it no answer to this request, if anything.
fn wrong_with(response: &Response<Source>, signs: Signs, upgrades: bool, relaxed: &Relaxed) -> Option<UpstreamError> {
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrades {
        return Some(UpstreamError::UnaskedUpgrade);
    }
    if status.as_u16() > 599 && !relaxed.has(Rule::Status) {
        return Some(UpstreamError::Status(status.as_u16()));
    }
    (signs.coding && !message::is_chunked_or_plain(response.headers())).then_some(UpstreamError::Coding)
}

/// Puts a key of ours in the place of whatever the client sent.
fn new_key(headers: &mut HeaderMap) -> Result<String, Failure> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Failure::NoId)?;
    let key = websocket::key(random);
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(|_| Failure::NoId)?);
    Ok(key)
}

/// Says how long the body is in the one way that all readers take alike: `007` is an octal number to some
/// (S81). Chunks are announced, as the library leaves out those of a GET otherwise (S93).
fn say_length(headers: &mut HeaderMap, body: &Body) {
    match http_body::Body::size_hint(body).exact() {
        Some(length) if headers.contains_key(header::CONTENT_LENGTH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(_) => {}
        None => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// A length that does not frame the message is not passed on (S98, S100), and one that does in the way
/// that all readers take alike.
fn correct_length(response: &mut Response<Source>, signs: Signs) {
    let is_framed_otherwise = response.status() == StatusCode::NO_CONTENT || signs.coding;
    let header::Entry::Occupied(mut lengths) = response.headers_mut().entry(header::CONTENT_LENGTH) else { return };
    match agreed_length(lengths.iter()).filter(|_| !is_framed_otherwise) {
        Some(length) if lengths.get().as_bytes().starts_with(b"0") => {
            lengths.insert(HeaderValue::from(length));
        }
        Some(_) => {}
        // The library does not look at what an answer without content says.
        None => {
            lengths.remove();
        }
    }
}

/// The length, if there is one and no other.
fn agreed_length<'a>(mut lengths: impl Iterator<Item = &'a HeaderValue>) -> Option<u64> {
    let digits = |value: &HeaderValue| {
        Some(value.to_str().ok()?).filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let first: u64 = digits(lengths.next()?)?;
    lengths.next().is_none().then_some(first)
}
