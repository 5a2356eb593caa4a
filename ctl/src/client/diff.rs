//! `diff`: what `apply` would change, found by a dry run on the server.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::args::query;
use super::session::{Session, optional};
use super::{apply, manifests, print};

/// The arguments of `diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Files, folders, or - for standard input
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<String>,
    /// Folders below folders too
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Runs `diff`; the status is 0 without and 1 with differences, as kubectl's.
pub async fn run(session: &Session, args: &DiffArgs) -> Result<u8> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (live, merged) = (folder.path().join("LIVE"), folder.path().join("MERGED"));
    std::fs::create_dir(&live)?;
    std::fs::create_dir(&merged)?;
    for object in manifests::read(&args.filename, args.recursive)? {
        let resource = session.resource_of(&object).await?;
        let path = apply::object_path(session, resource, &object)?;
        let before = optional(session.get(&path).await)?;
        let dry = query(&[
            ("fieldManager", "peapod-apply"),
            ("force", "true"),
            ("dryRun", "All"),
        ]);
        let request = http::Request::patch(format!("{path}{dry}"))
            .header("Content-Type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&object)?)?;
        let after = session.request(request).await?;
        let file = path.trim_start_matches('/').replace('/', ".");
        if let Some(before) = before {
            std::fs::write(live.join(&file), text(before)?)?;
        }
        std::fs::write(merged.join(&file), text(after)?)?;
    }
    let status = Command::new("diff")
        .args(["-u", "-N", "-r"])
        .args([&live, &merged])
        .status()
        .context("cannot run diff; install diffutils")?;
    Ok(status.code().map_or(2, |code| code as u8))
}

fn text(mut object: Value) -> Result<String> {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("resourceVersion");
    }
    print::yaml(&object)
}
