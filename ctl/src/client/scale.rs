//! `scale`: sets the number of replicas.

use anyhow::{Result, bail};
use serde_json::json;

use super::session::Session;
use super::{args, patch};

/// The arguments of `scale`.
#[derive(Debug, clap::Args)]
pub struct ScaleArgs {
    /// TYPE NAME or TYPE/NAME
    #[arg(required = true)]
    words: Vec<String>,
    /// The new number
    #[arg(long)]
    replicas: u32,
    /// Only when this is the present number
    #[arg(long)]
    current_replicas: Option<i64>,
}

/// Runs `scale`.
pub async fn run(session: &Session, args: &ScaleArgs) -> Result<()> {
    for target in args::targets(session, &args.words).await? {
        let Some(name) = &target.name else {
            bail!("name what to scale: TYPE/NAME")
        };
        let path = target.resource.object(session.namespace(), name) + "/scale";
        if let Some(expected) = args.current_replicas {
            let now = session.get(&path).await?["spec"]["replicas"]
                .as_i64()
                .unwrap_or_default();
            if now != expected {
                bail!("Expected replicas to be {expected}, was {now}");
            }
        }
        patch::merge(
            session,
            &path,
            &json!({"spec": {"replicas": args.replicas}}),
        )
        .await?;
        println!("{} scaled", target.resource.object_name(name));
    }
    Ok(())
}
