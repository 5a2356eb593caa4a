//! `peapod join`: makes this machine a node of a cluster. It learns the cluster's CA, asks for a
//! certificate as the token's holder, and starts the node's agents in the background.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Taint};
use kube::{Api, Client};
use peapod_api::bootstrap::{NODE_SETTINGS, SETTINGS, SYSTEM, Token};
use peapod_api::{conditions, labels, selector};

use super::csr::{self, Wanted};
use super::discovery;
use super::identity::{self, Files};
use super::node::{ClusterSettings, NodeSettings};
use super::server::address_towards;
use crate::cli::single_threaded;
use crate::instance::cni_flags::CniFlags;
use crate::instance::runtime_flags::RuntimeFlags;
use crate::instance::settings::{node_name, read_json, write_json, write_private};
use crate::instance::{self, Layout, State, layout, preflight};
use crate::terminal::Steps;

/// The arguments of `peapod join`.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// URL of the API server, as https://10.0.0.1:6443
    server: String,
    /// The token that `peapod server` or `peapod token create` printed
    #[arg(long, value_name = "TOKEN")]
    token: Token,
    /// What the cluster's CA must be: sha256:... of its public key
    #[arg(long, value_name = "HASH")]
    ca_cert_hash: Option<String>,
    /// Where the node's state lives
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The node's own addresses, the preferred family first [default: the one towards the server]
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Labels of the node
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// The rack that the node is in (the label net.peapod.dev/rack)
    #[arg(long, value_name = "NAME")]
    rack: Option<String>,
    /// Taints that the node is registered with
    #[arg(long, value_name = "KEY=VALUE:EFFECT,...", value_delimiter = ',', value_parser = taint)]
    register_with_taints: Vec<Taint>,
    /// Use the containerd that listens on this socket
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    #[command(flatten)]
    cni: CniFlags,
    #[command(flatten)]
    runtime: RuntimeFlags,
}

/// Runs `peapod join`.
pub fn run(args: &JoinArgs) -> Result<()> {
    preflight::root()?;
    let layout = Layout::new(&args.data_dir)?;
    refuse_twice(&layout)?;
    std::fs::create_dir_all(layout.root())
        .with_context(|| format!("cannot create {}", layout.root().display()))?;
    let steps = Steps::new();
    let node = single_threaded()?.block_on(join(args, &layout, &steps))?;
    steps.finish();
    let state = instance::start_node(&layout)?;
    println!(
        "{} is a node of {} now, at {}.",
        state.node, node.server, state.node_ip
    );
    for warning in &state.warnings {
        println!("warning: {warning}");
    }
    Ok(())
}

fn refuse_twice(layout: &Layout) -> Result<()> {
    let Some(node) = read_json::<NodeSettings>(&layout.node_settings())? else {
        if let Some(state) = State::running(layout)? {
            bail!(
                "{} is of a running cluster (pid {}); pass another --data-dir",
                layout.root().display(),
                state.pid
            );
        }
        return Ok(());
    };
    let (name, server) = (node.name, node.server);
    match State::running(layout)? {
        Some(state) => bail!(
            "this machine is node {name} of {server} already (pid {}); `peapod down --purge` makes \
             it forget that",
            state.pid
        ),
        None => bail!(
            "this machine is node {name} of {server} already, and its agents do not run; start \
             them with `peapod node`, or make it forget that with `peapod down --purge`"
        ),
    }
}

async fn join(args: &JoinArgs, layout: &Layout, steps: &Steps) -> Result<NodeSettings> {
    let server = args.server.trim_end_matches('/').to_owned();
    steps.begin("looking at the cluster");
    let pin = args.ca_cert_hash.as_deref();
    let ca = discovery::discover(&server, &args.token, pin).await?;
    let mut config = identity::base(&server, &ca)?;
    config.auth_info.token = Some(args.token.to_string().into());
    let bootstrap = Client::try_from(config).context("cannot make a client")?;
    let node = settings(args, &bootstrap, &server).await?;

    steps.begin("asking for a certificate");
    let pair = csr::request(&bootstrap, &Wanted::client(&node.name)).await?;
    let own = identity::connect(&server, &ca, &pair)?;
    refuse_name(own, &node.name).await?;
    let files = Files::new(layout);
    files.write_ca(&ca)?;
    pair.write(&files.client())?;
    let kubeconfig = files.kubeconfig(&server, &node.name);
    write_private(&layout.kubeconfig(), kubeconfig.as_bytes())?;
    // Last: with it this machine has joined.
    write_json(&layout.node_settings(), &node)?;
    Ok(node)
}

