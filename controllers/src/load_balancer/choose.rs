//! Which address a Service gets. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use peapod_api::net::{AddressRange, LoadBalancerAddressSpec};

use crate::common::Key;

/// What a Service wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Families in the Service's order: whether each is IPv4.
    pub families: Vec<bool>,
    /// Addresses that it asks for, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// The pool that it asks for.
    pub pool: Option<String>,
    /// Under which key it shares an address.
    pub sharing_key: Option<String>,
    /// Its ports, as `TCP/80`.
    pub ports: BTreeSet<String>,
}

/// A pool that is for the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ranges: Vec<AddressRange>,
    /// Whether it gives addresses to Services that ask for none in particular.
    pub auto_assign: bool,
}

/// Addresses that are claimed.
pub type Taken = BTreeMap<IpAddr, LoadBalancerAddressSpec>;

/// An address for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The address.
    pub ip: IpAddr,
    /// Name of its pool.
    pub pool: String,
}

// === impl Wish ===

impl Wish {
    /// The address of a family that is asked for.
    fn asked(&self, v4: bool) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }

    /// Whether an address that the Service has is one that it wants.
    pub fn allows(&self, ip: IpAddr, claim: &LoadBalancerAddressSpec) -> bool {
        let v4 = ip.is_ipv4();
        self.families.contains(&v4)
            && self.asked(v4).is_none_or(|asked| asked == ip)
            && self.pool.as_ref().is_none_or(|pool| *pool == claim.pool)
    }
}

/// Whether a Service may have an address beside those that have it.
pub fn may_share(wish: &Wish, service: &Key, claim: &LoadBalancerAddressSpec) -> bool {
    let mut others = claim
        .services
        .iter()
        .filter(|one| !is(one, service))
        .peekable();
    if others.peek().is_none() {
        return true;
    }
    claim.sharing_key.is_some()
        && claim.sharing_key == wish.sharing_key
        && !others.any(|other| other.ports.iter().any(|port| wish.ports.contains(port)))
}

/// Whether an entry of a claim is of a Service.
pub fn is(entry: &peapod_api::net::LoadBalancerAddressService, service: &Key) -> bool {
    entry.namespace == service.namespace && entry.name == service.name
}

/// An address of a family, or why there is none: a sentence for people.
///
/// What is asked for counts alone. Else one that the Service may share comes first, then the first
/// free one of the pools in their order.
pub fn choose(
    wish: &Wish,
    v4: bool,
    service: &Key,
    pools: &[Pool],
    taken: &Taken,
) -> Result<Choice, String> {
    let named = |pool: &&Pool| wish.pool.as_ref().is_none_or(|name| *name == pool.name);
    let pools: Vec<&Pool> = pools.iter().filter(named).collect();
    if let Some(asked) = wish.asked(v4) {
        return asked_for(asked, wish, service, &pools, taken);
    }
    let open: Vec<&Pool> = match wish.pool {
        Some(_) => pools,
        None => pools.into_iter().filter(|pool| pool.auto_assign).collect(),
    };
    let choice = |ip: IpAddr, pool: &Pool| Choice {
        ip,
        pool: pool.name.clone(),
    };
    if wish.sharing_key.is_some() {
        let shared = taken
            .iter()
            .filter(|(ip, claim)| ip.is_ipv4() == v4 && may_share(wish, service, claim));
        let mut pooled = shared.filter_map(|(ip, _)| Some(choice(*ip, holder(*ip, &open)?)));
        if let Some(choice) = pooled.next() {
            return Ok(choice);
        }
    }
    let free = open.iter().find_map(|pool| {
        let mut ranges = pool.ranges.iter().filter(|range| range.is_ipv4() == v4);
        ranges.find_map(|range| Some(choice(first_free(range, taken)?, pool)))
    });
    free.ok_or_else(|| shortage(wish, v4, &open))
}

fn asked_for(
    ip: IpAddr,
    wish: &Wish,
    service: &Key,
    pools: &[&Pool],
    taken: &Taken,
) -> Result<Choice, String> {
    let Some(pool) = holder(ip, pools) else {
        return Err(match &wish.pool {
            Some(pool) => format!("{ip} is not an address of the LoadBalancerPool {pool:?}"),
            None => {
                format!("{ip} is not an address of a LoadBalancerPool that is for this service")
            }
        });
    };
    match taken.get(&ip) {
        Some(claim) if !may_share(wish, service, claim) => {
            let holders = claim.services.iter();
            let holders = holders.map(|one| format!("{}/{}", one.namespace, one.name));
            let holders = holders.collect::<Vec<_>>().join(", ");
            Err(format!(
                "{ip} is the address of {holders}; to share it, both need the same annotation {} and different ports",
                peapod_api::net::ALLOW_SHARED_IP
            ))
        }
        _ => Ok(Choice {
            ip,
            pool: pool.name.clone(),
        }),
    }
}

