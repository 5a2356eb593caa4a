//! Who we talk to, as whom, in which namespace.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use super::resources::{Resource, Resources};
use crate::instance::Layout;

/// Flags that every client command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Kubeconfig file [default: $KUBECONFIG, this machine's instance, ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Data directory of this machine's instance
    #[arg(
        long = "instance-dir",
        env = "PEAPOD_DATA_DIR",
        hide = true,
        global = true,
        default_value = "/var/lib/peapod"
    )]
    pub instance_dir: PathBuf,
}

/// A connection to a cluster.
pub struct Session {
    client: Client,
    namespace: String,
    resources: tokio::sync::OnceCell<Resources>,
}

impl Session {
    /// Connects by the first kubeconfig that is there.
    pub async fn open(global: &Global) -> Result<Self> {
        let kubeconfig = find(global)?;
        let options = KubeConfigOptions {
            context: global.context.clone(),
            ..Default::default()
        };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("the kubeconfig cannot be used")?;
        config.read_timeout = None;
        let namespace = global
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self {
            client,
            namespace,
            resources: tokio::sync::OnceCell::new(),
        })
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace to work in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the server serves; asked for once.
    pub async fn resources(&self) -> Result<&Resources> {
        self.resources
            .get_or_try_init(|| Resources::discover(&self.client))
            .await
    }

    /// The resource that a word of the user means.
    pub async fn resource(&self, word: &str) -> Result<&Resource> {
        self.resources().await?.find(word)
    }

    /// The resource that a manifest's `apiVersion` and `kind` mean.
    pub async fn resource_of(&self, object: &Value) -> Result<&Resource> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        self.resources()
            .await?
            .of_kind(text("apiVersion"), text("kind"))
    }

    /// A GET of a path, decoded.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.get_as(path, "application/json").await
    }

    /// A GET of a path in a representation, decoded.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value> {
        let request = http::Request::get(path)
            .header("Accept", accept)
            .body(Vec::new())?;
        self.request(request).await
    }

    /// Any request with a decoded reply; the server's refusal becomes its own sentence.
    pub async fn request(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        self.client.request(request).await.map_err(server_error)
    }
}

/// The kubeconfig to use: the flag, `$KUBECONFIG`, the instance's, then the user's own.
fn find(global: &Global) -> Result<Kubeconfig> {
    if let Some(path) = &global.kubeconfig {
        return Kubeconfig::read_from(path)
            .with_context(|| format!("cannot read {}", path.display()));
    }
    if let Some(found) = Kubeconfig::from_env().context("cannot read the files of $KUBECONFIG")? {
        return Ok(found);
    }
    let own = Layout::new(&global.instance_dir)?.kubeconfig();
    if own.exists() {
        return Kubeconfig::read_from(&own)
            .with_context(|| format!("cannot read {}", own.display()));
    }
    Kubeconfig::read().context(
        "no cluster is known: start one with `peapod up`, or name a kubeconfig with --kubeconfig",
    )
}

/// Puts the server's sentence before the client library's.
pub fn server_error(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => {
            let prefix = if status.reason.is_empty() {
                "Error from server".to_owned()
            } else {
                format!("Error from server ({})", status.reason)
            };
            anyhow::anyhow!("{prefix}: {}", status.message)
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => anyhow::Error::new(error)
            .context("cannot reach the API server; is the cluster up? (peapod status)"),
        other => other.into(),
    }
}

/// Whether an error is the server's 404.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error
        .to_string()
        .starts_with("Error from server (NotFound)")
}

/// The reply to a question about one object, `None` for a 404.
pub fn optional(reply: Result<Value>) -> Result<Option<Value>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses an empty word early, with a sentence.
pub fn not_empty(what: &str, word: &str) -> Result<()> {
    if word.is_empty() {
        bail!("{what} must not be empty");
    }
    Ok(())
}
