//! A fabric on one machine under traffic: `peapod up --nodes N --fabric SxL`, what can fail in
//! it, and what its routers and nodes say of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use peapod_lab::traffic::{End, Traffic};
use peapod_router::control;
use serde_json::Value;

use crate::{Cluster, command, process, wait};

/// Flows between each two ends.
const FLOWS: u16 = 8;
/// The file that tells of an instance's node, and of its router.
const KINDS: [(&str, &str); 2] = [("nodes", "run/bgp.sock"), ("fabric", "control.sock")];

/// Nodes, leaves and spines, with all their sessions.
pub struct Rack {
    /// The cluster.
    pub cluster: Cluster,
}

/// Where packets go, by the routers' own tables: for each of them, prefix by prefix.
pub type Tables = BTreeMap<String, BTreeMap<String, Vec<String>>>;

// === impl Rack ===

impl Rack {
    /// Starts it with the demo images loaded, and waits for every session.
    pub fn up(nodes: u32, fabric: &str, flags: &[&str]) -> Result<Self> {
        let cluster = Cluster::prepare()?;
        let nodes = nodes.to_string();
        let shape = ["--nodes", &nodes, "--fabric", fabric];
        cluster.start_with(&[&shape[..], flags].concat())?;
        cluster.load_demo_images()?;
        let rack = Self { cluster };
        rack.complete()?;
        Ok(rack)
    }

    /// Names and control sockets of all that speak BGP, the routers last.
    fn speakers(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for (kind, socket) in KINDS {
            let folder = self.cluster.data_dir().join(kind);
            for entry in std::fs::read_dir(folder)? {
                let dir = entry?.path();
                let name = dir.file_name().context("no name")?;
                found.push((name.to_string_lossy().into_owned(), dir.join(socket)));
            }
        }
        Ok(found)
    }

    /// Waits until every session is established, and BFD up where it is asked for.
    pub fn complete(&self) -> Result<()> {
        self.complete_but(&[])
    }

    /// The same, but for the sessions of some and with some.
    pub fn complete_but(&self, away: &[&str]) -> Result<()> {
        for (name, socket) in self.speakers()? {
            if away.contains(&name.as_str()) {
                continue;
            }
            wait::until(&format!("all sessions of {name}"), || {
                let peers = control::peers(&socket)?;
                for shown in &peers {
                    let there = shown.peer.hostname.as_deref().unwrap_or_default();
                    let interface = shown.peer.interface.as_deref().unwrap_or_default();
                    if away.iter().any(|name| [there, interface].contains(name)) {
                        continue;
                    }
                    let bfd = shown.bfd.as_deref();
                    ensure!(
                        shown.peer.state.to_string() == "Established"
                            && bfd.is_none_or(|bfd| bfd == "Up"),
                        "{name} with {}: {}, BFD {bfd:?}",
                        shown.peer.name,
                        shown.peer.state
                    );
                }
                Ok(!peers.is_empty())
            })?;
        }
        Ok(())
    }

    /// Where everybody sends packets, by their own tables.
    pub fn tables(&self) -> Result<Tables> {
        let mut tables = Tables::new();
        for (name, socket) in self.speakers()? {
            let routes = control::routes(&socket, None, None)
                .with_context(|| format!("cannot read the routes of {name}"))?;
            let routes = routes.into_iter().map(|shown| {
                let mut hops: Vec<String> = shown
                    .route
                    .next_hops
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                hops.sort();
                (shown.route.prefix.to_string(), hops)
            });
            tables.insert(name, routes.collect());
        }
        Ok(tables)
    }

    /// Waits until the tables are what they were, and the kernels have what the tables say.
    pub fn as_before(&self, before: &Tables) -> Result<()> {
        wait::until("the tables to be as before", || {
            let now = self.tables()?;
            for (name, routes) in before {
                ensure!(
                    now.get(name) == Some(routes),
                    "{name} has {:#?}, not {routes:#?}",
                    now.get(name)
                );
            }
            Ok(true)
        })?;
        self.kernels_agree()
    }

