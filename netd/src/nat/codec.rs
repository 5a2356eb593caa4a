//! Frontends and where they lead, as elements of the kernel's maps, and back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use peapod_api::attach::Protocol;
use peapod_nft::{Data, Element, Verdict};

use super::Ip;
use super::base::REFUSE;
use super::chains::{Chain, Keyed, OUTER, Shape};
use crate::core::services::{Balance, Dispatch, Frontend};

/// Name of a map and the elements in it.
pub(crate) type Elements = BTreeMap<(&'static str, Vec<u8>), Data>;

/// The IANA number of a protocol.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|&protocol| protocol_number(protocol) == number)
}

pub(crate) fn address_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The key of protocol and port, each padded to four bytes.
pub(crate) fn port_key(protocol: Protocol, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [protocol_number(protocol), 0, 0, 0, high, low, 0, 0]
}

/// The value of address and port.
pub(crate) fn endpoint_bytes(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = address_bytes(endpoint.ip());
    bytes.extend(endpoint.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}

fn read_address(ip: Ip, bytes: &[u8]) -> Option<IpAddr> {
    if ip.v4 {
        let octets: [u8; 4] = bytes.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// Reads an address and the port behind it.
pub(crate) fn read_endpoint(ip: Ip, bytes: &[u8]) -> Option<SocketAddr> {
    let (address, port) = bytes.split_at_checked(ip.address_len() as usize)?;
    let port = u16::from_be_bytes(port.get(..2)?.try_into().ok()?);
    Some(SocketAddr::new(read_address(ip, address)?, port))
}

fn read_port_key(bytes: &[u8]) -> Option<(Protocol, u16)> {
    let port = u16::from_be_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((protocol_of(*bytes.first()?)?, port))
}

pub(crate) fn keyed(frontend: &Frontend) -> Keyed {
    match frontend {
        Frontend::Address { .. } => Keyed::Address,
        Frontend::NodePort { .. } => Keyed::NodePort,
    }
}

pub(crate) fn key(frontend: &Frontend) -> Vec<u8> {
    let mut key = match frontend {
        Frontend::Address { ip, .. } => address_bytes(*ip),
        Frontend::NodePort { .. } => Vec::new(),
    };
    key.extend(port_key(frontend.protocol(), frontend.port()));
    key
}

fn read_key(ip: Ip, keyed: Keyed, key: &[u8]) -> Option<Frontend> {
    match keyed {
        Keyed::Address => {
            let (address, ports) = key.split_at_checked(ip.address_len() as usize)?;
            let (protocol, port) = read_port_key(ports)?;
            let ip = read_address(ip, address)?;
            Some(Frontend::Address { ip, protocol, port })
        }
        Keyed::NodePort => {
            let (protocol, port) = read_port_key(key)?;
            Some(Frontend::NodePort {
                v4: ip.v4,
                protocol,
                port,
            })
        }
    }
}

/// The chain that a frontend leads to.
pub(crate) fn chain(frontend: &Frontend, balance: &Balance) -> Chain {
    let inner = balance.endpoints.len() as u32;
    let shape = match &balance.outside {
        None => Shape::Pick {
            outer: false,
            count: inner,
        },
        Some(outside) => Shape::Gate {
            outer: outside.len() as u32,
            inner,
        },
    };
    Chain {
        keyed: keyed(frontend),
        shape,
        affinity_s: balance.affinity_s,
    }
}

/// The elements of a frontend.
pub(crate) fn encode(frontend: &Frontend, dispatch: &Dispatch, into: &mut Elements) {
    let keyed = keyed(frontend);
    let key = key(frontend);
    let verdict = match dispatch {
        Dispatch::Here => Verdict::Accept,
        Dispatch::Drop => Verdict::Drop,
        Dispatch::Refuse => Verdict::Goto(REFUSE.to_owned()),
        Dispatch::Balance(balance) => Verdict::Goto(chain(frontend, balance).name()),
    };
    into.insert((keyed.services(), key.clone()), Data::Verdict(verdict));
    let Dispatch::Balance(balance) = dispatch else {
        return;
    };
    let outside = balance.outside.iter().flatten();
    let places = (0..).zip(&balance.endpoints).chain((OUTER..).zip(outside));
    for (place, endpoint) in places {
        let place: u32 = place;
        let mut key = key.clone();
        key.extend(place.to_ne_bytes());
        let data = Data::Value(endpoint_bytes(*endpoint));
        into.insert((keyed.endpoints(), key), data);
    }
}

/// Reads the two maps of a kind of frontends back. What this version would not have written
/// is left out: it counts as absent, and is written anew.
pub(crate) fn decode(
    ip: Ip,
    keyed: Keyed,
    services: &[Element],
    endpoints: &[Element],
) -> BTreeMap<Frontend, Dispatch> {
    let places: BTreeMap<&[u8], &Data> = endpoints
        .iter()
        .filter_map(|element| Some((element.key.as_slice(), element.data.as_ref()?)))
        .collect();
    let read = |element: &Element| {
        let Some(Data::Verdict(verdict)) = &element.data else {
            return None;
        };
        let frontend = read_key(ip, keyed, &element.key)?;
        let list = |first: u32, count: u32| -> Option<Vec<SocketAddr>> {
            (first..first + count)
                .map(|place| {
                    let mut key = element.key.clone();
                    key.extend(place.to_ne_bytes());
                    match places.get(key.as_slice()) {
                        Some(Data::Value(bytes)) => read_endpoint(ip, bytes),
                        _ => None,
                    }
                })
                .collect()
        };
        let dispatch = match verdict {
            Verdict::Accept => Dispatch::Here,
            Verdict::Drop => Dispatch::Drop,
            Verdict::Goto(name) if name == REFUSE => Dispatch::Refuse,
            Verdict::Goto(name) => {
                let chain = Chain::parse(name)?;
                let (inner, outer) = match chain.shape {
                    Shape::Pick {
                        outer: false,
                        count,
                    } => (count, None),
                    Shape::Gate { outer, inner } => (inner, Some(outer)),
                    _ => return None,
                };
                Dispatch::Balance(Balance {
                    endpoints: list(0, inner)?,
                    outside: match outer {
                        Some(count) => Some(list(OUTER, count)?),
                        None => None,
                    },
                    affinity_s: chain.affinity_s,
                })
            }
            _ => return None,
        };
        Some((frontend, dispatch))
    };
    services.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn round_trip(ip: Ip, frontend: Frontend, dispatch: Dispatch) {
        let mut elements = Elements::new();
        encode(&frontend, &dispatch, &mut elements);
        let of = |map: &str| -> Vec<Element> {
            let some = elements.iter().filter(|((name, _), _)| *name == map);
            some.map(|((_, key), data)| Element::entry(key.clone(), data.clone()))
                .collect()
        };
        let keyed = keyed(&frontend);
        let read = decode(ip, keyed, &of(keyed.services()), &of(keyed.endpoints()));
        assert_eq!(read, BTreeMap::from([(frontend, dispatch)]));
    }

    #[test]
    fn what_is_written_reads_back() {
        let v4 = Frontend::Address {
            ip: "10.96.0.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 443,
        };
        let v6 = Frontend::NodePort {
            v4: false,
            protocol: Protocol::Sctp,
            port: 30000,
        };
        for dispatch in [Dispatch::Here, Dispatch::Drop, Dispatch::Refuse] {
            round_trip(Ip::V4, v4, dispatch.clone());
            round_trip(Ip::V6, v6, dispatch);
        }
        let balance = Balance {
            endpoints: endpoints(&["10.0.0.2:80", "10.0.0.1:80"]),
            outside: Some(Vec::new()),
            affinity_s: Some(60),
        };
        round_trip(Ip::V4, v4, Dispatch::Balance(balance));
        let balance = Balance {
            endpoints: endpoints(&["[fd00::2]:80", "[fd00::1]:8080"]),
            outside: Some(endpoints(&["[fd00::1]:8080"])),
            affinity_s: None,
        };
        round_trip(Ip::V6, v6, Dispatch::Balance(balance));
    }

    #[test]
    fn what_is_incomplete_is_absent() {
        let goto = Data::Verdict(Verdict::Goto("port-in-2".into()));
        let key = port_key(Protocol::Tcp, 80).to_vec();
        let services = [
            Element::entry(key.clone(), goto),
            Element::key(key),
            Element::key(vec![1]),
        ];
        assert!(decode(Ip::V4, Keyed::NodePort, &services, &[]).is_empty());
    }
}
