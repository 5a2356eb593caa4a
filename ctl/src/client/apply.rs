//! `apply`: server-side apply of manifests.

use anyhow::Result;
use serde_json::Value;

use super::args::query;
use super::faults::Faults;
use super::resources::Resource;
use super::session::{Session, optional};
use super::{manifests, print};

/// The arguments of `apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// Files, folders, or - for standard input
    #[arg(short, long, required = true, value_name = "FILE")]
    filename: Vec<String>,
    /// Folders below folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Stop at fields that another manager owns instead of taking them over
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take conflicting fields over
    #[arg(long)]
    force_conflicts: bool,
    /// Name under which the fields are owned
    #[arg(long, default_value = "peapod-apply")]
    field_manager: String,
    /// none, server
    #[arg(long, default_value = "none", value_parser = ["none", "server"])]
    dry_run: String,
    /// How unknown and duplicate fields are met: strict, warn, ignore
    #[arg(long, default_value = "strict")]
    validate: String,
    /// json, yaml, name
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// Runs `apply`.
pub async fn run(session: &Session, args: &ApplyArgs) -> Result<()> {
    let format = print::Format::parse(args.output.as_deref())?;
    let mut faults = Faults::default();
    for object in manifests::read(&args.filename, args.recursive)? {
        faults.note(apply(session, args, &format, &object).await);
    }
    faults.end()
}

async fn apply(
    session: &Session,
    args: &ApplyArgs,
    format: &print::Format,
    object: &Value,
) -> Result<()> {
    let resource = session.resource_of(object).await?;
    let path = object_path(session, resource, object)?;
    let before = optional(session.get(&path).await)?;
    let after = send(session, args, &path, object).await?;
    if args.output.is_some() {
        print!("{}", print::render(format, after, resource)?);
        return Ok(());
    }
    let name = after["metadata"]["name"].as_str().unwrap_or_default();
    let dry = if args.dry_run == "server" {
        " (server dry run)"
    } else {
        ""
    };
    println!(
        "{} {}{dry}",
        resource.object_name(name),
        outcome(args, before.as_ref(), &after)
    );
    Ok(())
}

/// The path of a manifest's object.
pub fn object_path(session: &Session, resource: &Resource, object: &Value) -> Result<String> {
    let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let namespace = match metadata("namespace") {
        "" => session.namespace(),
        namespace => namespace,
    };
    super::session::not_empty(
        &format!("metadata.name of a {}", resource.kind),
        metadata("name"),
    )?;
    Ok(resource.object(namespace, metadata("name")))
}

async fn send(session: &Session, args: &ApplyArgs, path: &str, object: &Value) -> Result<Value> {
    let force = !args.server_side || args.force_conflicts;
    let mut validation = args.validate.clone();
    validation[..1].make_ascii_uppercase();
    let pairs = [
        ("fieldManager", args.field_manager.as_str()),
        ("force", if force { "true" } else { "false" }),
        ("fieldValidation", &validation),
        ("dryRun", if args.dry_run == "server" { "All" } else { "" }),
    ];
    let request = http::Request::patch(format!("{path}{}", query(&pairs)))
        .header("Content-Type", "application/apply-patch+yaml")
        .header("Accept", "application/json")
        .body(serde_json::to_vec(object)?)?;
    session.request(request).await
}

fn outcome(args: &ApplyArgs, before: Option<&Value>, after: &Value) -> &'static str {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    match before {
        _ if args.server_side => "serverside-applied",
        None => "created",
        Some(before) if version(before) == version(after) => "unchanged",
        Some(_) => "configured",
    }
}
