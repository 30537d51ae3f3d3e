//! Everything that is counted and measured, for Prometheus.

use bytes::Bytes;
use http::StatusCode;

use crate::admin::Desk;
use crate::admin::reply;
use crate::admin::reply::Reply;
use crate::metrics::Kind;
use crate::metrics::Text;
use crate::telemetry;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Desk {
    /// When the store does not answer, what is known without it.
    pub(super) async fn metrics(&self) -> Reply {
        let mut text = Text::default();
        text.family("vestibule_build_info", Kind::Gauge, "The version that runs.");
        text.sample("vestibule_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        // A silent store is counted there.
        let _counted = self.gate.write_metrics(&mut text).await;
        self.store.write_metrics(&mut text);
        self.shared.write_metrics(&mut text);
        text.family("vestibule_log_lines_lost_total", Kind::Counter, "Lines of the log that could not be written.");
        text.sample("vestibule_log_lines_lost_total", &[], telemetry::lines_lost());
        reply::answer(StatusCode::OK, CONTENT_TYPE, Bytes::from(text.into_string()))
    }
}
