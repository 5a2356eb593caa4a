//! Well-known labels, annotations, taints and finalizers, and Peapod's own.

/// Node label: its name as the machine knows it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Node label: its architecture, as Go calls it.
pub const ARCH: &str = "kubernetes.io/arch";
/// Node label: its operating system.
pub const OS: &str = "kubernetes.io/os";
/// Node label: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Node label: its region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Node label: its rack; blocks of one rack come from one contiguous range.
pub const RACK: &str = "net.peapod.dev/rack";

/// Node annotation: its BGP Identifier, as `192.0.2.1`, in place of what `BgpConfig` says.
pub const ROUTER_ID: &str = "net.peapod.dev/router-id";

/// Node annotation: how far the node has left the fabric: [`DRAIN_HANDOVER`], [`DRAIN_GRACEFUL`],
/// [`DRAIN_SERVICES`], [`DRAIN_ALL`], each with all before it. Cordoning a node alone changes
/// nothing of what it announces.
pub const DRAIN: &str = "net.peapod.dev/drain";
/// Value of [`DRAIN`]: the node announces what it did; others are ready to hand it the connections
/// that it has and that the fabric will lead to them.
pub const DRAIN_HANDOVER: &str = "handover";
/// Value of [`DRAIN`]: all it announces carries the community GRACEFUL_SHUTDOWN (RFC 8326) and a
/// longer AS path, so that leaves prefer other nodes, and nothing is withdrawn.
pub const DRAIN_GRACEFUL: &str = "graceful";
/// Value of [`DRAIN`]: as that, and addresses of services are withdrawn; its pods stay reachable.
pub const DRAIN_SERVICES: &str = "services";
/// Value of [`DRAIN`]: its blocks of pod addresses are withdrawn, too: nobody outside reaches its
/// pods any more.
pub const DRAIN_ALL: &str = "all";

/// Taint of a node that is not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that is not heard of.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Label of an EndpointSlice: the service it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of an EndpointSlice: who manages it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Annotation of an EndpointSlice: when the first thing happened that it tells of.
pub const LAST_CHANGE_TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Label that a Deployment puts on its ReplicaSets and their pods.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The finalizer of foreground deletion.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of orphaning deletion.
pub const FINALIZER_ORPHAN: &str = "orphan";
/// Finalizer of a ServiceCIDR: it stays while Services have addresses that only it has.
pub const FINALIZER_SERVICE_CIDR: &str = "networking.k8s.io/service-cidr-finalizer";
/// The ServiceCIDR of the servers' own ranges, which they keep themselves.
pub const DEFAULT_SERVICE_CIDR: &str = "kubernetes";
