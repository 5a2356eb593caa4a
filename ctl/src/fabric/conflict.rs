//! Ranges that the machine already has a way to: somebody else's routes, and what to do about them.

use std::fmt;

use anyhow::{Context, Result};
use ipnet::IpNet;
use peapod_netd::links::rtnl::Rtnl;

/// A route of the machine's, to somewhere in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where to.
    pub destination: IpNet,
    /// The link that it leaves by; one that leads nowhere has none.
    pub device: Option<String>,
}

/// A range that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The flag that the range is of.
    pub flag: &'static str,
    /// The range.
    pub range: IpNet,
    /// The route that stands against it.
    pub route: Known,
}

/// All routes of this machine but those to everywhere and on one link only.
pub fn routes() -> Result<Vec<Known>> {
    let read = || {
        let mut rtnl = Rtnl::open()?;
        let links = rtnl.links()?;
        let name = |index| links.iter().find(|link| link.index == index);
        let routes = [rtnl.routes(false)?, rtnl.routes(true)?].concat();
        let known = routes.into_iter().map(|route| Known {
            destination: route.destination,
            device: route.link.and_then(name).map(|link| link.name.clone()),
        });
        Ok::<_, peapod_netd::links::Error>(known.filter(leads_somewhere).collect())
    };
    read().context("cannot read the routes of this machine")
}

fn leads_somewhere(route: &Known) -> bool {
    let on_link = match route.destination {
        IpNet::V4(net) => net.network().is_link_local() || net.network().is_multicast(),
        IpNet::V6(net) => net.network().is_unicast_link_local() || net.network().is_multicast(),
    };
    route.destination.prefix_len() > 0 && !on_link
}

/// The first range with a way that is not by `own`, the link to our nodes.
pub fn of(ranges: &[(&'static str, IpNet)], routes: &[Known], own: &str) -> Option<Conflict> {
    ranges.iter().find_map(|&(flag, range)| {
        let there = |route: &&Known| {
            let other = &route.destination;
            let overlap = range.contains(other) || other.contains(&range);
            overlap && route.device.as_deref() != Some(own)
        };
        let route = routes.iter().find(there)?.clone();
        Some(Conflict { flag, range, route })
    })
}

// === impl Known ===

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "the route to {} by {device}", self.destination),
            None => write!(f, "the route to {} that leads nowhere", self.destination),
        }
    }
}

// === impl Conflict ===

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, range, route } = self;
        write!(
            f,
            "this machine has another way to {range}: {route}; \
             name a range that is free with {flag}, or remove that route (ip route)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(destination: &str, device: &str) -> Known {
        Known {
            destination: destination.parse().unwrap(),
            device: Some(device.to_owned()).filter(|name| !name.is_empty()),
        }
    }

    #[test]
    fn a_way_of_somebody_elses_is_named_and_ones_own_is_none() {
        let ranges = [
            ("--node-cidr", "10.254.7.0/24".parse().unwrap()),
            ("--pod-cidr", "10.244.0.0/16".parse().unwrap()),
        ];
        let told = |routes: &[Known]| of(&ranges, routes, "pd0br").map(|one| one.to_string());
        let own = [
            known("10.254.7.0/24", "pd0br"),
            known("10.244.0.0/16", "pd0br"),
            known("192.0.2.0/24", "eth0"),
        ];
        assert_eq!(told(&own), None);
        let vpn = told(&[known("10.0.0.0/8", "wg0")]).unwrap();
        assert_eq!(
            vpn,
            "this machine has another way to 10.254.7.0/24: the route to 10.0.0.0/8 by wg0; name a \
             range that is free with --node-cidr, or remove that route (ip route)"
        );
        let one = told(&[known("10.244.3.0/24", "docker0")]).unwrap();
        assert!(
            one.contains("10.244.3.0/24 by docker0") && one.contains("--pod-cidr"),
            "{one}"
        );
        let nowhere = told(&[known("10.244.0.0/16", "")]).unwrap();
        assert!(nowhere.contains("leads nowhere"), "{nowhere}");
    }

    #[test]
    fn what_is_everywhere_is_no_way() {
        for net in [
            "0.0.0.0/0",
            "::/0",
            "fe80::/64",
            "ff00::/8",
            "169.254.0.0/16",
        ] {
            assert!(!leads_somewhere(&known(net, "eth0")), "{net}");
        }
        assert!(leads_somewhere(&known("fd00::/8", "eth0")));
    }
}
