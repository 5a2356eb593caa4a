//! The node's own address: private, on `lo`, and the same through every change of networks, so
//! that pods reach the node and its API where a laptop's Wi-Fi address comes and goes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::links::rtnl::Rtnl;
use crate::links::{self, node};

/// How many addresses of the range are tried.
const CANDIDATES: usize = 256;

/// Why the node has no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel.
    #[error(transparent)]
    Links(#[from] links::Error),
    /// Every candidate leads elsewhere.
    #[error(
        "every address tried of {0} is in use here or routed elsewhere (see `ip route get`); name another range with --node-cidr"
    )]
    Taken(IpNet),
}

/// Puts the node's address on `lo`: the one it had before, else the first of the range that
/// nothing on this machine uses or routes.
pub fn ensure(known: Option<IpAddr>, range: IpNet) -> Result<IpAddr, Error> {
    let ip = match known {
        Some(ip) => ip,
        None => choose(range, &used()?).ok_or(Error::Taken(range))?,
    };
    node::add_local_address(ip)?;
    Ok(ip)
}

/// Takes the address from `lo`.
pub fn remove(ip: IpAddr) -> Result<(), Error> {
    Ok(node::remove_local_address(ip)?)
}

/// What the machine has or knows a way to, default routes aside.
fn used() -> Result<Vec<IpNet>, Error> {
    let mut rtnl = Rtnl::open()?;
    let mut used: Vec<IpNet> = rtnl
        .addresses()?
        .into_iter()
        .map(|(_, net)| net.trunc())
        .collect();
    for v6 in [false, true] {
        let routes = rtnl.routes(v6)?;
        used.extend(routes.iter().map(|route| route.destination));
    }
    used.retain(|net| net.prefix_len() > 0);
    Ok(used)
}

fn choose(range: IpNet, used: &[IpNet]) -> Option<IpAddr> {
    let is_free = |ip: &IpAddr| !used.iter().any(|net| net.contains(ip));
    range.hosts().take(CANDIDATES).find(is_free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_nobody_uses() {
        let range = "10.254.0.0/16".parse().unwrap();
        let used = |nets: &[&str]| {
            nets.iter()
                .map(|net| net.parse().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(choose(range, &used(&[])), "10.254.0.1".parse().ok());
        assert_eq!(
            choose(range, &used(&["10.254.0.0/30"])),
            "10.254.0.4".parse().ok()
        );
        assert_eq!(choose(range, &used(&["10.0.0.0/8"])), None);
    }
}
