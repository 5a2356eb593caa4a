//! When a cluster is ready: its nodes say so, pods may be created, and the cluster's DNS answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use peapod_api::attach::PodNetwork;
use tokio::net::UdpSocket;

use super::settings::Settings;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A question that is lost (the maps were being written) is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Waits for the node, for its network and for DNS.
pub async fn wait(
    client: Client,
    network: &dyn PodNetwork,
    settings: &Settings,
    dns: SocketAddr,
) -> Result<()> {
    let all = async {
        node(client, &settings.node).await?;
        // What DNS answers from is known when the network is ready: it need not be asked in vain.
        let ready = network.ready().await;
        ready.map_err(|error| anyhow!("the network of node {}: {error}", settings.node))?;
        let name = format!("kubernetes.default.svc.{}.", settings.cluster_domain);
        resolves(dns, &name).await
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("node {} was not ready after {PATIENCE:?}", settings.node),
    }
}

/// Waits until the API takes pods in the namespace `default`: it refuses them before the namespace
/// has its service account.
pub async fn takes_pods(client: Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
    let there = await_condition(accounts, "default", |account: Option<&ServiceAccount>| {
        account.is_some()
    });
    match tokio::time::timeout(PATIENCE, there).await {
        Ok(outcome) => outcome.map(drop).context("cannot watch service accounts"),
        Err(_) => bail!(
            "the namespace default had no service account after {PATIENCE:?}; see the controllers \
             in the log"
        ),
    }
}

/// Waits until all these nodes are ready.
pub async fn nodes(client: Client, names: &[String]) -> Result<()> {
    let all = names.iter().map(|name| {
        let client = client.clone();
        async move {
            let ready = node(client, name);
            match tokio::time::timeout(PATIENCE, ready).await {
                Ok(outcome) => outcome,
                Err(_) => bail!("node {name} was not ready after {PATIENCE:?}"),
            }
        }
    });
    futures::future::try_join_all(all).await.map(drop)
}

async fn node(client: Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let is_ready = |node: Option<&Node>| {
        let status = node.and_then(|node| node.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref());
        peapod_api::conditions::is_true(conditions.unwrap_or_default(), "Ready")
    };
    await_condition(nodes, name, is_ready)
        .await
        .context("cannot watch the node")?;
    Ok(())
}

async fn resolves(server: SocketAddr, name: &str) -> Result<()> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
    let question = question.to_vec()?;
    loop {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        let mut reply = [0; 512];
        let ask = async {
            socket.send(&question).await?;
            socket.recv(&mut reply).await
        };
        if let Ok(Ok(length)) = tokio::time::timeout(ASK_AGAIN, ask).await {
            let answer =
                Message::from_vec(&reply[..length]).context("the cluster's DNS sends nonsense")?;
            if answer.metadata.response_code == ResponseCode::NoError && !answer.answers.is_empty()
            {
                return Ok(());
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