    /// The kernels have what the tables say. What one lacks is written again by this very look,
    /// so there is no second chance: it is a fault.
    pub fn kernels_agree(&self) -> Result<()> {
        for (name, socket) in self.speakers()? {
            let audit = control::audit(&socket)?;
            let wrong = audit.missing + audit.different + audit.extra + audit.refused;
            ensure!(
                wrong == 0,
                "the kernel of {name} has other routes: {audit:?}"
            );
        }
        Ok(())
    }

    /// The file of a member's network namespace.
    pub fn space(&self, member: &str) -> Result<PathBuf> {
        let settings = self.cluster.data_dir().join("nodes/node-1/node.json");
        let settings: Value = serde_json::from_slice(&std::fs::read(settings)?)?;
        let first = settings["netns"].as_str().context("no namespace")?;
        let prefix = first.strip_suffix("node-1").context("another name")?;
        Ok(PathBuf::from(format!("{prefix}{member}")))
    }

    /// Runs a command in a member's network namespace.
    pub fn within(&self, member: &str, line: &str) -> Result<String> {
        inside(&self.space(member)?, line)
    }

    /// Has a member's network neither hear nor say anything, with all its links up.
    pub fn silence(&self, member: &str) -> Result<()> {
        let hooks = ["input", "output", "forward"].map(|hook| {
            format!("add chain inet silent {hook} {{ type filter hook {hook} priority 0; policy drop; }}; ")
        });
        let rules = format!("add table inet silent; {}", hooks.concat());
        let inside = format!("--net={}", self.space(member)?.display());
        command::run("nsenter", [&inside, "nft", &rules])?
            .ok()
            .map(drop)
    }

    /// Ends a silence.
    pub fn speak(&self, member: &str) -> Result<()> {
        self.within(member, "nft delete table inet silent")
            .map(drop)
    }

    /// Cuts a member's link or mends it.
    pub fn set_link(&self, member: &str, interface: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.within(member, &format!("ip link set {interface} {state}"))
            .map(drop)
    }

    /// Ends the process of a node or router as a crash would. It is started again.
    pub fn crash(&self, member: &str) -> Result<()> {
        let data = self.cluster.data_dir().display();
        let argument = match member.starts_with("node") {
            true => format!("node\0--data-dir\0{data}/nodes/{member}\0"),
            false => format!("router\0--config\0{data}/fabric/{member}/router.yaml\0"),
        };
        let found = process::with_argument(&argument)?;
        ensure!(found.len() == 1, "{member} has {} processes", found.len());
        process::kill(&found)
    }

    /// Gives a router another configuration, and starts it again.
    pub fn reconfigure(&self, router: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let dir = self.cluster.data_dir().join("fabric").join(router);
        let file = dir.join("router.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        change(&mut config);
        std::fs::write(&file, config.to_string())?;
        self.crash(router)
    }

    /// The two ends that a running pod has, in IPv4 and IPv6.
    pub fn ends(&self, pod: &str) -> Result<Vec<End>> {
        let field = |path: &str| self.cluster.field(&format!("pod/{pod}"), path);
        let (node, uid) = (field("{.spec.nodeName}")?, field("{.metadata.uid}")?);
        let sandbox = format!("nodes/{node}/runtime/sandboxes/{uid}/net");
        let space = self.cluster.data_dir().join(sandbox);
        let addresses = field("{.status.podIPs[*].ip}")?;
        let end = |address: &str| End {
            space: space.clone(),
            address: address.to_owned(),
        };
        Ok(addresses.split(' ').map(end).collect())
    }

    /// Traffic from each of two pods to the other, in both families, flowing.
    pub fn traffic(&self, a: &str, b: &str) -> Result<Vec<Traffic>> {
        let (a, b) = (self.ends(a)?, self.ends(b)?);
        let pairs = a.iter().zip(&b).flat_map(|(a, b)| [(a, b), (b, a)]);
        let started: Vec<Traffic> = pairs
            .map(|(from, to)| Traffic::between(from, to, FLOWS))
            .collect();
        Ok(started.into_iter().map(Traffic::flowing).collect())
    }
}

/// Runs a command in a network namespace.
pub fn inside(space: &Path, line: &str) -> Result<String> {
    let inside = format!("--net={}", space.display());
    let words = std::iter::once(inside.as_str()).chain(line.split(' '));
    command::run("nsenter", words)?.ok()
}
