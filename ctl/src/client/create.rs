//! `create`: from manifests, and the kinds that people make by hand: namespace, configmap,
//! secret, deployment, serviceaccount, token.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::manifests;
use super::session::Session;

/// The arguments of `create`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    /// Files, folders, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    #[command(subcommand)]
    kind: Option<Kind>,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace {
        /// Its name
        name: String,
    },
    /// A config map
    #[command(visible_alias = "cm")]
    Configmap {
        /// Its name
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// A secret of type Opaque
    Secret {
        /// Its name
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// A deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        /// Its name
        name: String,
        /// Image of its container
        #[arg(long)]
        image: String,
        /// Number of pods
        #[arg(long, default_value_t = 1)]
        replicas: i32,
        /// Port that the container listens on
        #[arg(long)]
        port: Option<u16>,
        /// Command of the container
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A service account
    #[command(visible_alias = "sa")]
    Serviceaccount {
        /// Its name
        name: String,
    },
    /// A token of a service account
    Token {
        /// Name of the service account
        name: String,
        /// Lifetime in seconds
        #[arg(long, default_value_t = 3600)]
        expiration_seconds: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Data {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// FILE, or KEY=FILE
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
}

/// Runs `create`.
pub async fn run(session: &Session, args: &CreateArgs) -> Result<()> {
    let objects = match &args.kind {
        None if args.filename.is_empty() => bail!("say what: -f FILE, or a kind and a name"),
        None => manifests::read(&args.filename, false)?,
        Some(Kind::Token {
            name,
            expiration_seconds,
        }) => {
            return token(session, name, *expiration_seconds).await;
        }
        Some(kind) => vec![kind.object()?],
    };
    for object in objects {
        let resource = session.resource_of(&object).await?;
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or(session.namespace());
        let request = http::Request::post(
            resource.collection(Some(namespace))
                + "?fieldManager=peapod-create&fieldValidation=Strict",
        )
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&object)?)?;
        let made = session.request(request).await?;
        let name = made["metadata"]["name"].as_str().unwrap_or_default();
        println!("{} created", resource.object_name(name));
    }
    Ok(())
}

async fn token(session: &Session, name: &str, seconds: u64) -> Result<()> {
    let accounts = session.resource("serviceaccounts").await?;
    let path = accounts.object(session.namespace(), name) + "/token";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}});
    let request = http::Request::post(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&body)?)?;
    let reply = session.request(request).await?;
    println!("{}", reply["status"]["token"].as_str().unwrap_or_default());
    Ok(())
}

impl Kind {
    fn object(&self) -> Result<Value> {
        let simple = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        Ok(match self {
            Self::Namespace { name } => simple("Namespace", name),
            Self::Serviceaccount { name } | Self::Token { name, .. } => {
                simple("ServiceAccount", name)
            }
            Self::Configmap { name, data } => {
                let mut object = simple("ConfigMap", name);
                for (key, bytes) in data.read()? {
                    match String::from_utf8(bytes) {
                        Ok(text) => object["data"][key] = text.into(),
                        Err(error) => {
                            object["binaryData"][key] =
                                BASE64_STANDARD.encode(error.as_bytes()).into();
                        }
                    }
                }
                object
            }
            Self::Secret { name, data } => {
                let mut object = simple("Secret", name);
                let encoded = data.read()?.into_iter();
                object["data"] = encoded
                    .map(|(key, bytes)| (key, Value::from(BASE64_STANDARD.encode(bytes))))
                    .collect::<Map<_, _>>()
                    .into();
                object
            }
            Self::Deployment {
                name,
                image,
                replicas,
                port,
                command,
            } => deployment(name, image, *replicas, *port, command),
        })
    }
}

fn deployment(
    name: &str,
    image: &str,
    replicas: i32,
    port: Option<u16>,
    command: &[String],
) -> Value {
    let base = image.rsplit('/').next().unwrap_or(image);
    let container = base.split([':', '@']).next().unwrap_or(base);
    let mut container = json!({"name": container, "image": image});
    if !command.is_empty() {
        container["command"] = command.into();
    }
    if let Some(port) = port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    })
}

impl Data {
    fn read(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut pairs = Vec::new();
        for literal in &self.from_literal {
            let Some((key, value)) = literal.split_once('=') else {
                bail!("--from-literal must be KEY=VALUE, not {literal:?}");
            };
            pairs.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        for file in &self.from_file {
            let (key, path) = match file.split_once('=') {
                Some((key, path)) => (key.to_owned(), path),
                None => {
                    let name = Path::new(file)
                        .file_name()
                        .map(|n| n.to_string_lossy().into_owned());
                    (
                        name.with_context(|| format!("{file} names no file"))?,
                        file.as_str(),
                    )
                }
            };
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
            pairs.push((key, bytes));
        }
        Ok(pairs)
    }
}
