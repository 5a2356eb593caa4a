//! `peapod token`: bootstrap tokens, with which machines join.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use peapod_api::bootstrap::{SYSTEM, Token};
use rand::Rng;

use super::{discovery, server_join};
use crate::cli::{DataDir, single_threaded};
use crate::client::server_error;
use crate::instance::Layout;

const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The arguments of `peapod token`.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Make a token
    Create {
        /// How long it holds; 0 for ever
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        ttl: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Print the whole command for the machine that joins
        #[arg(long)]
        print_join_command: bool,
        /// Print the command for a machine that becomes a further server, over the same etcd
        #[arg(long)]
        server: bool,
    },
    /// List the tokens
    #[command(visible_alias = "ls")]
    List,
    /// Delete a token
    #[command(visible_alias = "rm")]
    Delete {
        /// The token, or its ID
        token: String,
    },
}

/// Runs `peapod token`.
pub fn run(args: &TokenArgs) -> Result<()> {
    let layout = Layout::new(&args.data_dir.data_dir)?;
    single_threaded()?.block_on(async {
        let (client, server, ca) = admin(&layout).await?;
        match &args.action {
            Action::Create {
                ttl,
                description,
                print_join_command,
                server: of_server,
            } => {
                let ttl = life(ttl)?;
                let token = create(&client, ttl, description).await?;
                match (of_server, print_join_command) {
                    (true, _) => {
                        let key = server_join::admit(&layout, &client, &token).await?;
                        println!("{}", server_join::command(&server, &token, &ca, &key)?);
                    }
                    (_, true) => println!("{}", join_command(&server, &token, &ca)?),
                    (_, false) => println!("{token}"),
                }
            }
            Action::List => print!("{}", table(&list(&client).await?)),
            Action::Delete { token } => delete(&client, token).await?,
        }
        Ok(())
    })
}

/// A client as the administrator of the server here, the server's URL for nodes, and the CA.
async fn admin(layout: &Layout) -> Result<(Client, String, String)> {
    let path = layout.kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| {
        format!(
            "cannot read {}; run this where `peapod server` runs",
            path.display()
        )
    })?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    let client = Client::try_from(config)?;
    let ca = std::fs::read_to_string(layout.root().join("pki/ca.crt"))
        .context("cannot read the cluster's CA; run this where `peapod server` runs")?;
    let slices: Api<k8s_openapi::api::core::v1::Endpoints> =
        Api::namespaced(client.clone(), "default");
    let endpoints = slices.get("kubernetes").await.map_err(server_error)?;
    let subset = endpoints.subsets.into_iter().flatten().next();
    let reached = subset.and_then(|subset| {
        let ip = subset.addresses?.into_iter().next()?.ip;
        Some((ip, subset.ports?.into_iter().next()?.port))
    });
    let (ip, port) = reached.context("the cluster does not say where its API server is")?;
    let ip: std::net::IpAddr = ip.parse().context("the API server's address")?;
    let address = std::net::SocketAddr::new(ip, u16::try_from(port)?);
    Ok((client, format!("https://{address}"), ca))
}

/// The command for the machine that joins.
pub fn join_command(server: &str, token: &Token, ca_pem: &str) -> Result<String> {
    let pin = discovery::pin_of(ca_pem)?;
    Ok(format!(
        "peapod join {server} --token {token} --ca-cert-hash {pin}"
    ))
}

/// A duration as kubeadm takes it; `None` for ever.
fn life(text: &str) -> Result<Option<SignedDuration>> {
    if text == "0" {
        return Ok(None);
    }
    let parsed: Result<SignedDuration, _> = text.parse();
    match parsed {
        Ok(ttl) if ttl > SignedDuration::ZERO => Ok(Some(ttl)),
        _ => bail!("--ttl must be a duration, as 24h or 30m, or 0, not {text:?}"),
    }
}

/// Makes a token, good to join with from then on.
pub async fn create(
    client: &Client,
    ttl: Option<SignedDuration>,
    description: &str,
) -> Result<Token> {
    let token = random();
    let mut fields = vec![
        ("token-id", token.id.clone()),
        ("token-secret", token.secret.clone()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
    ];
    if let Some(ttl) = ttl {
        let until = Timestamp::now() + ttl;
        fields.push(("expiration", format!("{until:.0}")));
    }
    if !description.is_empty() {
        fields.push(("description", description.to_owned()));
    }
    let fields = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("bootstrap-token-{}", token.id)),
            namespace: Some(SYSTEM.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        string_data: Some(fields.collect()),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let made = secrets.create(&PostParams::default(), &secret).await;
    made.map_err(server_error).context("cannot make a token")?;
    discovery::signed(client, &token).await;
    Ok(token)
}

fn random() -> Token {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let mut text = |length: usize| -> String {
        let letter = |_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]);
        (0..length).map(letter).collect()
    };
    Token {
        id: text(6),
        secret: text(16),
    }
}

async fn list(client: &Client) -> Result<Vec<Secret>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let tokens = ListParams::default().fields(&format!("type={TYPE}"));
    Ok(secrets.list(&tokens).await.map_err(server_error)?.items)
}

fn table(tokens: &[Secret]) -> String {
    let mut lines = vec![format!(
        "{:<24}  {:<22}  {}",
        "TOKEN", "EXPIRES", "DESCRIPTION"
    )];
    for token in tokens {
        let field = |name: &str| {
            let value = token.data.as_ref().and_then(|data| data.get(name));
            value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
        };
        let text = format!(
            "{}.{}",
            field("token-id").unwrap_or_default(),
            field("token-secret").unwrap_or_default()
        );
        let until = field("expiration").unwrap_or_else(|| "never".to_owned());
        let description = field("description").unwrap_or_default();
        lines.push(
            format!("{text:<24}  {until:<22}  {description}")
                .trim_end()
                .to_owned(),
        );
    }
    lines.join("\n") + "\n"
}

async fn delete(client: &Client, token: &str) -> Result<()> {
    let id = token.split('.').next().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let name = format!("bootstrap-token-{id}");
    match secrets.delete(&name, &DeleteParams::default()).await {
        Ok(_) => println!("Deleted {id}; no machine can join with it"),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("there is no token {id}; see `peapod token list`")
        }
        Err(error) => return Err(server_error(error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives() {
        assert_eq!(life("0").unwrap(), None);
        assert_eq!(life("24h").unwrap(), Some(SignedDuration::from_hours(24)));
        assert_eq!(life("90s").unwrap(), Some(SignedDuration::from_secs(90)));
        for wrong in ["", "-1h", "soon"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_made_are_tokens() {
        let made = random();
        assert_eq!(made.to_string().parse(), Ok(made));
    }
}
