//! What the maps say of a node's pods: their host ports, and their way to themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peapod_api::attach::HostPort;
use peapod_nft::{Data, Element};

use super::base::{HAIRPIN, HOST_IP_PORTS, HOST_PORTS};
use super::{Ip, codec};

/// What the maps say of one pod.
#[derive(Clone, Debug)]
pub struct PodPorts<'a> {
    /// Its addresses.
    pub ips: &'a [IpAddr],
    /// Ports of the node that lead to it.
    pub host_ports: &'a [HostPort],
}

/// Elements about attached pods, by set and key; those of a set have no value.
pub(super) type PodElements = BTreeMap<(&'static str, Vec<u8>), Option<Vec<u8>>>;

pub(super) fn pod_element(key: &[u8], value: &Option<Vec<u8>>) -> Element {
    Element {
        key: key.to_vec(),
        interval_end: false,
        data: value.clone().map(Data::Value),
    }
}

pub(super) fn pod_elements(ip: Ip, pod: &PodPorts<'_>) -> PodElements {
    let mut elements = BTreeMap::new();
    let Some(own) = pod.ips.iter().find(|own| own.is_ipv4() == ip.v4) else {
        return elements;
    };
    elements.insert((HAIRPIN, codec::address_bytes(*own).repeat(2)), None);
    for port in pod.host_ports {
        let target = SocketAddr::new(*own, port.container_port);
        let key = codec::port_key(port.protocol, port.host_port);
        let (set, key) = match port.host_ip {
            Some(host) if host.is_ipv4() != ip.v4 => continue,
            Some(host) if !host.is_unspecified() => {
                let mut with_address = codec::address_bytes(host);
                with_address.extend(key);
                (HOST_IP_PORTS, with_address)
            }
            _ => (HOST_PORTS, key.to_vec()),
        };
        elements.insert((set, key), Some(codec::endpoint_bytes(target)));
    }
    elements
}
