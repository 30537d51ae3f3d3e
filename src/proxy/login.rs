//! Login watching: what a login or logout request says is read before the application gets it, and
//! what the application answers is judged before the client gets it (product 3.5).

use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use http::Response;
use http::header;

use crate::clock::Timestamp;
use crate::policy::access::Access;
use crate::policy::admit;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SetCookie;
use crate::policy::headers;
use crate::policy::hint;
use crate::policy::login;
use crate::policy::login::Attempt;
use crate::policy::login::BODY_LIMIT;
use crate::policy::login::LoginRequest;
use crate::policy::login::LoginRule;
use crate::policy::login::Outcome;
use crate::policy::login::Trial;
use crate::policy::logout;
use crate::policy::logout::LogoutMatch;
use crate::policy::path::Target;
use crate::policy::session::Record;
use crate::policy::session::UserName;
use crate::policy::vault;
use crate::policy::vault::Fate;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultChange;
use crate::policy::vault::VaultCookie;
use crate::proxy::Gate;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::forward::Answer;
use crate::proxy::forward::AnswerBody;
use crate::proxy::source;
use crate::proxy::source::Pace;
use crate::proxy::upstream::UpstreamError;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::Hint;

/// What the verifying request needs, kept from the login request.
struct Asker {
    headers: HeaderMap,
    cookies: Vec<CookiePair>,
}

/// The verifying request's answer.
struct Verified {
    answer: Answer,
    target: Target,
}

