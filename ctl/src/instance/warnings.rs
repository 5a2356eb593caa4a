//! What `peapod status` warns of beside what the instance itself has told: looked at when asked,
//! so that it is so now, and is found even when the instance cannot write it down.

use std::os::unix::net::UnixStream;
use std::path::Path;

use k8s_openapi::api::core::v1::{Node, NodeCondition};

use super::{Layout, State};

/// Less free disk than this part of it is worth a warning, percent: a node's DiskPressure too ...
const DISK_LOW_PERCENT: u64 = 10;
/// ... but this is room enough on any disk, bytes.
const DISK_LOW_BYTES: u64 = 1 << 30;

/// Looks at the disk, at containerd and at what the nodes say of themselves.
pub fn look(layout: &Layout, state: &State, nodes: &[Node]) -> Vec<String> {
    let disk = disk(layout.root());
    let mut warnings: Vec<String> = nodes
        .iter()
        .flat_map(of_node)
        // Said better, with what is left, below.
        .filter(|warning| disk.is_none() || !warning.contains("DiskPressure"))
        .collect();
    warnings.extend(disk);
    let socket = &state.containerd;
    let told = |warning: &String| warning.contains(&*socket.to_string_lossy());
    if state.has_node()
        && let Err(error) = UnixStream::connect(socket)
        && !warnings.iter().any(told)
    {
        warnings.push(format!(
            "cannot reach containerd at {}: {error}; containers run on, but none starts; start it \
             (systemctl start containerd)",
            socket.display()
        ));
    }
    warnings
}

fn disk(root: &Path) -> Option<String> {
    let stat = nix::sys::statvfs::statvfs(root).ok()?;
    let unit = stat.fragment_size();
    let (free, size) = (stat.blocks_available() * unit, stat.blocks() * unit);
    let low = free < (size / 100 * DISK_LOW_PERCENT).min(DISK_LOW_BYTES);
    low.then(|| {
        format!(
            "the disk of {} is nearly full: {} MiB are free; free some space, since with less than \
             32 MiB the API takes no writes",
            root.display(),
            free >> 20
        )
    })
}

/// Conditions of a node that are not as they should be.
fn of_node(node: &Node) -> Vec<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let wrong = |condition: &&NodeCondition| {
        let well = if condition.type_ == "Ready" {
            "True"
        } else {
            "False"
        };
        condition.status != well
    };
    conditions
        .into_iter()
        .flatten()
        .filter(wrong)
        .map(|condition| {
            let message = condition.message.as_deref().unwrap_or("no reason given");
            match condition.type_.as_str() {
                "Ready" => format!("node {name} is not ready: {message}"),
                other => format!("node {name} has {other}: {message}"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeStatus;
    use kube::api::ObjectMeta;

    #[test]
    fn conditions_that_are_not_as_they_should_be_are_told() {
        let condition = |kind: &str, status: &str, message: &str| NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            message: Some(message.to_owned()),
            ..Default::default()
        };
        let node = Node {
            metadata: ObjectMeta {
                name: Some("one".to_owned()),
                ..Default::default()
            },
            status: Some(NodeStatus {
                conditions: Some(vec![
                    condition("MemoryPressure", "False", "enough"),
                    condition("PIDPressure", "True", "few left"),
                    condition("Ready", "Unknown", "silent"),
                ]),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            of_node(&node),
            [
                "node one has PIDPressure: few left",
                "node one is not ready: silent"
            ]
        );
    }
}
