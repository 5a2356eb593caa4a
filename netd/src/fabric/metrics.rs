//! What can be measured of the node's BGP.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use peapod_router::RouterView;
use peapod_router::control::{Audit, FamilyView, ShownPeer};
use peapod_router::kernel::fib::Meter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The states of a session; each is always there, so that alerts have something to look at.
const STATES: [&str; 6] = [
    "Idle",
    "Connect",
    "Active",
    "OpenSent",
    "OpenConfirm",
    "Established",
];
/// Those of BFD's.
const BFD_STATES: [&str; 4] = ["AdminDown", "Down", "Init", "Up"];

/// The metrics. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct BgpMetrics {
    convergence_seconds: Histogram,
    audits: Counter,
    repaired: Counter,
    wanted: Gauge,
    installed: Gauge,
    missing: Gauge,
    different: Gauge,
    extra: Gauge,
    /// How the router was when it last changed.
    view: Arc<Mutex<RouterView>>,
}

/// What the sessions themselves count.
#[derive(Debug)]
struct Sessions(Arc<Mutex<RouterView>>);

/// A line: its labels, and its number.
type Line = (Vec<(&'static str, String)>, u64);

// === impl BgpMetrics ===

impl Default for BgpMetrics {
    fn default() -> Self {
        // From half a millisecond to about 16 s.
        let buckets = (0..16).map(|n| 0.0005 * f64::from(1 << n));
        Self {
            convergence_seconds: Histogram::new(buckets),
            audits: Counter::default(),
            repaired: Counter::default(),
            wanted: Gauge::default(),
            installed: Gauge::default(),
            missing: Gauge::default(),
            different: Gauge::default(),
            extra: Gauge::default(),
            view: Arc::default(),
        }
    }
}

impl BgpMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "peapod_bgp_convergence_seconds",
            "Time from a neighbor's message to the kernel's acknowledgement of the routes it changed",
            self.convergence_seconds.clone(),
        );
        registry.register(
            "peapod_bgp_fib_audits",
            "How often the kernel's routes were compared with those that should be there",
            self.audits.clone(),
        );
        registry.register(
            "peapod_bgp_fib_audit_repairs",
            "Routes that such a comparison found missing or different, and had written again",
            self.repaired.clone(),
        );
        for (what, gauge) in [
            ("wanted", &self.wanted),
            ("installed", &self.installed),
            ("missing", &self.missing),
            ("different", &self.different),
            ("extra", &self.extra),
        ] {
            registry.register(
                format!("peapod_bgp_fib_{what}_routes"),
                format!("Routes {what} in the kernel, by the last comparison"),
                gauge.clone(),
            );
        }
        registry.register_collector(Box::new(Sessions(self.view.clone())));
    }

    /// The router is so now.
    pub(crate) fn show(&self, view: RouterView) {
        *self.view.lock() = view;
    }
}

impl Meter for BgpMetrics {
    fn converged(&self, took: Duration) {
        self.convergence_seconds.observe(took.as_secs_f64());
    }

    fn audited(&self, audit: &Audit) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.audits.inc();
        self.repaired
            .inc_by((audit.missing + audit.different) as u64);
        self.wanted.set(count(audit.wanted));
        self.installed.set(count(audit.installed));
        self.missing.set(count(audit.missing));
        self.different.set(count(audit.different));
        self.extra.set(count(audit.extra));
    }
}

// === impl Sessions ===

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.0.lock();
        let peers = &view.peers;
        let mut gauge = |name, help, lines: Vec<Line>| {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            write(family, &lines, |number, at| {
                ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX)).encode(at)
            })
        };
        gauge(
            "peapod_bgp_sessions",
            "Sessions, by their state",
            by_state(&STATES, peers.iter().map(|one| one.peer.state.to_string())),
        )?;
        gauge(
            "peapod_bfd_sessions",
            "BFD sessions, by their state",
            by_state(&BFD_STATES, peers.iter().filter_map(|one| one.bfd.clone())),
        )?;
        gauge(
            "peapod_bgp_received_prefixes",
            "Paths received from a neighbor",
            of_families(peers, |family| family.received),
        )?;
        gauge(
            "peapod_bgp_accepted_prefixes",
            "Paths received from a neighbor and not refused",
            of_families(peers, |family| family.accepted),
        )?;
        gauge(
            "peapod_bgp_advertised_prefixes",
            "Prefixes announced to a neighbor",
            of_families(peers, |family| family.advertised),
        )?;
        let refused = i64::try_from(view.refusals.count).unwrap_or(i64::MAX);
        let help = "Routes that the kernel refuses and is asked for again";
        let name = "peapod_bgp_fib_refused_routes";
        let place = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(refused).encode(place)?;
        counters(&mut encoder, peers)
    }
}

