//! The node's own address, on `lo`.
//!
//! A laptop's addresses change with its networks, and a cluster's InternalIP must not. So the
//! node has a private address of its own that nothing outside the machine can reach: the same
//! one each time, unless something else has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::links::alias::fnv1a;
use crate::links::rtnl::Rtnl;
use crate::links::{self, ROUTE_PROTOCOL, node};

/// Range of nodes' IPv4 addresses, unless another is asked for.
pub const DEFAULT_V4: &str = "10.243.0.0/24";
/// Range of nodes' IPv6 addresses, unless another is asked for.
pub const DEFAULT_V6: &str = "fd00:10:243::/64";

/// Candidates tried before a range is given up.
const TRIES: u64 = 64;

/// Why the node has no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing addresses.
    #[error("cannot give this node an address: {0}")]
    Links(#[from] links::Error),
    /// Something else uses the range.
    #[error(
        "no address of {0} is free: an address or route of this machine covers it; name another range"
    )]
    Taken(IpNet),
}

/// Puts an address of `range` on `lo`, and returns it. The same `seed` (the node's name and the
/// cluster's directory, say) gives the same address, as long as nothing else on the machine
/// has it or a network around it. One that is there already is kept.
pub fn ensure(range: IpNet, seed: &str) -> Result<IpAddr, Error> {
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    let addresses = rtnl.addresses()?;
    let mut routes = rtnl.routes(false)?;
    routes.extend(rtnl.routes(true)?);
    let is_loopback = |index: u32| links.iter().any(|l| l.index == index && l.loopback);
    // Addresses on `lo` are ours, or those of another cluster: each has its own seed.
    let foreign: Vec<IpNet> = addresses
        .iter()
        .filter(|(index, _)| !is_loopback(*index))
        .map(|(_, net)| *net)
        .chain(routes.iter().filter_map(|route| {
            let whole = route.destination.prefix_len() == 0;
            let own = route.protocol == ROUTE_PROTOCOL || route.link.is_some_and(is_loopback);
            (!whole && !own).then_some(route.destination)
        }))
        .collect();
    let free = |ip: &IpAddr| !foreign.iter().any(|net| net.contains(ip));
    let ip = candidates(range, seed)
        .find(free)
        .ok_or(Error::Taken(range))?;
    node::add_local_address(ip)?;
    Ok(ip)
}

/// Takes the address from `lo`; one that is not there is fine.
pub fn remove(ip: IpAddr) -> Result<(), Error> {
    Ok(node::remove_local_address(ip)?)
}

/// Addresses to try, first choice first. Never a range's first or last.
fn candidates(range: IpNet, seed: &str) -> impl Iterator<Item = IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(32);
    let usable = (1u64 << bits).saturating_sub(2);
    let first = fnv1a(seed.as_bytes());
    (0..TRIES.min(usable)).map(move |step| {
        let offset = 1 + first.wrapping_add(step) % usable;
        match range.network() {
            IpAddr::V4(net) => Ipv4Addr::from(u32::from(net) + offset as u32).into(),
            IpAddr::V6(net) => Ipv6Addr::from(u128::from(net) + u128::from(offset)).into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn candidates_lie_within_and_follow_the_seed() {
        let range: IpNet = "10.243.0.0/29".parse().unwrap();
        let list = |seed| candidates(range, seed).collect::<Vec<_>>();
        let distinct: BTreeSet<IpAddr> = list("a").into_iter().collect();
        assert_eq!(distinct.len(), 6);
        assert!(!distinct.contains(&range.network()) && !distinct.contains(&range.broadcast()));
        assert_eq!(list("a"), list("a"));
        assert_ne!(list("a"), list("b"));
        assert_eq!(candidates("10.0.0.1/32".parse().unwrap(), "a").count(), 0);
    }
}
