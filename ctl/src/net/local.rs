//! The nodes that run on this machine: where their network namespaces, pods and sockets are.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

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

/// The nodes of a data directory that run here; none for a machine without an instance.
pub fn nodes(data_dir: &Path) -> Result<Vec<LocalNode>> {
    let layout = Layout::new(data_dir)?;
    let mut found = Vec::new();
    if let Some(state) = State::running(&layout)? {
        found.push(LocalNode {
            name: state.node,
            netns: None,
            sandboxes: layout.root().join("runtime/sandboxes"),
            control: layout.root().join("run/bgp.sock"),
        });
    }
    Ok(found)
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

    fn named(name: &str) -> LocalNode {
        LocalNode {
            name: name.into(),
            netns: None,
            sandboxes: "/x".into(),
            control: "/y".into(),
        }
    }

    #[test]
    fn the_only_node_needs_no_name() {
        let one = [named("a")];
        assert_eq!(node(&one, None).unwrap().name, "a");
        let two = [named("a"), named("b")];
        assert_eq!(node(&two, Some("b")).unwrap().name, "b");
        for (nodes, name) in [(&two[..], None), (&two[..], Some("c")), (&[], None)] {
            assert!(node(nodes, name).is_err());
        }
    }
}
