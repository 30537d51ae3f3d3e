//! Logout: the session is destroyed first, durably; then the application is told, with its cookies
//! as they were; whatever it answers, or if it does not, the user is logged out (product 3.6).

use http::HeaderValue;
use http::Response;

use crate::policy::access::Access;
use crate::policy::csrf::RequestKind;
use crate::policy::logout::LogoutRule;
use crate::policy::session::EndReason;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::forward::Answer;
use crate::proxy::reply;
use crate::proxy::session::Session;
use crate::telemetry;
use crate::telemetry::Audit;

impl Exchange<'_> {
    /// Carries a logout out.
    pub(super) async fn log_out(&mut self, rule: &LogoutRule) -> Result<Response<Body>, Failure> {
        self.watched = true;
        let identity = self.session.identity().cloned();
        self.end_session(EndReason::Logout).await?;
        self.trace.settled.clear = clear_site_data(&rule.clear_site_data);
        let answer = self.tell_application().await;
        // The answer passes through, but nothing in it is kept and nothing is minted for it.
        self.session = Session::None { tombstone: true };
        match answer {
            Ok(Some(answer)) => {
                self.end_others_as_told(&answer.head.headers, identity).await?;
                self.finish(answer).await
            }
            Ok(None) => Ok(self.landing(rule)),
            Err(failure) => {
                self.trace.report(&failure);
                Ok(self.landing(rule))
            }
        }
    }

    /// `None` when there is nobody to log out: without a session only a public path is forwarded.
    async fn tell_application(&mut self) -> Result<Option<Answer>, Failure> {
        if !self.session.is_authenticated() && self.route.access != Access::Public {
            return Ok(None);
        }
        // It must not end with the session, which has ended.
        let body = self.streamed_body(None)?;
        let answer = self.ask(body, false).await?;
        telemetry::audit(&self.trace.context, &Audit::LogoutForwarded { status: answer.head.status });
        Ok(Some(answer))
    }

    fn landing(&self, rule: &LogoutRule) -> Response<Body> {
        if self.kind != RequestKind::Navigation {
            return reply::no_content();
        }
        reply::see_other(rule.landing.as_deref().unwrap_or_else(|| self.site.site.login_page()))
    }
}

/// `Clear-Site-Data` with these directives as quoted strings.
pub(super) fn clear_site_data(directives: &[String]) -> Option<HeaderValue> {
    let quoted: Vec<_> = directives.iter().map(|directive| format!("\"{directive}\"")).collect();
    if quoted.is_empty() { None } else { HeaderValue::from_str(&quoted.join(", ")).ok() }
}