fn counters(encoder: &mut DescriptorEncoder<'_>, peers: &[ShownPeer]) -> fmt::Result {
    let mut counter = |name, help, lines: Vec<Line>| {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        write(family, &lines, |number, at| {
            ConstCounter::new(number).encode(at)
        })
    };
    let each = |of: fn(&ShownPeer) -> u64| {
        let lines = peers.iter().map(|one| (vec![neighbor(one)], of(one)));
        lines.collect::<Vec<Line>>()
    };
    let updates = peers.iter().flat_map(|one| {
        let directions = ["received", "sent"].into_iter().zip(one.peer.updates);
        directions.map(|(direction, number)| {
            let labels = vec![neighbor(one), ("direction", direction.to_owned())];
            (labels, number)
        })
    });
    counter(
        "peapod_bgp_updates",
        "UPDATE messages, by direction",
        updates.collect(),
    )?;
    counter(
        "peapod_bgp_malformed_updates",
        "UPDATE messages from a neighbor that were wrong (RFC 7606)",
        each(|one| one.peer.problems),
    )?;
    counter(
        "peapod_bgp_session_flaps",
        "How often an established session was lost",
        each(lost),
    )
}

/// How often a session was lost: it came up once more than that if it is up.
fn lost(one: &ShownPeer) -> u64 {
    let up = one.peer.state.to_string() == "Established";
    one.peer.established.saturating_sub(up.into())
}

fn neighbor(one: &ShownPeer) -> (&'static str, String) {
    ("neighbor", one.peer.name.clone())
}

fn by_state(all: &[&str], states: impl Iterator<Item = String>) -> Vec<Line> {
    let mut counts: BTreeMap<String, u64> = all.iter().map(|one| ((*one).to_owned(), 0)).collect();
    states.for_each(|state| *counts.entry(state).or_default() += 1);
    let lines = counts.into_iter();
    lines
        .map(|(state, count)| (vec![("state", state)], count))
        .collect()
}

fn of_families(peers: &[ShownPeer], count: fn(&FamilyView) -> u32) -> Vec<Line> {
    let lines = peers.iter().flat_map(|one| {
        one.peer.families.iter().map(move |family| {
            let labels = vec![neighbor(one), ("family", family.family.clone())];
            (labels, count(family).into())
        })
    });
    lines.collect()
}

fn write(
    mut family: MetricEncoder<'_>,
    lines: &[Line],
    encode: fn(u64, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    lines
        .iter()
        .try_for_each(|(labels, number)| encode(*number, family.encode_family(labels)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_served() {
        let metrics = BgpMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let peer = |name: &str, state: &str, established: u32| {
            let peer = json!({"name": name, "id": 1, "remoteAs": "65000", "state": state,
                "sinceSeconds": 1, "established": established, "messages": [9, 9],
                "updates": [3, 2], "problems": 1, "bfd": "Up",
                "families": [{"family": "ipv4-unicast", "received": 5, "accepted": 4,
                    "advertised": 2, "endOfRib": true}]});
            serde_json::from_value(peer).unwrap()
        };
        metrics.show(RouterView {
            peers: vec![peer("eth1", "Established", 3), peer("eth2", "Active", 2)],
            ..RouterView::default()
        });
        metrics.converged(Duration::from_millis(3));
        metrics.audited(&Audit {
            wanted: 5,
            installed: 4,
            missing: 1,
            ..Audit::default()
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "peapod_bgp_sessions{state=\"Established\"} 1",
            "peapod_bgp_sessions{state=\"Idle\"} 0",
            "peapod_bfd_sessions{state=\"Up\"} 2",
            "peapod_bgp_received_prefixes{neighbor=\"eth1\",family=\"ipv4-unicast\"} 5",
            "peapod_bgp_accepted_prefixes{neighbor=\"eth1\",family=\"ipv4-unicast\"} 4",
            "peapod_bgp_advertised_prefixes{neighbor=\"eth2\",family=\"ipv4-unicast\"} 2",
            "peapod_bgp_updates_total{neighbor=\"eth1\",direction=\"received\"} 3",
            "peapod_bgp_malformed_updates_total{neighbor=\"eth2\"} 1",
            "peapod_bgp_session_flaps_total{neighbor=\"eth1\"} 2",
            "peapod_bgp_session_flaps_total{neighbor=\"eth2\"} 2",
            "peapod_bgp_convergence_seconds_count 1",
            "peapod_bgp_fib_wanted_routes 5",
            "peapod_bgp_fib_audit_repairs_total 1",
            "peapod_bgp_fib_refused_routes 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} not in\n{text}");
        }
    }
}
