//! The nodes that run on this machine: where their network namespaces, pods and sockets are.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use crate::instance::{Layout, State};

/// A node of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Its name.
    pub name: String,
    /// Its network namespace; `None` for the machine's own.
    pub netns: Option<PathBuf>,
    /// Where its pods' namespaces are pinned, a folder for each UID.
    pub sandboxes: PathBuf,
    /// The control socket of its BGP speaker, where it has one.
    pub control: PathBuf,
}

// === impl LocalNode ===

impl LocalNode {
    /// The node that this process is of, in whose network namespace it runs.
    pub fn here(name: &str, layout: &Layout) -> Self {
        Self {
            name: name.to_owned(),
            ..at(layout.root().to_owned())
        }
    }

    /// Where a pod's network namespace is pinned.
    pub fn pod_netns(&self, uid: &str) -> PathBuf {
        self.sandboxes.join(uid).join("net")
    }

    /// Does something in the node's network namespace, on a thread of its own where that is not
    /// the machine's.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.netns {
            None => work(),
            Some(path) => inside(path, work),
        }
    }
}

/// Does something in a network namespace, on a thread of its own.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let entered = peapod_netd::links::netns::inside(path, || Ok(work()));
    entered.map_err(|fault| anyhow!(fault))?
}

/// A router of a fabric on this machine (`peapod up --fabric`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRouter {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: Option<u32>,
    /// Its control socket.
    pub control: PathBuf,
}

/// The nodes of a data directory that run here; none for a machine without an instance.
pub fn nodes(data_dir: &Path) -> Result<Vec<LocalNode>> {
    let layout = Layout::new(data_dir)?;
    let inner = below(&layout.root().join("nodes"), "node.json");
    if !inner.is_empty() {
        let nodes = inner.into_iter().map(|(dir, settings)| LocalNode {
            name: named(&dir, &settings["name"]),
            netns: settings["netns"].as_str().map(PathBuf::from),
            ..at(dir)
        });
        return Ok(nodes.collect());
    }
    let running = State::running(&layout)?;
    let node = running.map(|state| LocalNode {
        name: state.node,
        ..at(layout.root().to_owned())
    });
    Ok(node.into_iter().collect())
}

/// The routers of a data directory's fabric.
pub fn routers(data_dir: &Path) -> Result<Vec<LocalRouter>> {
    let layout = Layout::new(data_dir)?;
    let inner = below(&layout.root().join("fabric"), "router.yaml");
    let routers = inner.into_iter().map(|(dir, settings)| LocalRouter {
        name: named(&dir, &settings["hostname"]),
        asn: settings["asn"]
            .as_u64()
            .and_then(|asn| u32::try_from(asn).ok()),
        control: match settings["controlSocket"].as_str() {
            Some(path) => PathBuf::from(path),
            None => dir.join("control.sock"),
        },
    });
    Ok(routers.collect())
}

/// A node whose state lives in a directory.
fn at(dir: PathBuf) -> LocalNode {
    LocalNode {
        name: String::new(),
        netns: None,
        sandboxes: dir.join("runtime/sandboxes"),
        control: dir.join("run/bgp.sock"),
    }
}

/// The folders of a directory that hold a readable file of a name, with what it says, in order.
fn below(dir: &Path, file: &str) -> Vec<(PathBuf, Value)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    dirs.sort();
    let read = dirs.into_iter().filter_map(|dir| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        Some((dir, serde_saphyr::from_str(&text).ok()?))
    });
    read.collect()
}

fn named(dir: &Path, name: &Value) -> String {
    let folder = || {
        dir.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    name.as_str().map_or_else(folder, str::to_owned)
}

/// One of them by name; the only one without.
pub fn node<'a>(nodes: &'a [LocalNode], name: Option<&str>) -> Result<&'a LocalNode> {
    let names = || {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        names.join(", ")
    };
    match (name, nodes) {
        (_, []) => bail!(
            "no node runs on this machine (with this data directory); run this on the node itself, or name --instance-dir"
        ),
        (None, [only]) => Ok(only),
        (None, _) => bail!("several nodes run here; say which with --node: {}", names()),
        (Some(name), _) => nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            anyhow!(
                "node {name} does not run on this machine ({} does); run this there",
                names()
            )
        }),
    }
}

/// Refuses early, with a sentence, what only root may.
pub fn must_be_root(what: &str) -> Result<()> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => bail!("{what} reads this machine's kernel, which only root may; use sudo"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_routers_of_a_fabric_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "nodes/n2/node.json",
            r#"{"name": "n2", "netns": "/run/netns/x-n2"}"#,
        );
        write(
            "nodes/n1/node.json",
            r#"{"name": "n1", "netns": "/run/netns/x-n1"}"#,
        );
        write("nodes/broken/node.json", "{");
        write(
            "fabric/leaf1/router.yaml",
            r#"{"asn": 65101, "hostname": "leaf1"}"#,
        );
        let nodes = nodes(dir.path()).unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2"]);
        assert_eq!(
            nodes[0].netns.as_deref(),
            Some(Path::new("/run/netns/x-n1"))
        );
        assert!(nodes[0].sandboxes.starts_with(dir.path().join("nodes/n1")));
        let routers = routers(dir.path()).unwrap();
        assert_eq!(
            (routers[0].name.as_str(), routers[0].asn),
            ("leaf1", Some(65101))
        );
    }

    fn only(name: &str) -> LocalNode {
        LocalNode {
            name: name.into(),
            netns: None,
            sandboxes: "/x".into(),
            control: "/y".into(),
        }
    }

    #[test]
    fn the_only_node_needs_no_name() {
        let one = [only("a")];
        assert_eq!(node(&one, None).unwrap().name, "a");
        let two = [only("a"), only("b")];
        assert_eq!(node(&two, Some("b")).unwrap().name, "b");
        for (nodes, name) in [(&two[..], None), (&two[..], Some("c")), (&[], None)] {
            assert!(node(nodes, name).is_err());
        }
    }
}
