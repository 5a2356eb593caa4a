//! What the network agent is told at start.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// Settings of the agent of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node's Node object.
    pub node_name: String,
    /// The node's own addresses, one of each family at most, as in its InternalIP. They are
    /// the source of what the node sends to pods and services, and must be on a link already
    /// (see [`crate::node_address`]).
    pub node_ips: Vec<IpAddr>,
    /// Those of the node's addresses that only this machine and its pods may reach, whatever
    /// routes others have: the InternalIP of a cluster that lives on one machine.
    pub private_ips: Vec<IpAddr>,
    /// Ranges of pod addresses of the whole cluster: what leaves them is masqueraded.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// The cluster's DNS, served on this node; `None` leaves it to another server.
    pub dns: Option<DnsConfig>,
    /// MTU of pods' links in bytes; `None` takes the uplink's.
    pub mtu: Option<u32>,
    /// UDP port of VXLAN tunnels, the same on all nodes; IANA's is 4789.
    pub vxlan_port: u16,
    /// Where the node's BGP speaker is to be looked at, while it has one.
    pub bgp_socket: Option<PathBuf>,
    /// Where other processes of this node ask for attachments (see [`crate::seam`]); `None`
    /// leaves that to callers in this process.
    pub attach_socket: Option<PathBuf>,
    /// Whether somebody else links the pods (CNI plugins): then this agent keeps services and
    /// names only, and takes no part in pods' addresses, links and routes.
    pub foreign_links: bool,
    /// Where the values of kernel settings are kept that [`crate::cleanup`] restores.
    pub state_dir: PathBuf,
}

/// Settings of the cluster's DNS.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster DNS addresses, from the ranges of service addresses.
    pub addresses: Vec<IpAddr>,
    /// The cluster's domain, usually `cluster.local`.
    pub domain: String,
    /// Seconds that clients may keep an answer about the cluster.
    pub ttl_s: u32,
    /// The node's resolver configuration, which names where other questions go;
    /// `/etc/resolv.conf` usually.
    pub resolv_conf: PathBuf,
}

impl DnsConfig {
    /// The usual settings, at these addresses.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        DnsConfig {
            addresses,
            domain: "cluster.local".to_owned(),
            ttl_s: 30,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}
