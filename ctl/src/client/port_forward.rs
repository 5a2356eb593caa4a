//! `port-forward`: local ports that lead into a pod.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::session::{Session, server_error};

/// Most connections at a time for one command.
const MAX_CONNECTIONS: usize = 1024;

/// The arguments of `port-forward`.
#[derive(Debug, clap::Args)]
pub struct PortForwardArgs {
    /// POD, or TYPE/NAME of a service or workload
    target: String,
    /// [LOCAL:]REMOTE; an empty LOCAL (`:80`) is any free port
    #[arg(required = true)]
    ports: Vec<String>,
    /// Local addresses to listen on
    #[arg(long, default_value = "127.0.0.1", value_delimiter = ',')]
    address: Vec<String>,
}

/// Runs `port-forward` until it is interrupted.
pub async fn run(session: &Session, args: &PortForwardArgs) -> Result<()> {
    let service = service_of(session, &args.target).await?;
    let pod = super::exec::pod_of(session, &args.target).await?;
    let mut tasks = JoinSet::new();
    for spec in &args.ports {
        let (local, remote) = ports(spec)?;
        let target = match &service {
            Some(service) => target_port(session, service, &pod, remote).await?,
            None => remote,
        };
        for address in &args.address {
            let listener = TcpListener::bind((address.as_str(), local))
                .await
                .with_context(|| format!("unable to listen on {address}:{local}"))?;
            println!("Forwarding from {} -> {target}", listener.local_addr()?);
            let api: Api<Pod> = Api::namespaced(session.client(), session.namespace());
            tasks.spawn(serve(listener, api, pod.clone(), target));
        }
    }
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

/// `8080:80`, `80`, `:80`.
fn ports(spec: &str) -> Result<(u16, u16)> {
    let number = |text: &str| -> Result<u16> {
        text.parse()
            .with_context(|| format!("invalid port {text:?} in {spec:?}; write [LOCAL:]REMOTE"))
    };
    match spec.split_once(':') {
        None => Ok((number(spec)?, number(spec)?)),
        Some(("", remote)) => Ok((0, number(remote)?)),
        Some((local, remote)) => Ok((number(local)?, number(remote)?)),
    }
}

async fn service_of(session: &Session, target: &str) -> Result<Option<Value>> {
    let Some((kind, name)) = target.split_once('/') else {
        return Ok(None);
    };
    let resource = session.resource(kind).await?;
    if resource.plural != "services" {
        return Ok(None);
    }
    Ok(Some(
        session
            .get(&resource.object(session.namespace(), name))
            .await?,
    ))
}

/// The pod's port behind a service's port.
async fn target_port(session: &Session, service: &Value, pod: &str, port: u16) -> Result<u16> {
    let ports = service["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let Some(found) = ports
        .iter()
        .find(|p| p["port"].as_u64() == Some(u64::from(port)))
    else {
        bail!("the service does not have a port {port}");
    };
    match &found["targetPort"] {
        Value::Number(number) => Ok(number.as_u64().unwrap_or_default() as u16),
        Value::String(name) => {
            let pods = session.resource("pods").await?;
            let pod = session.get(&pods.object(session.namespace(), pod)).await?;
            named_port(&pod, name).with_context(|| format!("the pod has no port named {name:?}"))
        }
        _ => Ok(port),
    }
}

fn named_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?;
    let mut all = containers
        .iter()
        .flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = all.find(|port| port["name"] == name)?;
    port["containerPort"].as_u64().map(|port| port as u16)
}

async fn serve(listener: TcpListener, api: Api<Pod>, pod: String, port: u16) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        println!("Handling connection for {}", listener.local_addr()?.port());
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (api, pod) = (api.clone(), pod.clone());
        connections.spawn(async move {
            if let Err(error) = forward(stream, &api, &pod, port).await {
                eprintln!("error: {}", crate::terminal::sentence(&error));
            }
        });
    }
}

async fn forward(mut stream: TcpStream, api: &Api<Pod>, pod: &str, port: u16) -> Result<()> {
    let mut forwarder = api.portforward(pod, &[port]).await.map_err(server_error)?;
    let mut remote = forwarder
        .take_stream(port)
        .context("the server opened no stream")?;
    tokio::io::copy_bidirectional(&mut stream, &mut remote)
        .await
        .with_context(|| format!("lost connection to port {port} of pod {pod}"))?;
    drop(remote);
    forwarder.join().await.context("the forwarding failed")
}

#[cfg(test)]
mod tests {
    #[test]
    fn port_specs() {
        assert_eq!(super::ports("80").unwrap(), (80, 80));
        assert_eq!(super::ports("8080:80").unwrap(), (8080, 80));
        assert_eq!(super::ports(":80").unwrap(), (0, 80));
        for bad in ["", "x", "1:2:3", "70000"] {
            assert!(super::ports(bad).is_err(), "{bad}");
        }
    }
}
