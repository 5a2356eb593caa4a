//! When a fabric works: all its sessions are up, every node's kernel has a way to the pods of every
//! other node, and the API tells of it.
//!
//! What is asked is the routers and the nodes' speakers themselves: what the API says of them may
//! be of an earlier start.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use peapod_api::net::BgpNode;
use peapod_router::control;

use crate::net::local;

/// How long it may take; a session that is not up then may be one that the user has ended.
const PATIENCE: Duration = Duration::from_secs(15);
/// Speakers tell of nothing by themselves.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One that speaks BGP.
#[derive(Clone, Debug)]
struct Speaker {
    name: String,
    control: PathBuf,
    /// A node has pods, which the others must reach.
    node: bool,
}

/// How it is with a speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    name: String,
    node: bool,
    /// Its neighbours, and the states of its sessions with them.
    sessions: Vec<(String, String)>,
    /// Where it knows a way to.
    prefixes: BTreeSet<IpNet>,
    /// Routes that its kernel has not, or has otherwise.
    not_in_kernel: usize,
}

/// What a fabric lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    /// Sessions, and so many are up of so many, counted at both ends; and what is with the first.
    Sessions(usize, usize, String),
    /// A route.
    Route { at: String, to: IpNet },
    /// Routes that a kernel should have.
    Kernel { at: String, routes: usize },
    /// The API's word for a node's sessions.
    Told { of: String },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Sessions(up, all, first) => {
                write!(f, "{up} of {all} ends of BGP sessions are up ({first})")
            }
            Lack::Route { at, to } => write!(f, "{at} has no route to {to} yet"),
            Lack::Kernel { at, routes } => {
                write!(f, "the kernel of {at} lacks {routes} of its routes")
            }
            Lack::Told { of } => write!(f, "the API does not tell of the sessions of {of} yet"),
        }
    }
}

