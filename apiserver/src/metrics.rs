//! Metrics under their upstream names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What a request was for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    /// `GET`, `LIST`, `WATCH`, `POST`, ...
    pub verb: &'static str,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    request_kind: &'static str,
}

/// The metrics of a server.
pub struct Metrics {
    registry: parking_lot::Mutex<Registry>,
    total: Family<Answered, Counter>,
    duration: Family<Request, Histogram>,
    inflight: Family<Kind, Gauge>,
    longrunning: Gauge,
    audit_errors: Counter,
}

/// Counts a request while it is in work.
pub struct InFlight(Gauge);

/// The bounds of the request histogram, in seconds: upstream's.
const DURATIONS: [f64; 22] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 60.0,
];

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let total = Family::default();
        let duration =
            Family::<Request, Histogram>::new_with_constructor(|| Histogram::new(DURATIONS));
        let inflight = Family::default();
        let longrunning = Gauge::default();
        let audit_errors = Counter::default();
        registry.register(
            "apiserver_audit_error",
            "Audit records that were lost: the log could not keep up, or the disk failed",
            audit_errors.clone(),
        );
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and HTTP response code",
            total.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency in seconds by verb and resource, watches aside",
            duration.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests in work, reading and mutating",
            inflight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and streams that are open",
            longrunning.clone(),
        );
        Self {
            registry: parking_lot::Mutex::new(registry),
            total,
            duration,
            inflight,
            longrunning,
            audit_errors,
        }
    }
}

impl Metrics {
    /// Notes an answered request.
    pub fn answered(&self, request: Request, code: u16, seconds: Option<f64>) {
        let answered = Answered {
            verb: request.verb,
            group: request.group.clone(),
            version: request.version.clone(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
            code,
        };
        self.total.get_or_create(&answered).inc();
        if let Some(seconds) = seconds {
            self.duration.get_or_create(&request).observe(seconds);
        }
    }

    /// Counts a request for as long as the answer lives.
    pub fn in_flight(&self, mutating: bool) -> InFlight {
        let request_kind = if mutating { "mutating" } else { "readOnly" };
        let gauge = self.inflight.get_or_create(&Kind { request_kind }).clone();
        gauge.inc();
        InFlight(gauge)
    }

    /// Counts a watch or stream for as long as the answer lives.
    pub fn long_running(&self) -> InFlight {
        self.longrunning.inc();
        InFlight(self.longrunning.clone())
    }

    /// Lets another part of the process add its own to what is served.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock())
    }

    /// Counts audit records that are lost.
    pub fn audit_errors(&self) -> Counter {
        self.audit_errors.clone()
    }

    /// All metrics, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        match encode(&mut out, &self.registry.lock()) {
            Ok(()) => out,
            Err(_) => String::new(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_as_upstream() {
        let metrics = Metrics::default();
        let request = Request {
            verb: "GET",
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            subresource: String::new(),
        };
        metrics.answered(request, 200, Some(0.01));
        let watching = metrics.long_running();
        let text = metrics.text();
        assert!(
            text.contains("apiserver_request_total{verb=\"GET\",group=\"apps\""),
            "{text}"
        );
        assert!(text.contains("apiserver_request_duration_seconds_bucket{le=\"0.025\""));
        assert!(text.contains("apiserver_longrunning_requests 1"));
        drop(watching);
        assert!(metrics.text().contains("apiserver_longrunning_requests 0"));
    }
}
