//! Attaching and detaching as callers ask for it: in this process, or over the socket.

use std::sync::Arc;

use async_trait::async_trait;
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use crate::cni::identity::MARK;
use crate::links::pod::Connected;
use crate::metrics::Metrics;
use crate::netd::Readiness;
use crate::pods::{self, Pods};
use crate::seam::{CheckRequest, CollectRequest};

/// Does what is asked.
pub(crate) struct Attacher {
    pub(crate) pods: Arc<Pods>,
    pub(crate) metrics: Metrics,
    /// Links of detached pods that wait for their deletion.
    pub(crate) deletions: mpsc::Sender<Connected>,
    pub(crate) readiness: watch::Receiver<Readiness>,
}

impl From<pods::Error> for AttachError {
    fn from(error: pods::Error) -> Self {
        AttachError {
            // Blocks come, addresses are released, and the kernel may have had no memory for
            // a moment: nothing here is for ever.
            retriable: true,
            message: error.to_string(),
        }
    }
}

fn interrupted(error: &JoinError) -> AttachError {
    AttachError {
        retriable: true,
        message: format!("the network agent is going down: {error}"),
    }
}

// === impl Attacher ===

impl Attacher {
    /// Whether pods can be attached now.
    pub(crate) fn status(&self) -> Result<(), AttachError> {
        let now = *self.readiness.borrow();
        let lacking = match (now.block, now.services, now.ways) {
            (true, true, true) => return Ok(()),
            (false, ..) => "this node has no address block yet; does its API server answer?",
            (_, false, _) => "the services are not in the kernel yet; does the API server answer?",
            (.., false) => "the routes to other nodes are not in the kernel yet; see the log",
        };
        Err(AttachError {
            retriable: true,
            message: lacking.to_owned(),
        })
    }

    /// Compares an attachment with the kernel.
    pub(crate) async fn check(&self, request: CheckRequest) -> Result<(), AttachError> {
        let pods = self.pods.clone();
        let checked = tokio::task::spawn_blocking(move || pods.check(&request)).await;
        checked.map_err(|error| interrupted(&error))??;
        Ok(())
    }

    /// Detaches what is not to be kept; what fails does not keep the rest from it.
    pub(crate) async fn collect(&self, request: &CollectRequest) -> Result<(), AttachError> {
        let mut outcome = Ok(());
        for pod in self.pods.attached() {
            if !pod.uid.starts_with(&request.prefix) || request.keep.contains(&pod.uid) {
                continue;
            }
            tracing::info!(pod = %pod.name, "detaching what nobody keeps");
            let detached = self.detach(DetachRequest { pod }).await;
            outcome = outcome.and(detached);
        }
        outcome
    }
}

#[async_trait]
impl PodNetwork for Attacher {
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError> {
        let pods = self.pods.clone();
        let attached = tokio::task::spawn_blocking(move || pods.attach(&request)).await;
        let reply = attached.map_err(|error| interrupted(&error))??;
        self.metrics.attached(self.pods.count());
        Ok(reply)
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError> {
        let pods = self.pods.clone();
        let detached = tokio::task::spawn_blocking(move || pods.detach(&request)).await;
        let gone = detached.map_err(|error| interrupted(&error))??;
        self.metrics.attached(self.pods.count());
        if let Some(gone) = gone {
            // Deleting a link takes tens of milliseconds, and nobody waits for it.
            if let Err(mpsc::error::SendError(gone)) = self.deletions.send(gone).await {
                self.pods.finish_detach(&gone);
            }
        }
        Ok(())
    }

    /// Those of the node agent: what came over CNI is its runtime's to release.
    async fn attached(&self) -> Result<Vec<PodRef>, AttachError> {
        let mut pods = self.pods.attached();
        pods.retain(|pod| !pod.uid.starts_with(MARK));
        Ok(pods)
    }

    async fn metrics(&self) -> Result<String, AttachError> {
        Ok(self.metrics.text())
    }

    async fn ready(&self) -> Result<(), AttachError> {
        let mut readiness = self.readiness.clone();
        let all = |now: &Readiness| now.block && now.services && now.ways;
        match readiness.wait_for(all).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AttachError {
                retriable: true,
                message: "the network agent is going down".to_owned(),
            }),
        }
    }
}
