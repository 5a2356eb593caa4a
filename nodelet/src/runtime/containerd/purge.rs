//! Removing everything that a node has left on its machine: for `down --purge`.

use std::path::Path;

use containerd_client::services::v1::DeleteContentRequest;
use containerd_client::services::v1::snapshots::{ListSnapshotsRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    DeleteContainerRequest, DeleteImageRequest, DeleteNamespaceRequest, DeleteRequest,
    DeleteTaskRequest, KillRequest, ListContainersRequest, ListContentRequest, ListImagesRequest,
    ListRequest, ListTasksRequest, WaitRequest,
};
use peapod_shim::protocol::Request;

use super::by_shim::worded;
use super::client::{Client, SNAPSHOTTER};
use super::lease::Lease;
use super::state::States;
use super::{Config, blocking};
use crate::logs::client::LogWriter;
use crate::runtime::Result;
use crate::runtime::cgroups::{self, Cgroups};

/// Where the shim lets the OCI runtime keep its state, a directory per namespace.
const RUNC_ROOT: &str = "/run/containerd/runc";

/// Stops and removes all containers of the node, its images, snapshots, blobs and leases, its containerd namespace,
/// its pinned namespaces and mounts, its cgroups and its log writer. No agent may run on the
/// node. What is gone already is no error, so a purge that was interrupted can be repeated.
///
/// # Errors
/// When something cannot be removed. Where containerd does not answer, all that is not its own has gone by then;
/// the node's directory stays, so that the purge can be repeated.
pub async fn purge(config: &Config) -> Result<()> {
    let client = Client::new(&config.address, &config.namespace)?;
    let_go(config, &client).await?;
    remove_containers(&client).await?;
    remove_images(&client).await?;
    remove_snapshots(&client).await?;
    remove_content(&client).await?;
    remove_namespace(&client).await?;
    // The shim's directory for our namespace; others' stay, and ours if something is still in it.
    let _ = std::fs::remove_dir(Path::new(RUNC_ROOT).join(&config.namespace));
    remove_dir(&config.state_dir)
}

/// Ends all containers of the node and lets go of its namespaces, mounts and cgroups, as a reboot
/// would; records, logs and images stay, and a new agent starts the pods again. No agent may run
/// on the node.
///
/// # Errors
/// As of [`purge`].
pub async fn stop(config: &Config) -> Result<()> {
    let_go(config, &Client::new(&config.address, &config.namespace)?).await
}

/// Ends what runs, and lets go of what the node holds of the kernel. Of what containerd runs it tells at
/// the end: nothing else waits for a daemon that may be gone.
async fn let_go(config: &Config, client: &Client) -> Result<()> {
    remove_shim_tasks(config).await?;
    let ended = remove_tasks(client).await;
    LogWriter::new(config.log_config()).shutdown().await?;
    unmount_containers(config).await?;
    let (sandboxes, group) = (
        config.sandboxes(),
        cgroups::node_group(&config.cgroup_parent),
    );
    let released = blocking("unpinning namespaces", move || {
        let all = sandboxes.list()?;
        all.iter()
            .try_for_each(|sandbox| sandboxes.unpin(&sandbox.spec.pod.uid))?;
        Cgroups::detect()?.remove(&group)
    })
    .await;
    // What containerd still runs holds its cgroup: then that it could not be ended is the fault to tell.
    ended.and(released)
}

/// Lets go of the file systems and volumes of containers that no process uses any more.
async fn unmount_containers(config: &Config) -> Result<()> {
    let states = States::new(config.containers_dir());
    blocking("unmounting the files of containers", move || {
        let mut all = states.ids().into_iter();
        all.try_for_each(|id| states.of(&id).unmount())
    })
    .await
}

/// Kills and removes what the shim runs, and ends it.
async fn remove_shim_tasks(config: &Config) -> Result<()> {
    let shim = config.shim();
    let words = |error| worded("ending the containers of the shim", error);
    // One that does not run may have died over containers; the next takes them over.
    if config.state_dir.join("shim").exists() {
        for task in shim.list().await.map_err(words)? {
            let id = task.id;
            let kill = Request::Signal {
                id: id.clone(),
                signal: 9,
                all: true,
            };
            shim.order(&kill).await.map_err(words)?;
            shim.wait(&id).await.map_err(words)?;
            shim.order(&Request::Delete(id)).await.map_err(words)?;
        }
    }
    shim.shutdown().await.map_err(words)
}

