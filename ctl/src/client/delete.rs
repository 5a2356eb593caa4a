//! `delete`: and waits until the objects are gone.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::args::{self, query};
use super::faults::Faults;
use super::resources::Resource;
use super::session::{Session, optional};
use super::{manifests, wait};

/// The arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all
    #[arg(required_unless_present = "filename")]
    words: Vec<String>,
    /// Manifests that name the objects
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Label selector
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// background, foreground, orphan
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    cascade: String,
    /// Seconds a pod gets to end
    #[arg(long)]
    grace_period: Option<u32>,
    /// End at once, without waiting for the node's word (with --grace-period=0)
    #[arg(long)]
    force: bool,
    /// Do not wait until the objects are gone
    #[arg(long = "wait", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// Same as --grace-period=1
    #[arg(long)]
    now: bool,
    /// It is no error when an object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Longest wait, as 30s
    #[arg(long, default_value = "0s")]
    timeout: String,
}

/// Runs `delete`.
pub async fn run(session: &Session, args: &DeleteArgs) -> Result<()> {
    let mut gone: Vec<(String, String)> = Vec::new();
    let mut faults = Faults::default();
    for (resource, path) in paths(session, args).await? {
        let reply = remove(session, args, &path).await;
        let reply = match args.ignore_not_found || !args.filename.is_empty() {
            true => optional(reply),
            false => reply.map(Some),
        };
        let Some(reply) = faults.note(reply).flatten() else {
            continue;
        };
        println!("{}", told(args, resource, &path));
        let uid = reply["metadata"]["uid"]
            .as_str()
            .or(reply["details"]["uid"].as_str());
        gone.push((path, uid.unwrap_or_default().to_owned()));
    }
    faults.end()?;
    if !args.wait {
        return Ok(());
    }
    let deadline = wait::Deadline::parse(&args.timeout)?;
    for (path, uid) in gone {
        wait::until_gone(session, &path, &uid, &deadline).await?;
    }
    Ok(())
}

/// As kubectl tells of it.
fn told(args: &DeleteArgs, resource: &Resource, path: &str) -> String {
    let mut words = path.rsplit('/');
    let name = words.next().unwrap_or_default();
    let forced = if args.force { " force" } else { "" };
    let namespace = words
        .nth(1)
        .filter(|_| resource.namespaced)
        .map(|namespace| format!(" from {namespace} namespace"))
        .unwrap_or_default();
    let kind = resource.qualified(&resource.singular);
    format!("{kind} \"{name}\"{forced} deleted{namespace}")
}

async fn paths<'a>(session: &'a Session, args: &DeleteArgs) -> Result<Vec<(&'a Resource, String)>> {
    let mut paths = Vec::new();
    if !args.filename.is_empty() {
        for object in manifests::read(&args.filename, false)? {
            let resource = session.resource_of(&object).await?;
            paths.push((
                resource,
                super::apply::object_path(session, resource, &object)?,
            ));
        }
        return Ok(paths);
    }
    for target in args::targets(session, &args.words).await? {
        match &target.name {
            Some(name) => {
                paths.push((
                    target.resource,
                    target.resource.object(session.namespace(), name),
                ));
            }
            None if args.all || !args.selector.is_empty() => {
                let collection = target.resource.collection(Some(session.namespace()));
                let list = session
                    .get(&(collection + &query(&[("labelSelector", &args.selector)])))
                    .await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    paths.push((
                        target.resource,
                        target.resource.object(session.namespace(), name),
                    ));
                }
            }
            None => bail!(
                "resource(s) were provided, but no name was specified; add names, -l SELECTOR or --all"
            ),
        }
    }
    Ok(paths)
}

async fn remove(session: &Session, args: &DeleteArgs, path: &str) -> Result<Value> {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy(&args.cascade)});
    let grace = match (args.grace_period, args.now, args.force) {
        (Some(0), _, false) => Some(1),
        (Some(seconds), _, _) => Some(seconds),
        (None, true, _) => Some(1),
        (None, false, true) => Some(0),
        (None, false, false) => None,
    };
    if let Some(seconds) = grace {
        options["gracePeriodSeconds"] = seconds.into();
    }
    let request = http::Request::delete(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&options)?)?;
    session.request(request).await
}

fn policy(cascade: &str) -> &'static str {
    match cascade {
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        _ => "Background",
    }
}
