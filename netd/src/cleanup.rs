//! Leaves the machine as it was before the agent first ran.

use std::net::IpAddr;
use std::path::Path;

use crate::links::{self, node, pod, sysctl, ways};
use crate::{host_firewall, nat};

/// What could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("the network is not as it was: {}", .0.join("; "))]
pub struct Error(Vec<String>);

/// Removes pods' links, routes, tables, rules in others' tables, and the addresses of DNS, and
/// gives kernel settings their old values (from the record in `state_dir`). The agent must not
/// run. What fails does not keep the rest from being done; doing it again is fine.
///
/// The node's own address is its giver's to take: [`crate::node_address::remove`].
pub fn cleanup(dns: &[IpAddr], state_dir: &Path) -> Result<(), Error> {
    let mut failures = Vec::new();
    let mut note = |result: Result<(), String>| failures.extend(result.err());
    note(remove_links().map_err(|e| e.to_string()));
    note(node::remove_routes().map_err(|e| e.to_string()));
    note(ways::remove().map_err(|e| e.to_string()));
    note(nat::remove().map_err(|e| e.to_string()));
    note(nat::handover::end().map_err(|e| e.to_string()));
    note(host_firewall::remove(host_firewall::TAG).map_err(|e| e.to_string()));
    for &ip in dns {
        note(node::remove_local_address(ip).map_err(|e| e.to_string()));
    }
    note(sysctl::restore(state_dir).map_err(|e| e.to_string()));
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error(failures))
}

fn remove_links() -> Result<(), links::Error> {
    let (connected, mut names) = pod::list()?;
    names.extend(connected.into_iter().map(|pod| pod.link));
    names.iter().try_for_each(|link| pod::delete(link))
}
