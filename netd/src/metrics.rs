//! What can be measured, under kube-proxy's and CoreDNS's names where they have one.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::fabric::BgpMetrics;

/// kube-proxy's begin at a quarter of a second, and are many.
const PROGRAMMING_BUCKETS: [f64; 18] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0,
    300.0,
];

/// Label of DNS replies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Rcode {
    /// `NoError`, `NXDomain`, ...
    rcode: String,
}

/// The agent's metrics. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    sync_seconds: Histogram,
    programming_seconds: Histogram,
    last_sync: Gauge,
    frontend_changes: Counter,
    sync_failures: Counter,
    frontends: Gauge,
    pods: Gauge,
    dns_replies: Family<Rcode, Counter>,
    /// Those of BGP.
    pub(crate) bgp: BgpMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        // kube-proxy's buckets begin at a millisecond; a change takes us less.
        let buckets = (0..16).map(|n| 0.0001 * f64::from(1 << n));
        Metrics {
            sync_seconds: Histogram::new(buckets),
            programming_seconds: Histogram::new(PROGRAMMING_BUCKETS),
            last_sync: Gauge::default(),
            frontend_changes: Counter::default(),
            sync_failures: Counter::default(),
            frontends: Gauge::default(),
            pods: Gauge::default(),
            dns_replies: Family::default(),
            bgp: BgpMetrics::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "Time to bring a batch of service changes into the kernel",
            self.sync_seconds.clone(),
        );
        registry.register(
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of a service or of a pod's readiness to the kernel's having it",
            self.programming_seconds.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "When service changes were last brought into the kernel",
            self.last_sync.clone(),
        );
        registry.register(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures",
            "Service changes that the kernel refused",
            self.sync_failures.clone(),
        );
        registry.register(
            "peapod_netd_frontend_changes",
            "Addresses and ports of services that were added, changed or removed",
            self.frontend_changes.clone(),
        );
        registry.register(
            "peapod_netd_frontends",
            "Addresses and ports of services in the kernel",
            self.frontends.clone(),
        );
        registry.register(
            "peapod_netd_attached_pods",
            "Pods attached to the network of this node",
            self.pods.clone(),
        );
        registry.register(
            "coredns_dns_responses",
            "DNS replies by their code",
            self.dns_replies.clone(),
        );
        self.bgp.register(registry);
    }

    /// All of them, in OpenMetrics' text format.
    pub(crate) fn text(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    /// Changes of services reached the kernel.
    pub(crate) fn synced(&self, changes: usize, frontends: usize, took: Duration, now_s: i64) {
        self.sync_seconds.observe(took.as_secs_f64());
        self.last_sync.set(now_s);
        self.frontend_changes.inc_by(changes as u64);
        self.frontends.set(frontends as i64);
    }

    /// The kernel has what happened so long ago. Clocks of two machines are compared, and what
    /// happened is told in whole seconds.
    pub(crate) fn programmed(&self, since: jiff::SignedDuration) {
        self.programming_seconds
            .observe(since.as_secs_f64().max(0.0));
    }

    /// The kernel refused something.
    pub(crate) fn sync_failed(&self) {
        self.sync_failures.inc();
    }

    /// So many pods are attached.
    pub(crate) fn attached(&self, pods: usize) {
        self.pods.set(pods as i64);
    }

    /// A DNS request was answered.
    pub(crate) fn dns_replied(&self, rcode: hickory_proto::op::ResponseCode) {
        let rcode = format!("{rcode:?}");
        self.dns_replies.get_or_create(&Rcode { rcode }).inc();
    }
}
