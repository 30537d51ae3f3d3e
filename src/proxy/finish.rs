//! The way back: the application's answer as the client gets it.

use std::sync::Arc;

use http::HeaderMap;
use http::Response;
use http::header;

use crate::policy::access::Access;
use crate::policy::cookie::SetCookie;
use crate::policy::csrf::RequestKind;
use crate::policy::headers;
use crate::policy::vault::Fate;
use crate::policy::vault::VaultChange;
use crate::proxy::body::Body;
use crate::proxy::body::Source;
use crate::proxy::body::Stream;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::forward::Answer;
use crate::proxy::forward::AnswerBody;
use crate::proxy::session::Session;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::Audit;

/// A response larger than this, or of unknown length, is cut when its session ends.
const LONG: u64 = 256 * 1024;

impl Exchange<'_> {
    /// Cleans the answer, keeps its cookies, rotates the ID if that is due, streams the body. What
    /// is set is in the store before the head leaves (VR-47).
    pub(super) async fn finish(&mut self, answer: Answer) -> Result<Response<Body>, Failure> {
        let Answer { mut head, body } = answer;
        let access = self.route.access;
        // Open on purpose is the same for everyone; open for want of a rule need not be (S51).
        let site = &self.site.site;
        self.trace.authenticated &=
            access != Access::Public || !site.access.names_as_public(&self.method, &self.target);
        self.clean(&mut head.headers);
        self.take_cookies(&mut head.headers).await?;
        let eligible = access == Access::Protected
            && matches!(self.kind, RequestKind::Navigation | RequestKind::Fetch)
            && !self.is_untouched();
        self.rotate(&head.headers, eligible).await?;
        let body = match body {
            AnswerBody::Unread(body, lease) => {
                let stream = self.response_stream(body, &head.headers);
                Body::stream(stream.with_lease(lease, &self.trace.context))
            }
            AnswerBody::Begun(bytes, rest, lease) => {
                let stream = self.response_stream(rest, &head.headers);
                Body::stream(stream.with_prefix(bytes).with_lease(lease, &self.trace.context))
            }
            AnswerBody::Whole(bytes) => Body::bytes(bytes),
        };
        let mut response = Response::from_parts(head, body);
        *response.version_mut() = http::Version::HTTP_11;
        Ok(response)
    }

    fn response_stream(&self, body: impl Into<Source>, headers: &HeaderMap) -> Stream {
        let body = body.into();
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let events = content_type.starts_with("text/event-stream");
        // Events may be far apart, and are no activity of the user.
        let idle = if events { None } else { self.snapshot.timeouts.body_idle };
        let exact = http_body::Body::size_hint(&body).exact();
        let mut stream = Stream::new(body, idle);
        if events {
            stream = stream.until(self.worker.stopping());
        }
        if exact.is_some_and(|length| length <= LONG) {
            return stream;
        }
        match self.bound(!events && !self.is_untouched()) {
            Some(bound) => stream.with_bound(bound),
            None => stream,
        }
    }

    /// Takes out what is between the application and us, and what would show where it is.
    pub(super) fn clean(&self, headers: &mut HeaderMap) {
        let site = &self.site;
        headers::clean_response(headers, &site.site.identity);
        for marker in &site.markers {
            headers.remove(marker);
        }
    }

    /// Splits the application's cookies and keeps what is to be kept. A store that cannot answer is
    /// a failure only for requests that have a session; others lose the cookie (product 3.8).
    pub(super) async fn take_cookies(&mut self, headers: &mut HeaderMap) -> Result<(), Failure> {
        let changes = self.split_cookies(headers);
        if !changes.is_empty()
            && let Some(name) = self.unwatched_login(&changes)
        {
            telemetry::audit(&self.trace.context, &Audit::LoginUnwatched { cookie: &name });
        }
        let kept = self.keep_cookies(changes).await;
        match (kept, &self.session) {
            (Err(Failure::Store(error)), Session::None { .. }) => {
                let error: &StoreError = &error;
                telemetry::audit(&self.trace.context, &Audit::StoreFailed { error });
                Ok(())
            }
            (kept, Session::None { .. } | Session::Live(_)) => kept,
        }
    }

    /// The changes to the vault; what goes to the browser stays in the headers, one line each, in
    /// order (S7).
    pub(super) fn split_cookies(&self, headers: &mut HeaderMap) -> Vec<VaultChange> {
        let header::Entry::Occupied(lines) = headers.entry(header::SET_COOKIE) else { return Vec::new() };
        let (_, lines) = lines.remove_entry_mult();
        let lines: Vec<_> = lines.collect();
        let (site, learned) = (&self.site.site, &self.site.learned);
        let mut changes = Vec::new();
        for line in lines {
            let Some(cookie) = SetCookie::parse(&line, self.now) else { continue };
            if site.cookie.is_imitated_by(&cookie) {
                self.say_dropped(&cookie);
                continue;
            }
            match site.cookies.fate(&cookie, &|name| learned.knows(name)) {
                Fate::Vault => {
                    let change = VaultChange::of(&cookie, &self.target, &site.origin.host, self.now);
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

    fn say_dropped(&self, cookie: &SetCookie) {
        let name = String::from_utf8_lossy(&cookie.name);
        if self.worker.gate.says_first(format!("reserved {} {name}", self.site.name)) {
            telemetry::audit(&self.trace.context, &Audit::CookieDropped { name: &name });
        }
    }

    /// A session cookie that some login rule waits for, set where no rule watches; said once.
    fn unwatched_login(&self, changes: &[VaultChange]) -> Option<String> {
        if self.session.is_authenticated() || self.route.login.is_some() {
            return None;
        }
        let site = Arc::clone(&self.site);
        let name = changes.iter().find_map(|change| match change {
            VaultChange::Put(cookie) => {
                let name = std::str::from_utf8(&cookie.name).ok()?;
                crate::policy::login::awaits_cookie(&site.site.login, name).then(|| name.to_owned())
            }
            VaultChange::Remove { .. } | VaultChange::Used { .. } => None,
        })?;
        self.worker.gate.says_first(format!("unwatched {} {name}", site.name)).then_some(name)
    }

    /// Drops what an anonymous session kept for the application.
    pub(super) async fn forget_vault(&mut self) -> Result<(), Failure> {
        let Some(vault) = self.session.vault() else { return Ok(()) };
        let remove = |cookie: &crate::policy::vault::VaultCookie| VaultChange::Remove {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            domain: cookie.domain.clone(),
        };
        let changes = vault.cookies().iter().map(remove).collect();
        self.keep_cookies(changes).await
    }
}