/// Waits until it works, telling of each `step`; what it lacks, if that takes too long.
pub async fn wait(
    client: &Client,
    data_dir: &Path,
    mut step: impl FnMut(&str),
) -> Result<Option<String>> {
    let mut speakers = speakers(data_dir)?;
    let mut told = String::new();
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let asked;
        (speakers, asked) = ask(speakers).await?;
        let lack = match lack(&asked, &blocks(client).await?) {
            Some(lack) => Some(lack),
            None => untold(&asked, &told_up(client).await?),
        };
        let Some(lack) = lack else {
            return Ok(None);
        };
        let lack = lack.to_string();
        if tokio::time::Instant::now() >= until {
            return Ok(Some(format!(
                "the fabric does not work after {} s: {lack}; see `peapod net topology`",
                PATIENCE.as_secs()
            )));
        }
        if lack != told {
            step(&format!("waiting for the fabric: {lack}"));
            told = lack;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn speakers(data_dir: &Path) -> Result<Vec<Speaker>> {
    let nodes = local::nodes(data_dir)?.into_iter();
    let nodes = nodes.map(|node| Speaker {
        name: node.name,
        control: node.control,
        node: true,
    });
    let routers = local::routers(data_dir)?.into_iter();
    let routers = routers.map(|router| Speaker {
        name: router.name,
        control: router.control,
        node: false,
    });
    Ok(routers.chain(nodes).collect())
}

async fn ask(speakers: Vec<Speaker>) -> Result<(Vec<Speaker>, Vec<Seen>)> {
    let asked = tokio::task::spawn_blocking(move || {
        let seen = see(&speakers);
        (speakers, seen)
    });
    asked.await.context("asking the fabric was cut short")
}

/// Asks for tables only when all sessions are up. One that does not answer has no sessions.
fn see(speakers: &[Speaker]) -> Vec<Seen> {
    let mut all: Vec<Seen> = speakers.iter().map(sessions).collect();
    if all.iter().all(|one| one.waits_for().is_none()) {
        let nodes = speakers.iter().zip(&mut all);
        for (speaker, seen) in nodes.filter(|(speaker, _)| speaker.node) {
            let routes = control::routes(&speaker.control, None, None).unwrap_or_default();
            let led = routes.into_iter().map(|shown| shown.route);
            let led = led.filter(|route| !route.next_hops.is_empty());
            seen.prefixes = led.map(|route| route.prefix).collect();
            let audit = control::audit(&speaker.control).unwrap_or_default();
            seen.not_in_kernel = audit.missing + audit.different;
        }
    }
    all
}

fn sessions(speaker: &Speaker) -> Seen {
    let peers = control::peers(&speaker.control).unwrap_or_default();
    let peers = peers.into_iter().map(|shown| shown.peer);
    Seen {
        name: speaker.name.clone(),
        node: speaker.node,
        sessions: peers
            .map(|peer| (peer.name, peer.state.to_string()))
            .collect(),
        ..Seen::default()
    }
}

/// The pods' addresses of all nodes, by the node.
async fn blocks(client: &Client) -> Result<Vec<(String, IpNet)>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let all = nodes.list(&ListParams::default()).await;
    let mut blocks = Vec::new();
    for node in all.context("cannot list the nodes")? {
        let name = node.metadata.name.unwrap_or_default();
        let cidrs = node.spec.and_then(|spec| spec.pod_cidrs);
        let cidrs = cidrs.into_iter().flatten();
        blocks.extend(cidrs.filter_map(|text| Some((name.clone(), text.parse().ok()?))));
    }
    Ok(blocks)
}

/// The nodes all of whose sessions are up, by the API, which hears of them a little later.
async fn told_up(client: &Client) -> Result<BTreeSet<String>> {
    let nodes: Api<BgpNode> = Api::all(client.clone());
    let all = nodes.list(&ListParams::default()).await;
    let mut up = BTreeSet::new();
    for node in all.context("cannot list the speakers of nodes")? {
        let sessions = node.status.map_or_else(Vec::new, |status| status.sessions);
        if !sessions.is_empty() && sessions.iter().all(|session| is_up(&session.state)) {
            up.extend(node.metadata.name);
        }
    }
    Ok(up)
}

/// A node of whose sessions the API says something else.
fn untold(seen: &[Seen], told_up: &BTreeSet<String>) -> Option<Lack> {
    let mut nodes = seen.iter().filter(|one| one.node);
    let first = nodes.find(|one| !told_up.contains(&one.name))?;
    Some(Lack::Told {
        of: first.name.clone(),
    })
}

// === impl Seen ===

impl Seen {
    /// The first session that is not up.
    fn waits_for(&self) -> Option<String> {
        let name = &self.name;
        if self.sessions.is_empty() {
            return Some(format!("{name} does not speak yet"));
        }
        let down = self.sessions.iter().find(|(_, state)| !is_up(state));
        down.map(|(neighbor, state)| format!("{name} with {neighbor}: {state}"))
    }
}

fn is_up(state: &str) -> bool {
    state == "Established"
}

/// What is lacking first.
fn lack(seen: &[Seen], blocks: &[(String, IpNet)]) -> Option<Lack> {
    if let Some(first) = seen.iter().find_map(Seen::waits_for) {
        let all = seen.iter().flat_map(|one| &one.sessions);
        let up = all.clone().filter(|(_, state)| is_up(state)).count();
        return Some(Lack::Sessions(up, all.count(), first));
    }
    for one in seen.iter().filter(|one| one.node) {
        let at = one.name.clone();
        let mut others = blocks.iter().filter(|(node, _)| *node != one.name);
        if let Some((_, to)) = others.find(|(_, block)| !one.prefixes.contains(block)) {
            return Some(Lack::Route { at, to: *to });
        }
        if one.not_in_kernel > 0 {
            let routes = one.not_in_kernel;
            return Some(Lack::Kernel { at, routes });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(name: &str, sessions: &[(&str, &str)], prefixes: &[&str]) -> Seen {
        let owned = sessions.iter();
        Seen {
            name: name.to_owned(),
            node: name.starts_with("node"),
            sessions: owned
                .map(|(neighbor, state)| ((*neighbor).to_owned(), (*state).to_owned()))
                .collect(),
            prefixes: prefixes.iter().map(|one| one.parse().unwrap()).collect(),
            not_in_kernel: 0,
        }
    }

    #[test]
    fn what_is_lacking_is_told_in_order() {
        let blocks = [("node-1", "10.244.1.0/24"), ("node-2", "10.244.2.0/24")];
        let blocks = blocks.map(|(node, block)| (node.to_owned(), block.parse().unwrap()));
        let told = |seen: &[Seen]| lack(seen, &blocks).map(|lack| lack.to_string());
        let leaf = |state: &str| {
            speaker(
                "leaf-1",
                &[("node-1", "Established"), ("node-2", state)],
                &[],
            )
        };
        let up = [("eth1", "Established")];
        let (one, two) = (
            speaker("node-1", &up, &["10.244.2.0/24"]),
            speaker("node-2", &up, &[]),
        );
        assert_eq!(
            told(&[
                leaf("Established"),
                one.clone(),
                speaker("node-2", &[], &[])
            ])
            .unwrap(),
            "3 of 3 ends of BGP sessions are up (node-2 does not speak yet)"
        );
        assert_eq!(
            told(&[leaf("Connect"), one.clone(), two.clone()]).unwrap(),
            "3 of 4 ends of BGP sessions are up (leaf-1 with node-2: Connect)"
        );
        assert_eq!(
            told(&[leaf("Established"), one.clone(), two]).unwrap(),
            "node-2 has no route to 10.244.1.0/24 yet"
        );
        let mut two = speaker("node-2", &up, &["10.244.1.0/24"]);
        two.not_in_kernel = 1;
        assert_eq!(
            told(&[leaf("Established"), one.clone(), two.clone()]).unwrap(),
            "the kernel of node-2 lacks 1 of its routes"
        );
        two.not_in_kernel = 0;
        let all = [leaf("Established"), one, two];
        assert_eq!(told(&all), None);

        let heard = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let lack = untold(&all, &heard(&["node-1"]));
        assert_eq!(
            lack.unwrap().to_string(),
            "the API does not tell of the sessions of node-2 yet"
        );
        assert_eq!(untold(&all, &heard(&["node-1", "node-2"])), None);
    }
}