async fn remove_tasks(client: &Client) -> Result<()> {
    let mut tasks = client.tasks();
    let request = ListTasksRequest {
        filter: String::new(),
    };
    let listed = client
        .call("listing tasks", tasks.list(request))
        .await?
        .tasks;
    for id in listed.into_iter().map(|task| task.id) {
        let kill = KillRequest {
            container_id: id.clone(),
            exec_id: String::new(),
            signal: 9,
            all: true,
        };
        // One that has ended cannot be killed; the deletion tells what is wrong otherwise.
        if tasks.kill(kill).await.is_ok() {
            let wait = WaitRequest {
                container_id: id.clone(),
                exec_id: String::new(),
            };
            client
                .call_gone_ok("waiting for a container's end", tasks.wait(wait))
                .await?;
        }
        let request = DeleteTaskRequest { container_id: id };
        client
            .call_gone_ok("deleting a task", tasks.delete(request))
            .await?;
    }
    Ok(())
}

async fn remove_containers(client: &Client) -> Result<()> {
    let mut containers = client.containers();
    let request = ListContainersRequest {
        filters: Vec::new(),
    };
    let listed = client
        .call("listing containers", containers.list(request))
        .await?
        .containers;
    for container in listed {
        let request = DeleteContainerRequest { id: container.id };
        client
            .call_gone_ok("removing a container", containers.delete(request))
            .await?;
    }
    Ok(())
}

async fn remove_images(client: &Client) -> Result<()> {
    let mut images = client.images();
    let request = ListImagesRequest {
        filters: Vec::new(),
    };
    let listed = client
        .call("listing images", images.list(request))
        .await?
        .images;
    for image in listed {
        let request = DeleteImageRequest {
            name: image.name,
            ..DeleteImageRequest::default()
        };
        client
            .call_gone_ok("removing an image", images.delete(request))
            .await?;
    }
    let mut leases = client.leases();
    let request = ListRequest {
        filters: Vec::new(),
    };
    let listed = client
        .call("listing leases", leases.list(request))
        .await?
        .leases;
    for lease in listed {
        let request = DeleteRequest {
            id: lease.id,
            sync: false,
        };
        client
            .call_gone_ok("removing a lease", leases.delete(request))
            .await?;
    }
    Ok(())
}

/// A snapshot can be removed when none stands on it: from the leaves to the roots, one layer a
/// round. What containerd's collector took is still counted as standing on what it stood on (seen with 1.6): that goes
/// by the collector too, once nothing else refers to it.
async fn remove_snapshots(client: &Client) -> Result<()> {
    let mut snapshots = client.snapshots();
    let mut collected = false;
    loop {
        let names = list_snapshots(client).await?;
        let mut removed = 0;
        let mut refused = None;
        for name in &names {
            let request = RemoveSnapshotRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key: name.clone(),
            };
            let removal = snapshots.remove(request);
            match client.call_gone_ok("removing a snapshot", removal).await {
                Ok(()) => removed += 1,
                Err(error) => refused = Some(error),
            }
        }
        match (refused, removed) {
            (None, _) => return Ok(()),
            (Some(_), 0) if !collected => {
                Lease::take(client).await?.release_and_collect().await?;
                collected = true;
            }
            (Some(error), 0) => return Err(error),
            (Some(_), _) => {}
        }
    }
}

async fn list_snapshots(client: &Client) -> Result<Vec<String>> {
    let what = "listing snapshots";
    let request = ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        filters: Vec::new(),
    };
    let mut stream = client.call(what, client.snapshots().list(request)).await?;
    let mut names = Vec::new();
    while let Some(part) = stream.message().await.map_err(|s| client.error(what, &s))? {
        names.extend(part.info.into_iter().map(|info| info.name));
    }
    Ok(names)
}

async fn remove_content(client: &Client) -> Result<()> {
    let what = "listing blobs";
    let request = ListContentRequest {
        filters: Vec::new(),
    };
    let mut stream = client.call(what, client.content().list(request)).await?;
    let mut digests = Vec::new();
    while let Some(part) = stream.message().await.map_err(|s| client.error(what, &s))? {
        digests.extend(part.info.into_iter().map(|info| info.digest));
    }
    for digest in digests {
        let request = DeleteContentRequest { digest };
        client
            .call_gone_ok("removing a blob", client.content().delete(request))
            .await?;
    }
    Ok(())
}

async fn remove_namespace(client: &Client) -> Result<()> {
    let request = DeleteNamespaceRequest {
        name: client.namespace().to_owned(),
    };
    let mut namespaces = client.namespaces();
    client
        .call_gone_ok(
            "removing the containerd namespace",
            namespaces.delete(request),
        )
        .await
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(crate::runtime::Error::Failed {
                what: format!("removing {}", dir.display()),
                reason: error.to_string(),
            })
        }
        _ => Ok(()),
    }
}
