//! `patch`: changes fields of a resource.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::args;
use super::session::Session;

/// The arguments of `patch`.
#[derive(Debug, clap::Args)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME
    #[arg(required = true)]
    words: Vec<String>,
    /// The patch, as JSON or YAML
    #[arg(short, long)]
    patch: Option<String>,
    /// A file that holds the patch
    #[arg(long)]
    patch_file: Option<String>,
    /// strategic, merge or json
    #[arg(long = "type", default_value = "strategic", value_parser = ["strategic", "merge", "json"])]
    kind: String,
    /// A subresource, such as status or scale
    #[arg(long, default_value = "")]
    subresource: String,
}

/// Runs `patch`.
pub async fn run(session: &Session, args: &PatchArgs) -> Result<()> {
    let (resource, name) = args::one(session, &args.words).await?;
    let text = match (&args.patch, &args.patch_file) {
        (Some(text), None) => text.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?
        }
        _ => bail!("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let patch: Value = serde_saphyr::from_str(&text).context("unable to parse the patch")?;
    let mut path = resource.object(session.namespace(), &name);
    if !args.subresource.is_empty() {
        path = format!("{path}/{}", args.subresource);
    }
    let before = session.get(&path).await?;
    let after = send(session, &path, content_type(&args.kind), &patch).await?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let same = version(&before) == version(&after);
    println!(
        "{} patched{}",
        resource.object_name(&name),
        if same { " (no change)" } else { "" }
    );
    Ok(())
}

fn content_type(kind: &str) -> &'static str {
    match kind {
        "json" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        _ => "application/strategic-merge-patch+json",
    }
}

/// Sends a patch.
pub async fn send(
    session: &Session,
    path: &str,
    content_type: &str,
    patch: &Value,
) -> Result<Value> {
    let request = http::Request::patch(format!("{path}?fieldManager=peapod"))
        .header("Content-Type", content_type)
        .body(serde_json::to_vec(patch)?)?;
    session.request(request).await
}

/// Sends a merge patch.
pub async fn merge(session: &Session, path: &str, patch: &Value) -> Result<Value> {
    send(session, path, "application/merge-patch+json", patch).await
}