async fn settings(args: &JoinArgs, client: &Client, server: &str) -> Result<NodeSettings> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM);
    let map = maps.get(NODE_SETTINGS).await.map_err(refused)?;
    let text = map.data.unwrap_or_default().remove(SETTINGS);
    let cluster: ClusterSettings = serde_json::from_str(&text.unwrap_or_default())
        .context("the cluster's settings for nodes are damaged; restart its server")?;
    let mut all: std::collections::BTreeMap<_, _> = args.node_labels.iter().cloned().collect();
    if let Some(rack) = &args.rack {
        all.insert(labels::RACK.to_owned(), rack.clone());
    }
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => node_name()?,
    };
    peapod_api::names::dns_subdomain(&name)
        .map_err(|fault| anyhow::anyhow!("{name:?} cannot name a node: {fault}"))?;
    let ips = match args.node_ip.is_empty() {
        true => vec![
            address_towards(address_of(server)?)
                .context("the node's own address is not known; name it with --node-ip")?,
        ],
        false => args.node_ip.clone(),
    };
    Ok(NodeSettings {
        name,
        ips,
        private_ips: Vec::new(),
        labels: all,
        taints: args.register_with_taints.clone(),
        cluster,
        server: server.to_owned(),
        containerd: args.containerd.clone(),
        cni: args.cni.settings(),
        runtime: args.runtime.clone(),
        netns: None,
    })
}

fn refused(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 401 => anyhow::anyhow!(
            "the cluster does not take the token: it has just expired or was deleted; make another \
             there with `peapod token create`"
        ),
        _ => crate::client::server_error(error),
    }
}

fn address_of(server: &str) -> Result<SocketAddr> {
    let url: http::Uri = server.parse().context("the server's URL")?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut found = (host, url.port_u16().unwrap_or(443))
        .to_socket_addrs()
        .with_context(|| format!("cannot find {host}"))?;
    found
        .next()
        .with_context(|| format!("{host} has no address"))
}

/// A name is one machine's: another that is well must not be pushed out.
async fn refuse_name(client: Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let found = nodes
        .get_opt(name)
        .await
        .map_err(crate::client::server_error)?;
    let status = found.and_then(|node| node.status).unwrap_or_default();
    if conditions::is_true(&status.conditions.unwrap_or_default(), "Ready") {
        bail!(
            "the cluster has a node {name} already, and it is ready; pass another --node-name, or \
             delete that node first (kubectl delete node {name})"
        );
    }
    Ok(())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let _: selector::Selector = format!("{key}={value}")
        .parse()
        .map_err(|fault| format!("{text:?} is no label: {fault}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A taint as the kubelet takes it: `key=value:effect`, or `key:effect`.
fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("{text:?} is no taint, as dedicated=db:NoSchedule");
    let (left, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong());
    }
    Ok(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints() {
        assert_eq!(label("a=b"), Ok(("a".to_owned(), "b".to_owned())));
        assert!(label("a b=c").is_err());
        let read = taint("dedicated=db:NoSchedule").unwrap();
        assert_eq!(
            (read.key.as_str(), read.value.as_deref()),
            ("dedicated", Some("db"))
        );
        assert_eq!(taint("gone:NoExecute").unwrap().value, None);
        for wrong in ["", "a", "a=b", "a=b:Sometimes", ":NoExecute"] {
            assert!(taint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_have_addresses() {
        let address = address_of("https://[fd00::1]:6443").unwrap();
        assert_eq!(address.to_string(), "[fd00::1]:6443");
        assert_eq!(address_of("https://127.0.0.1").unwrap().port(), 443);
    }
}
