//! What is counted of requests, logins and sessions. No label names a user, a session or a path (S192).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::metrics::Counters;
use crate::metrics::Histogram;
use crate::metrics::Kind;
use crate::metrics::Text;
use crate::policy::csrf::CrossSite;
use crate::policy::login::Outcome;
use crate::policy::session::EndReason;
use crate::proxy::Gate;
use crate::proxy::snapshot::LiveSite;
use crate::proxy::snapshot::Snapshot;
use crate::store::StoreError;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: [&str; 4] = ["success", "failure", "undetermined", "throttled"];
const DEVICES: [&str; 5] = ["registered", "refreshed", "challenged", "refused", "skipped"];
const KINDS: [&str; 2] = ["authenticated", "anonymous"];

/// The requests of a site.
#[derive(Default)]
pub(super) struct Traffic {
    classes: Counters<{ CLASSES.len() }>,
    took: Histogram,
    unanswered: Counters<1>,
    cross_site: [Counters<{ CrossSite::ALL.len() }>; 2],
}

impl Traffic {
    /// A request was answered.
    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        self.classes.count(usize::from(status.as_u16() / 100).saturating_sub(1));
        self.took.observe(took);
    }

    /// A cross-site request was refused, or would have been.
    pub(super) fn cross_site(&self, reason: CrossSite, enforced: bool) {
        self.cross_site[usize::from(enforced)].count(reason as usize);
    }

    /// The application gave no answer that could be passed on.
    pub(super) fn unanswered(&self) {
        self.unanswered.count(0);
    }
}

/// What belongs to no site, or is told of all together.
#[derive(Default)]
pub(super) struct Tally {
    /// Requests for sites that are not here.
    pub(super) strays: Traffic,
    logins: Counters<{ OUTCOMES.len() }>,
    begun: Counters<{ KINDS.len() }>,
    ended: Counters<{ EndReason::ALL.len() }>,
    pub(super) devices: Devices,
}

/// What became of device-bound sessions.
#[derive(Default)]
pub(super) struct Devices(Counters<{ DEVICES.len() }>);

impl Devices {
    /// A key was registered.
    pub(super) fn registered(&self) {
        self.0.count(0);
    }

    /// A bound cookie was given for a proof.
    pub(super) fn refreshed(&self) {
        self.0.count(1);
    }

    /// A browser was told what to sign.
    pub(super) fn challenged(&self) {
        self.0.count(2);
    }

    /// A registration or refresh was refused.
    pub(super) fn refused(&self) {
        self.0.count(3);
    }

    /// A request says that its browser could not refresh.
    pub(super) fn skipped(&self) {
        self.0.count(4);
    }
}

impl Tally {
    /// Somebody tried to log in.
    pub(super) fn login(&self, outcome: Outcome) {
        self.logins.count(match outcome {
            Outcome::Success => 0,
            Outcome::Failure => 1,
            Outcome::Undetermined | Outcome::Ask => 2,
        });
    }

    /// Somebody may not try to log in yet.
    pub(super) fn login_throttled(&self) {
        self.logins.count(3);
    }

    /// A session began.
    pub(super) fn begun(&self, authenticated: bool) {
        self.begun.count(usize::from(!authenticated));
    }

    /// A session ended.
    pub(super) fn ended(&self, reason: EndReason) {
        self.ended.count(reason as usize);
    }

    fn write(&self, text: &mut Text) {
        let name = "vestibule_logins_total";
        text.family(name, Kind::Counter, "Attempts to log in.");
        for (outcome, count) in OUTCOMES.iter().zip(self.logins.read()) {
            text.sample(name, &[("outcome", outcome)], count);
        }
        let name = "vestibule_sessions_started_total";
        text.family(name, Kind::Counter, "Sessions that began.");
        for (kind, count) in KINDS.iter().zip(self.begun.read()) {
            text.sample(name, &[("state", kind)], count);
        }
        let name = "vestibule_sessions_ended_total";
        text.family(name, Kind::Counter, "Sessions that this process ended.");
        for (reason, count) in EndReason::ALL.iter().zip(self.ended.read()) {
            text.sample(name, &[("reason", reason.as_str())], count);
        }
        let name = "vestibule_devices_total";
        text.family(name, Kind::Counter, "Registrations and refreshes of device-bound sessions.");
        for (outcome, count) in DEVICES.iter().zip(self.devices.0.read()) {
            text.sample(name, &[("outcome", outcome)], count);
        }
    }
}

impl Gate {
    /// What was counted, how many sessions there are, and how the upstreams are.
    ///
    /// # Errors
    /// When the store does not answer; what it is not needed for was written then.
    pub async fn write_metrics(&self, text: &mut Text) -> Result<(), StoreError> {
        let (snapshot, now) = (self.current.load_full(), self.now());
        let traffic: Vec<(&str, &Traffic)> = snapshot
            .sites()
            .map(|site| (&*site.name, &*site.lasting.traffic))
            .chain([("none", &self.tally.strays)])
            .collect();
        let name = "vestibule_requests_total";
        text.family(
            name,
            Kind::Counter,
            "Requests that were answered; site \"none\": asked for a site that is not here.",
        );
        for (site, traffic) in &traffic {
            for (class, count) in CLASSES.iter().zip(traffic.classes.read()) {
                text.sample(name, &[("site", site), ("status", class)], count);
            }
        }
        let name = "vestibule_request_duration_seconds";
        text.family(name, Kind::Histogram, "From the head of a request to the head of its answer.");
        for (site, traffic) in &traffic {
            text.histogram(name, &[("site", site)], &traffic.took);
        }
        let name = "vestibule_upstream_failures_total";
        text.family(name, Kind::Counter, "Requests to which the application gave no answer that could be passed on.");
        for (site, traffic) in &traffic {
            let [unanswered] = traffic.unanswered.read();
            text.sample(name, &[("site", site)], unanswered);
        }
        write_cross_site(text, &snapshot);
        self.tally.write(text);
        let name = "vestibule_upstream_up";
        text.family(
            name,
            Kind::Gauge,
            "Whether an upstream is taken to be up: one of several, or one with health checks.",
        );
        let is_judged = |site: &&Arc<LiveSite>| site.upstreams.len() > 1 || site.site.health.is_some();
        for site in snapshot.sites().filter(is_judged) {
            for upstream in &site.upstreams {
                let labels = [("site", &*site.name), ("upstream", &*upstream.name)];
                text.sample(name, &labels, u8::from(upstream.is_up(now)));
            }
        }
        let mut populations = Vec::new();
        for site in snapshot.sites() {
            populations.push((Arc::clone(&site.name), self.store.population(&site.name).await?));
        }
        let name = "vestibule_sessions";
        text.family(name, Kind::Gauge, "Sessions in the store.");
        for (site, population) in populations {
            for (kind, count) in KINDS.iter().zip([population.authenticated, population.anonymous]) {
                text.sample(name, &[("site", &site), ("state", kind)], count);
            }
        }
        Ok(())
    }
}

fn write_cross_site(text: &mut Text, snapshot: &Snapshot) {
    let name = "vestibule_csrf_refused_total";
    text.family(name, Kind::Counter, "Cross-site requests that were refused, or with mode \"report\" only logged.");
    for site in snapshot.sites() {
        for (enforced, counts) in ["false", "true"].into_iter().zip(&site.lasting.traffic.cross_site) {
            for (reason, count) in CrossSite::ALL.iter().zip(counts.read()) {
                let labels = [("site", &*site.name), ("reason", reason.as_str()), ("enforced", enforced)];
                text.sample(name, &labels, count);
            }
        }
    }
}