fn holder<'a>(ip: IpAddr, pools: &[&'a Pool]) -> Option<&'a Pool> {
    let holds = |pool: &&&Pool| pool.ranges.iter().any(|range| range.contains(ip));
    pools.iter().find(holds).copied()
}

/// The lowest address of a range that nobody has.
fn first_free(range: &AddressRange, taken: &Taken) -> Option<IpAddr> {
    let mut candidate = Some(range.first());
    for (ip, _) in taken.range(range.first()..=range.last()) {
        if candidate.is_none_or(|candidate| candidate < *ip) {
            break;
        }
        candidate = next(*ip);
    }
    candidate.filter(|ip| range.contains(*ip))
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => Some(IpAddr::V4(ip.to_bits().checked_add(1)?.into())),
        IpAddr::V6(ip) => Some(IpAddr::V6(ip.to_bits().checked_add(1)?.into())),
    }
}

fn shortage(wish: &Wish, v4: bool, pools: &[&Pool]) -> String {
    let family = if v4 { "IPv4" } else { "IPv6" };
    let of_family = |pool: &&&Pool| pool.ranges.iter().any(|range| range.is_ipv4() == v4);
    let names: Vec<&str> = pools
        .iter()
        .filter(of_family)
        .map(|pool| pool.name.as_str())
        .collect();
    match (names.as_slice(), &wish.pool) {
        ([], Some(pool)) => {
            format!(
                "there is no LoadBalancerPool {pool:?} with {family} addresses that is for this service"
            )
        }
        ([], None) => {
            format!("there is no LoadBalancerPool with {family} addresses that is for this service")
        }
        (names, _) => format!(
            "all {family} addresses of the LoadBalancerPool {} are taken",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::LoadBalancerAddressService;
    use proptest::prelude::*;

    fn pool(name: &str, ranges: &[&str]) -> Pool {
        Pool {
            name: name.to_owned(),
            ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
            auto_assign: true,
        }
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn wish(ports: &[&str]) -> Wish {
        Wish {
            families: vec![true],
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            ..Wish::default()
        }
    }

    /// Notes a choice, as its claim does.
    fn claim(taken: &mut Taken, name: &str, wish: &Wish, choice: &Choice) {
        let entry = LoadBalancerAddressService {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            ports: wish.ports.iter().cloned().collect(),
        };
        let claim = taken
            .entry(choice.ip)
            .or_insert_with(|| LoadBalancerAddressSpec {
                address: choice.ip.to_string(),
                pool: choice.pool.clone(),
                sharing_key: wish.sharing_key.clone(),
                services: Vec::new(),
            });
        claim.services.push(entry);
    }

    fn give(taken: &mut Taken, name: &str, wish: &Wish, pools: &[Pool]) -> Result<String, String> {
        let choice = choose(wish, wish.families[0], &key(name), pools, taken)?;
        claim(taken, name, wish, &choice);
        Ok(choice.ip.to_string())
    }

    #[test]
    fn one_after_the_other_until_there_is_none() {
        let pools = [
            pool("a", &["192.0.2.1-192.0.2.2", "2001:db8::/64"]),
            pool("b", &["192.0.2.255"]),
        ];
        let mut taken = Taken::new();
        for (name, ip) in [("x", "192.0.2.1"), ("y", "192.0.2.2"), ("z", "192.0.2.255")] {
            assert_eq!(
                give(&mut taken, name, &wish(&["TCP/80"]), &pools).as_deref(),
                Ok(ip)
            );
        }
        let full = give(&mut taken, "w", &wish(&["TCP/81"]), &pools).unwrap_err();
        assert_eq!(
            full,
            "all IPv4 addresses of the LoadBalancerPool a, b are taken"
        );
        let none = choose(&wish(&[]), true, &key("w"), &[], &taken).unwrap_err();
        assert_eq!(
            none,
            "there is no LoadBalancerPool with IPv4 addresses that is for this service"
        );
        let six = Wish {
            families: vec![false],
            ..Wish::default()
        };
        assert_eq!(
            give(&mut taken, "six", &six, &pools).as_deref(),
            Ok("2001:db8::")
        );
        let end = [pool("c", &["255.255.255.255"])];
        assert!(give(&mut taken, "x", &wish(&[]), &end).is_ok());
        assert!(give(&mut taken, "y", &wish(&[]), &end).is_err());
    }

    #[test]
    fn what_is_asked_for_counts() {
        let mut closed = pool("closed", &["192.0.2.0/24"]);
        closed.auto_assign = false;
        let pools = [closed];
        let mut taken = Taken::new();
        assert!(give(&mut taken, "x", &wish(&[]), &pools).is_err());
        let asks = |ip: &str, pool: Option<&str>| Wish {
            ips: vec![ip.parse().unwrap()],
            pool: pool.map(str::to_owned),
            ..wish(&["TCP/80"])
        };
        let ip = give(&mut taken, "x", &asks("192.0.2.7", None), &pools);
        assert_eq!(ip.as_deref(), Ok("192.0.2.7"));
        let why = give(&mut taken, "y", &asks("192.0.2.7", None), &pools).unwrap_err();
        assert!(
            why.starts_with("192.0.2.7 is the address of ns/x; to share it"),
            "{why}"
        );
        let why = give(&mut taken, "y", &asks("198.51.100.1", None), &pools).unwrap_err();
        assert!(
            why.starts_with("198.51.100.1 is not an address of a LoadBalancerPool"),
            "{why}"
        );
        let by_pool = Wish {
            pool: Some("closed".to_owned()),
            ..wish(&[])
        };
        assert_eq!(
            give(&mut taken, "z", &by_pool, &pools).as_deref(),
            Ok("192.0.2.0")
        );
        assert!(give(&mut taken, "z", &asks("192.0.2.9", Some("other")), &pools).is_err());
    }

    #[test]
    fn an_address_is_shared_by_those_who_ask_for_it() {
        let pools = [pool("a", &["192.0.2.1-192.0.2.2"])];
        let mut taken = Taken::new();
        let shares = |ports: &[&str], key: &str| Wish {
            sharing_key: Some(key.to_owned()),
            ..wish(ports)
        };
        let mut ip = |name: &str, wish: &Wish| give(&mut taken, name, wish, &pools);
        assert_eq!(
            ip("dns-udp", &shares(&["UDP/53"], "dns")).as_deref(),
            Ok("192.0.2.1")
        );
        assert_eq!(
            ip("dns-tcp", &shares(&["TCP/53"], "dns")).as_deref(),
            Ok("192.0.2.1")
        );
        assert_eq!(
            ip("again", &shares(&["TCP/53"], "dns")).as_deref(),
            Ok("192.0.2.2"),
            "its port is taken"
        );
        assert!(
            ip("other", &shares(&["TCP/54"], "web")).is_err(),
            "another key"
        );
    }

    proptest! {
        /// Services come and go: no address is ever of two that did not agree to it.
        #[test]
        fn never_of_two(steps in prop::collection::vec((0_u8..12, 0_u8..3, any::<bool>(), any::<bool>()), 0..80)) {
            let pools = [pool("a", &["192.0.2.250-192.0.3.2", "2001:db8::/126"]), pool("b", &["198.51.100.0/31"])];
            let mut taken = Taken::new();
            for (name, key, comes, v4) in steps {
                let name = format!("s{name}");
                if !comes {
                    for claim in taken.values_mut() {
                        claim.services.retain(|one| one.name != name);
                    }
                    taken.retain(|_, claim| !claim.services.is_empty());
                    continue;
                }
                let has = |claim: &LoadBalancerAddressSpec| claim.services.iter().any(|one| one.name == name);
                if taken.values().any(has) {
                    continue;
                }
                let wish = Wish {
                    families: vec![v4],
                    sharing_key: (key > 0).then(|| key.to_string()),
                    ..wish(&[&format!("TCP/{key}"), &name])
                };
                let _ = give(&mut taken, &name, &wish, &pools);
                for (ip, claim) in &taken {
                    prop_assert!(pools.iter().any(|pool| pool.name == claim.pool && pool.ranges.iter().any(|range| range.contains(*ip))));
                    let mut ports: Vec<&String> = claim.services.iter().flat_map(|one| &one.ports).collect();
                    let count = ports.len();
                    ports.sort();
                    ports.dedup();
                    prop_assert_eq!(ports.len(), count);
                    prop_assert!(claim.services.len() == 1 || claim.sharing_key.is_some());
                }
            }
        }
    }
}