impl Exchange<'_> {
    /// Logouts and logins: `None` when the request is neither.
    // What few requests do is boxed, here and elsewhere: its state would make room in the future of every
    // request, which is moved several times.
    pub(super) async fn watched(&mut self) -> Result<Option<Response<Body>>, Failure> {
        let site = Arc::clone(&self.site);
        if self.route.access == Access::Denied {
            return Ok(None);
        }
        if let LogoutMatch::Yes(rule) = &self.route.logout {
            let rule = Arc::clone(rule);
            return Box::pin(self.log_out(&rule)).await.map(Some);
        }
        let authenticated = self.session.is_authenticated();
        let logout_by_form = self.route.logout == LogoutMatch::NeedsBody && (authenticated || self.route.is_open());
        let login = self.route.login.is_some() && (authenticated || self.route.takes_attempts());
        let is_near = !authenticated
            && self.route.access == Access::Public
            && login::is_near(&site.site.login, &self.method, &self.target);
        if !logout_by_form && !login && !is_near {
            return Ok(None);
        }
        let rules = site.site.login.iter().filter(|rule| rule.matches_head(&self.method, &self.target));
        let needs_body = logout_by_form
            || rules.into_iter().any(|rule| rule.needs_request_body())
            || (is_near && login::body::Body::may_have_fields(&self.headers));
        if needs_body && !Box::pin(self.read_request_body()).await? {
            return Ok(None);
        }
        let body = self.ahead.as_ref().map(|ahead| ahead.bytes.clone());
        if logout_by_form {
            let body = body.as_deref().unwrap_or_default();
            let rule = logout::by_form(&site.site.logout, &self.method, &self.target, &self.headers, body);
            if let Some(rule) = rule {
                return Box::pin(self.log_out(&rule)).await.map(Some);
            }
        }
        let request =
            LoginRequest { method: &self.method, target: &self.target, headers: &self.headers, body: body.as_deref() };
        match login::attempt(&site.site.login, request) {
            Ok(Some(attempt)) => Box::pin(self.log_in(attempt)).await.map(Some),
            Ok(None) => Ok(None),
            Err(doubt) if doubt.is_no_form() && authenticated => Ok(None),
            Err(doubt) => Err(doubt.into()),
        }
    }

    /// Reads the body as far as it may be judged; `false`: too large, and from an authenticated
    /// session, where it is ordinary traffic.
    async fn read_request_body(&mut self) -> Result<bool, Failure> {
        let authenticated = self.session.is_authenticated();
        if self.body.as_ref().is_some_and(|body| body.declared() > BODY_LIMIT as u64) {
            return if authenticated { Ok(false) } else { Err(Failure::TooLarge) };
        }
        let Some(body) = self.body.take() else { return Ok(true) };
        let idle = self.snapshot.timeouts.body_idle;
        let ahead =
            source::read_ahead(body, BODY_LIMIT, idle, idle.map(Pace::of)).await.map_err(Failure::of_login_body)?;
        if !ahead.is_whole && !authenticated {
            return Err(Failure::TooLarge);
        }
        let is_whole = ahead.is_whole;
        self.ahead = Some(ahead);
        Ok(is_whole)
    }

    /// An attempt: ask the application, judge its answer, and on success begin a new session before
    /// the answer leaves.
    async fn log_in(&mut self, attempt: Attempt<'_>) -> Result<Response<Body>, Failure> {
        self.watched = true;
        self.touch().await?;
        let rule = attempt.rule;
        let permit = match Box::pin(self.permit(&attempt)).await? {
            Ok(permit) => permit,
            Err(refused) => return Ok(refused),
        };
        // Whatever happens from here on, the attempt is reported.
        let report = Report::begin(self, &attempt);
        headers::ask_for_all(&mut self.headers);
        let asker = rule.verify.as_ref().map(|_| Asker::of(self));
        let mut answer = match self.ask_login(rule).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.settle(permit, attempt.number, Outcome::Undetermined).await?;
                return Err(failure);
            }
        };
        let mut trial = login::judge(rule, self.view(&answer, &self.target));
        let mut verified = None;
        if trial.outcome == Outcome::Ask
            && let Some(asker) = asker
        {
            let asked = match self.verify(rule, &answer, asker).await {
                Ok(asked) => asked,
                Err(failure) => {
                    self.trace.report(&failure);
                    None
                }
            };
            trial.add(asked.as_ref().map(|verified| {
                let is_for_everyone = admit::is_for_everyone(&self.site.site, &verified.target);
                login::judge_verify(rule, self.view(&verified.answer, &verified.target), is_for_everyone)
            }));
            verified = asked;
        }
        if let Some(verified) = &verified {
            merge_cookies(&mut answer.head.headers, verified, self.now);
        }
        if trial.outcome != Outcome::Success {
            report.write(&trial, None);
            self.settle(permit, attempt.number, trial.outcome).await?;
            self.hint_failure_page(rule, &answer);
            return self.finish(answer).await;
        }
        let asked = verified.as_ref().map(|verified| self.view(&verified.answer, &verified.target));
        let user = login::user(&attempt, self.view(&answer, &self.target), asked);
        report.write(&trial, user.as_ref().ok());
        self.settle(permit, attempt.number, trial.outcome).await?;
        self.welcome(user?, answer).await
    }

    /// The login succeeded: the new session, with the application's cookies, then its answer.
    async fn welcome(&mut self, user: UserName, mut answer: Answer) -> Result<Response<Body>, Failure> {
        let changes = self.split_cookies(&mut answer.head.headers);
        let before = self.session.identity().map(|identity| identity.user.clone());
        if let Some(before) = before.filter(|before| *before != user) {
            telemetry::audit(&self.trace.context, &Audit::UserSwitch { from: before.as_str(), to: user.as_str() });
        }
        let (now, whose) = (self.now, user.clone());
        let carried = self.session.vault().map_or_else(Vault::default, |vault| {
            vault.carried(&self.target, &self.site.site.origin.host, self.cross_site, now)
        });
        let keep = move |ended: Option<&Record>| {
            let base = travelling(ended, &carried, &whose, &changes);
            base.changed(&changes, now).unwrap_or(base)
        };
        self.begin_authenticated(user, keep).await?;
        self.finish(answer).await
    }

    /// The answer to a login, as far as it has to be looked at. Before a verifying request it is read in
    /// any case: an application may have only one connection for us.
    async fn ask_login(&mut self, rule: &LoginRule) -> Result<Answer, Failure> {
        let body = self.streamed_body(None)?;
        let answer = self.ask(body, rule.needs_response_body()).await?;
        if rule.needs_response_body() || rule.verify.is_some() { self.look_ahead(answer).await } else { Ok(answer) }
    }

    async fn look_ahead(&self, answer: Answer) -> Result<Answer, Failure> {
        let Answer { head, signs, body } = answer;
        let body = match body {
            AnswerBody::Unread(body, lease) => {
                let idle = self.snapshot.timeouts.body_idle;
                let broken = |error| lease.upstream.failure(UpstreamError::Answer(error));
                let ahead = source::read_ahead(body, BODY_LIMIT, idle, None).await.map_err(broken)?;
                if ahead.is_whole {
                    lease.give_back(ahead.rest);
                    AnswerBody::Whole(ahead.bytes)
                } else {
                    AnswerBody::Begun(ahead.bytes, ahead.rest, lease)
                }
            }
            looked_at @ (AnswerBody::Begun(..) | AnswerBody::Whole(_)) => looked_at,
        };
        Ok(Answer { head, signs, body })
    }

    /// One GET with the cookies as they would be after the login; `None` when there is nothing to ask for.
    async fn verify(&mut self, rule: &LoginRule, answer: &Answer, asker: Asker) -> Result<Option<Verified>, Failure> {
        let Some(raw) = login::verify_target(rule, self.view(answer, &self.target)) else { return Ok(None) };
        let target = Target::parse(&raw, self.site.site.paths);
        let Asker { mut headers, cookies } = asker;
        headers.insert(header::HOST, self.site.host.clone());
        if rule.needs_verify_body() {
            headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        }
        self.lines = self.forwarding(&mut headers, None, None);
        let (vault, cookies) = self.cookies_after(answer, cookies, &target);
        let own = std::mem::replace(&mut self.target, target);
        self.put_cookies(&mut headers, cookies, Some(&vault), false);
        let request = self.request(Method::GET, headers, Body::empty());
        let target = std::mem::replace(&mut self.target, own);
        let sent = self.send(request?).await?;
        let answer = self.answer(sent);
        Ok(Some(Verified { answer: self.look_ahead(answer).await?, target }))
    }

    /// The vault and the browser's cookies as they will be when the answer has arrived.
    fn cookies_after(&self, answer: &Answer, mut pairs: Vec<CookiePair>, next: &Target) -> (Vault, Vec<CookiePair>) {
        let (site, now) = (&self.site.site, self.now);
        let (mut kept, mut relayed) = (Vec::new(), Vec::new());
        for line in answer.head.headers.get_all(header::SET_COOKIE) {
            let Some(cookie) = SetCookie::parse(line, now).filter(|cookie| !site.cookie.is_imitated_by(cookie)) else {
                continue;
            };
            let change = VaultChange::of(&cookie, &self.target, &site.origin.host, now);
            match site.cookies.fate(&cookie, &|name| self.site.lasting.learned.knows(name)) {
                Fate::Vault => kept.extend(change),
                Fate::Harden | Fate::Pass => {
                    pairs.retain(|pair| pair.name != cookie.name);
                    relayed.extend(change);
                }
                Fate::Drop => {}
            }
        }
        let base = self.session.vault().cloned().unwrap_or_default();
        let vault = base.changed(&kept, now).unwrap_or(base);
        let browser = Vault::default().changed(&relayed, now).unwrap_or_default();
        pairs.extend(browser.pairs_for(next, &site.origin.host, false, now));
        (vault, pairs)
    }

    fn view<'v>(&'v self, answer: &'v Answer, target: &'v Target) -> login::Answer<'v> {
        let Answer { head, body, .. } = answer;
        let (body, body_complete) = match body {
            AnswerBody::Unread(..) => (None, false),
            AnswerBody::Begun(bytes, ..) => (Some(&bytes[..bytes.len().min(BODY_LIMIT)]), false),
            AnswerBody::Whole(bytes) => (Some(&bytes[..bytes.len().min(BODY_LIMIT)]), true),
        };
        login::Answer {
            status: head.status,
            headers: &head.headers,
            body,
            body_complete,
            target,
            origin: &self.site.site.origin,
            now: self.now,
        }
    }

    /// A page that tells what was wrong with the login has to be public; where `verify` was needed, that
    /// is the page behind the login.
    fn hint_failure_page(&self, rule: &LoginRule, answer: &Answer) {
        let location = answer.head.headers.get(header::LOCATION).filter(|_| answer.head.status.is_redirection());
        if rule.verify.is_none()
            && !self.session.is_authenticated()
            && let Some(pattern) = hint::failure_page(&self.site.site, location, &self.target)
        {
            self.say_hint(self.target.path(), &pattern, Hint::FailurePage);
        }
    }
}

