//! What a trace found out. It must not know what follows from it: [`super::path`] does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peapod_netd::probe::connection::Tracked;
use peapod_netd::probe::route::Chosen;
use peapod_netd::probe::send::Walk;

use super::question::{Kind, PodEnd};
use crate::net::peers::Session;

/// What was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it begins.
    pub from: PodEnd,
    /// The destination, as people call it.
    pub to: String,
    /// The address that is sent to.
    pub address: IpAddr,
    /// What is sent.
    pub kind: Kind,
    /// The pod's address that it is sent from.
    pub source: IpAddr,
    /// The route in the pod.
    pub pod_route: Option<Chosen>,
    /// The node's end of the pod's link.
    pub veth: Option<String>,
    /// What the service map says.
    pub decision: Option<Decision>,
    /// The address after the service map.
    pub destination: IpAddr,
    /// The route on the pod's node.
    pub node_route: Result<Chosen, String>,
    /// The node at the other end, if it is another one.
    pub far: Option<Far>,
    /// The pod at the other end, if it is one.
    pub target: Option<PodEnd>,
    /// The sessions of the pod's node.
    pub leaves: Vec<Session>,
    /// The addresses of nodes.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// The first probe: to the destination as it was asked for.
    pub first: Option<Walk>,
    /// The probes to the address after the service map.
    pub walk: Option<Walk>,
    /// The kernel's memory of the first probe.
    pub connection: Option<Tracked>,
    /// Policies that select one of the ends.
    pub policies: Vec<String>,
}

/// What a service map says of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The service.
    pub service: String,
    /// `balance`, `refuse`, `drop`, `here`; `missing` where the map does not have it.
    pub action: String,
    /// Where it may be led.
    pub endpoints: Vec<SocketAddr>,
    /// Where the first probe was led; without one, the first of them.
    pub chosen: Option<SocketAddr>,
}

/// The node at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// Its name.
    pub name: String,
    /// The route there, or why it is not known.
    pub route: Result<Chosen, String>,
}
