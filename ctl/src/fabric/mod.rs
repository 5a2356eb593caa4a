//! Several nodes on one machine, and the fabric between them: network namespaces, the links
//! between them, the processes inside them.
//!
//! It owns how a rack is put together from namespaces. It must not know what the processes in
//! them do: those are the same programs that run on machines of their own.
//!
//! ```text
//!    spine-1      spine-2              each box a network namespace,
//!      │  ╲      ╱  │                  each line a veth pair
//!      │    ╲  ╱    │
//!    leaf-1      leaf-2       ...      `peapod router`
//!       ╲          ╱
//!   eth1 ╲        ╱ eth2
//!         node-1              ...      `peapod node`
//!           │ eth0
//!   ════════╧═══════ bridge            the machine: API server, way out
//! ```

pub mod child;
pub mod complete;
mod conflict;
mod firewall;
mod links;
mod netns;
pub mod plan;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use self::child::Keep;
use self::links::Links;
use self::plan::{Plan, RouterPlan};
use crate::instance::Layout;
use crate::instance::settings::write_private;

/// What tells an instance's names from those of others on the machine: from its directory.
pub fn id(data_dir: &Path) -> String {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    digest
        .iter()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Where a member's namespace is pinned.
pub fn netns_path(plan: &Plan, member: &str) -> PathBuf {
    netns::path(&plan.netns(member))
}

/// Chooses the network between nodes: a /24 that nothing on the machine uses, the same for the
/// same instance as far as it goes.
pub fn choose_network(range: IpNet, id: &str) -> Result<Ipv4Net> {
    let IpNet::V4(range) = range else {
        bail!("--node-cidr must be a range of IPv4 for several nodes, not {range}");
    };
    if range.prefix_len() > 24 {
        bail!("--node-cidr {range} is too small for several nodes; it needs a /24 at least");
    }
    let routes = conflict::routes()?;
    let taken: Vec<IpNet> = routes.iter().map(|route| route.destination).collect();
    let found = free_network(range, id, &taken);
    found.with_context(|| {
        let range = IpNet::from(range);
        let why = conflict::of(&[("--node-cidr", range)], &routes, "");
        let why = why.map_or_else(String::new, |conflict| format!(" ({})", conflict.route));
        format!(
            "no /24 of {range} is free on this machine{why}; name another range with --node-cidr"
        )
    })
}

/// Refuses ranges to which the machine has a way of somebody else's: it would be cut off from what
/// is there, or from the cluster.
pub fn must_be_free(plan: &Plan, ranges: &[(&'static str, IpNet)]) -> Result<()> {
    let between = plan.networks().map(|network| ("--node-cidr", network));
    let all = [&between[..], ranges].concat();
    match conflict::of(&all, &conflict::routes()?, &plan.bridge()) {
        Some(conflict) => bail!(conflict.to_string()),
        None => Ok(()),
    }
}

/// The first /24 of a range that overlaps with nothing taken, beginning where the ID says.
fn free_network(range: Ipv4Net, id: &str, taken: &[IpNet]) -> Option<Ipv4Net> {
    let count = 1u32 << (24 - range.prefix_len());
    let first = u32::from_str_radix(id, 16).unwrap_or(0);
    let candidates = (0..count).map(|step| {
        let number = first.wrapping_add(step) % count;
        let network = u32::from(range.network()) + (number << 8);
        Ipv4Net::new_assert(network.into(), 24)
    });
    let overlaps = |net: &Ipv4Net, other: &IpNet| match other {
        IpNet::V4(other) => net.contains(other) || other.contains(net),
        IpNet::V6(_) => false,
    };
    let mut candidates = candidates;
    candidates.find(|net| !taken.iter().any(|other| overlaps(net, other)))
}

/// The network between the machine and its nodes: namespaces, bridge, addresses, rules. What is
/// there is kept.
pub async fn raise(plan: &Plan) -> Result<()> {
    let machine = Links::here()?;
    let bridge = machine.ensure_bridge(&plan.bridge()).await?;
    for (gateway, network) in plan.gateways().into_iter().zip(plan.networks()) {
        let address = IpNet::new_assert(gateway, network.prefix_len());
        machine.ensure_address(&plan.bridge(), address).await?;
    }
    firewall::ensure(&plan.table(), &plan.bridge(), &plan.networks())?;
    let gateways = plan.gateways();
    for node in &plan.nodes {
        let namespace = plan.netns(&node.name);
        netns::ensure(&namespace)?;
        machine.ensure_veth(&node.port, "eth0", &namespace).await?;
        machine.join(&node.port, bridge).await?;
        let inside = Links::inside(&namespace)?;
        inside.set_up("lo").await?;
        for (i, &ip) in node.ips.iter().enumerate() {
            let network = plan.networks()[i];
            let address = IpNet::new_assert(ip, network.prefix_len());
            inside.ensure_address("eth0", address).await?;
            inside.ensure_route(default(ip), gateways[i]).await?;
        }
    }
    raise_routers(plan).await
}

/// Programs on the machine reach pods and services too: by the first node.
pub async fn route_cluster(plan: &Plan, ranges: &[IpNet]) -> Result<()> {
    let machine = Links::here()?;
    let Some(first) = plan.nodes.first() else {
        return Ok(());
    };
    for &range in ranges {
        let mut ips = first.ips.iter();
        if let Some(&ip) = ips.find(|ip| ip.is_ipv4() == range.addr().is_ipv4()) {
            machine.ensure_route(range, ip).await?;
        }
    }
    Ok(())
}

fn default(family: IpAddr) -> IpNet {
    let any: IpAddr = match family {
        IpAddr::V4(_) => [0, 0, 0, 0].into(),
        IpAddr::V6(_) => [0u16; 8].into(),
    };
    IpNet::new_assert(any, 0)
}

/// The fabric's namespaces and links.
async fn raise_routers(plan: &Plan) -> Result<()> {
    for router in &plan.routers {
        let namespace = plan.netns(&router.name);
        netns::ensure(&namespace)?;
        netns::inside(&namespace, || {
            // Flows, not packets, are shared among paths.
            for (key, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/fib_multipath_hash_policy", "1"),
                ("ipv6/fib_multipath_hash_policy", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/{key}"), value)?;
            }
            Ok(())
        })?;
        Links::inside(&namespace)?.set_up("lo").await?;
    }
    for link in &plan.links {
        let (a, b) = (&link.a, &link.b);
        let here = Links::inside(&plan.netns(&a.0))?;
        here.ensure_veth(&a.1, &b.1, &plan.netns(&b.0)).await?;
    }
    Ok(())
}

/// Where a router keeps its files.
pub fn router_dir(layout: &Layout, router: &RouterPlan) -> PathBuf {
    layout.fabric().join(&router.name)
}

/// Writes a router's configuration, and tells how to run it.
pub fn prepare_router(layout: &Layout, plan: &Plan, router: &RouterPlan) -> Result<Keep> {
    let dir = router_dir(layout, router);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let config = dir.join("router.yaml");
    // JSON is YAML.
    let text = serde_json::to_vec_pretty(&router_config(plan, router, &dir))?;
    write_private(&config, &text)?;
    Ok(Keep {
        name: router.name.clone(),
        args: vec!["router".into(), "--config".into(), config.into()],
        netns: plan.netns(&router.name),
        log: dir.join("router.log"),
    })
}

/// eBGP with whatever is at the other end of each link, unnumbered, and BFD. What is there is known
/// without a session by the description, as it would be by LLDP.
fn router_config(plan: &Plan, router: &RouterPlan, dir: &Path) -> serde_json::Value {
    let neighbor = |interface: &String| {
        let far = plan.far_end(&router.name, interface);
        let described = far.map(|(member, port)| format!("{member} {port}"));
        json!({"interface": interface, "remoteAs": "external", "bfd": true, "description": described})
    };
    let neighbors: Vec<_> = router.interfaces.iter().map(neighbor).collect();
    json!({
        "asn": router.asn,
        "routerId": router.router_id,
        "neighbors": neighbors,
        "install": true,
        "multipath": 16,
        "hostname": router.name,
        "controlSocket": dir.join("control.sock"),
    })
}

/// Removes every namespace, link and rule of an instance; what is gone already is fine. Its
/// processes must have ended.
pub async fn lower(id: &str) -> Result<()> {
    for namespace in netns::list(&plan::netns_prefix(id)) {
        netns::remove(&namespace)?;
    }
    netns::tidy();
    let machine = Links::here()?;
    let mut names = machine.names(&plan::link_prefix(id)).await?;
    // A port may go with its namespace while this goes on.
    names.sort();
    for name in &names {
        machine.delete(name).await?;
    }
    firewall::remove(&plan::table(id))
}

/// Keeps processes running, and says which of them is meant when one cannot be.
pub async fn keep_all(all: Vec<Keep>, shutdown: CancellationToken) -> Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for one in all {
        running.spawn(child::keep(one, shutdown.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended.context("keeping the nodes' processes was cut short")??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_between_nodes_is_one_that_nobody_has() {
        let range: Ipv4Net = "10.254.0.0/16".parse().unwrap();
        let net = |taken: &[&str], id: &str| {
            let taken: Vec<IpNet> = taken.iter().map(|net| net.parse().unwrap()).collect();
            free_network(range, id, &taken).map(|net| net.to_string())
        };
        assert_eq!(net(&[], "000105"), Some("10.254.5.0/24".to_owned()));
        let busy = ["10.254.5.0/24", "10.254.6.17/32", "fd00::/8"];
        assert_eq!(net(&busy, "000105"), Some("10.254.7.0/24".to_owned()));
        assert_eq!(net(&["10.0.0.0/8"], "000105"), None);
    }

    #[test]
    fn routers_speak_bgp_on_every_link() {
        let fabric = Some("2x2".parse().unwrap());
        let plan = Plan::new("0a1b2c", "10.254.7.0/24".parse().unwrap(), 1, fabric);
        let leaf = plan.routers.iter().find(|r| r.name == "leaf-1").unwrap();
        let text = serde_json::to_string(&router_config(&plan, leaf, Path::new("/d"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("router.yaml");
        std::fs::write(&file, text).unwrap();
        let read = peapod_router::RouterConfig::read(&file).unwrap();
        assert_eq!((read.asn, read.neighbors.len()), (65_101, 3));
        let described = read.neighbors.iter().map(|one| &one.options.description);
        let described: Vec<&str> = described.filter_map(Option::as_deref).collect();
        assert_eq!(
            described,
            ["spine-1 leaf-1", "spine-2 leaf-1", "node-1 eth1"]
        );
    }
}
