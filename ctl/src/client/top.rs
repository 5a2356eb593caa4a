//! `top`: what nodes and pods use, from `metrics.k8s.io`.

use anyhow::{Context, Result};
use peapod_api::quantity::Quantity;
use serde_json::Value;

use super::print::align;
use super::session::Session;

/// The arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Of nodes
    #[command(visible_aliases = ["nodes", "no"])]
    Node,
    /// Of pods
    #[command(visible_aliases = ["pods", "po"])]
    Pod {
        /// Every namespace
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
}

/// Runs `top`.
pub async fn run(session: &Session, args: &TopArgs) -> Result<()> {
    let base = "/apis/metrics.k8s.io/v1beta1";
    let (path, namespaces) = match &args.what {
        What::Node => (format!("{base}/nodes"), false),
        What::Pod {
            all_namespaces: true,
        } => (format!("{base}/pods"), true),
        What::Pod {
            all_namespaces: false,
        } => (
            format!("{base}/namespaces/{}/pods", session.namespace()),
            false,
        ),
    };
    let list = session
        .get(&path)
        .await
        .context("Metrics API not available")?;
    let mut header = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut lines = vec![header.into_iter().map(str::to_owned).collect()];
    for item in list["items"].as_array().into_iter().flatten() {
        let (cpu, memory) = usage(item);
        let text = |field: &str| {
            item["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut line = vec![text("name"), format!("{cpu}m"), format!("{memory}Mi")];
        if namespaces {
            line.insert(0, text("namespace"));
        }
        lines.push(line);
    }
    print!("{}", align(&lines));
    Ok(())
}

/// Thousandths of a core and mebibytes, of a node or of all containers of a pod.
fn usage(item: &Value) -> (i64, i64) {
    let containers = item["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| &c["usage"]);
    let all = containers.chain(item.get("usage"));
    let read = |usage: &Value, name: &str| {
        usage[name]
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok())
    };
    all.fold((0, 0), |(cpu, memory), usage| {
        let more_cpu = read(usage, "cpu").map_or(0, Quantity::milli);
        let more_memory = read(usage, "memory").map_or(0, |q| q.units() / (1024 * 1024));
        (cpu + more_cpu, memory + more_memory)
    })
}