impl Asker {
    fn of(exchange: &Exchange<'_>) -> Self {
        let headers = headers::verifying_request(&exchange.headers, exchange.client);
        Self { headers, cookies: exchange.cookies.clone() }
    }
}

/// The audit event of an attempt: written also when the attempt breaks off, because the application does
/// not answer or the client leaves.
struct Report {
    gate: Arc<Gate>,
    context: Context,
    rule: usize,
    is_written: bool,
}

impl Report {
    fn begin(exchange: &Exchange<'_>, attempt: &Attempt<'_>) -> Self {
        let gate = Arc::clone(&exchange.worker.gate);
        Self { gate, context: exchange.trace.context.clone(), rule: attempt.number, is_written: false }
    }

    fn write(mut self, trial: &Trial, user: Option<&UserName>) {
        self.audit(trial, user);
    }

    fn audit(&mut self, trial: &Trial, user: Option<&UserName>) {
        self.is_written = true;
        let Trial { outcome, criteria } = trial;
        self.gate.tally.login(*outcome);
        telemetry::audit(&self.context, &Audit::LoginAttempt { rule: self.rule, outcome: *outcome, criteria, user });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_written {
            self.audit(&Trial::broken_off(), None);
        }
    }
}

/// Adds the cookies that the verifying answer sets. One without a path belongs to where that was asked.
fn merge_cookies(headers: &mut HeaderMap, verified: &Verified, now: Timestamp) {
    for line in verified.answer.head.headers.get_all(header::SET_COOKIE) {
        let with_path = SetCookie::parse(line, now).map(|cookie| cookie.with_path(verified.target.raw_path()));
        headers.append(header::SET_COOKIE, with_path.unwrap_or_else(|| line.clone()));
    }
}

/// Which of the ended session's cookies travel into the new one. All of them, unless another user
/// logged in: then none, or, if the login set no session cookie, the session cookies that its request
/// `carried`, since the application itself made that session the new user's (product 3.2).
fn travelling(ended: Option<&Record>, carried: &Vault, user: &UserName, changes: &[VaultChange]) -> Vault {
    let Some(ended) = ended else { return Vault::default() };
    let is_switch = ended.identity.as_ref().is_some_and(|identity| identity.user != *user);
    if !is_switch {
        return ended.vault.clone();
    }
    let sets_session = changes.iter().any(|change| matches!(change, VaultChange::Put(cookie) if is_session(cookie)));
    if sets_session { Vault::default() } else { carried.filtered(&is_session) }
}

fn is_session(cookie: &VaultCookie) -> bool {
    cookie.expires.is_none() || vault::is_well_known_session(&cookie.name)
}
