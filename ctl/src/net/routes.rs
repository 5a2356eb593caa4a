//! `peapod net routes` and `advertised`: the tables of a BGP speaker, from itself. They are large:
//! the API holds only counts of them (`peapod net peers`, `budget`).

use anyhow::Result;
use clap::Args;
use peapod_router::control::ShownRoute;
use serde::Serialize;

use super::Context;
use super::show::{Cell, Format, Table, Tone, age};
use super::speaker::Speaker;

/// `peapod net routes`.
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// Only what this neighbour has sent, refused routes too
    #[arg(long, value_name = "NEIGHBOR", conflicts_with = "advertised")]
    received: Option<String>,
    /// What this neighbour is told
    #[arg(long, value_name = "NEIGHBOR")]
    advertised: Option<String>,
    /// The node whose routes are shown [default: this machine's]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// `peapod net advertised`.
#[derive(Debug, Args)]
pub struct AdvertisedArgs {
    /// The neighbour: its address or the interface towards it [default: each of them]
    #[arg(value_name = "NEIGHBOR")]
    neighbor: Option<String>,
    /// The node that tells it [default: this machine's]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// Shows those of a router.
pub async fn of_router(speaker: &Speaker<'_>, args: &RoutesArgs, format: Format) -> Result<()> {
    let (received, advertised) = (args.received.clone(), args.advertised.clone());
    let routes = speaker.routes(received, advertised).await?;
    format.print(&routes, || table(&routes))
}

/// Shows those of a node.
pub async fn of_cluster(context: &Context, args: &RoutesArgs) -> Result<()> {
    let speaker = Speaker::of(context, args.node.as_deref())?;
    of_router(&speaker, args, context.format).await
}

/// Shows what a node tells.
pub async fn advertised(context: &Context, args: &AdvertisedArgs) -> Result<()> {
    let speaker = Speaker::of(context, args.node.as_deref())?;
    advertised_by_router(&speaker, args, context.format).await
}

/// What a neighbour is told.
#[derive(Serialize)]
struct Told {
    neighbor: String,
    routes: Vec<ShownRoute>,
}

/// Shows what a router tells a neighbour, or each of them.
pub async fn advertised_by_router(
    speaker: &Speaker<'_>,
    args: &AdvertisedArgs,
    format: Format,
) -> Result<()> {
    let neighbors = match &args.neighbor {
        Some(name) => vec![name.clone()],
        None => {
            let peers = speaker.peers().await?;
            peers.into_iter().map(|shown| shown.peer.name).collect()
        }
    };
    let mut told = Vec::new();
    for neighbor in neighbors {
        let routes = speaker.routes(None, Some(neighbor.clone())).await?;
        told.push(Told { neighbor, routes });
    }
    format.print(&told, || told_table(&told))
}

fn told_table(told: &[Told]) -> Table {
    let mut table = Table::new(&[
        "NEIGHBOR",
        "PREFIX",
        "NEXT HOP",
        "AS PATH",
        "MED",
        "COMMUNITIES",
    ]);
    for one in told {
        for route in &one.routes {
            for path in &route.route.paths {
                table.row(vec![
                    one.neighbor.as_str().into(),
                    route.route.prefix.to_string().into(),
                    path.next_hop.clone().unwrap_or_default().into(),
                    path.as_path.as_str().into(),
                    path.med
                        .map(|med| med.to_string())
                        .unwrap_or_default()
                        .into(),
                    path.communities.join(" ").into(),
                ]);
            }
        }
    }
    table
}

/// A row for each path: `*` is the best, `=` shares the load.
fn table(routes: &[ShownRoute]) -> Table {
    let mut table = Table::new(&[
        "",
        "PREFIX",
        "NEXT HOP",
        "NEIGHBOR",
        "AS PATH",
        "AGE",
        "WHY",
        "+PREF",
        "+MED",
        "+COMMUNITIES",
    ]);
    for shown in routes {
        let route = &shown.route;
        for (nth, path) in route.paths.iter().enumerate() {
            let first = nth == 0;
            let mark = ["*", "=", ""][usize::from(path.choice.rank().min(2))];
            let why = match shown.kernel_error.as_ref().filter(|_| first) {
                Some(error) => {
                    let why = format!("{}; not in the kernel: {error}", path.reason);
                    Cell::toned(why, Tone::Bad)
                }
                None => path.reason.as_str().into(),
            };
            let number = |number: Option<u32>| {
                Cell::from(number.map(|number| number.to_string()).unwrap_or_default())
            };
            let prefix = if first {
                route.prefix.to_string()
            } else {
                String::new()
            };
            table.row(vec![
                mark.into(),
                prefix.into(),
                path.next_hop.clone().unwrap_or_default().into(),
                path.peer.as_str().into(),
                path.as_path.as_str().into(),
                route
                    .since_seconds
                    .map(|since| age(since.into()))
                    .unwrap_or_default()
                    .into(),
                why,
                number(path.local_pref),
                number(path.med),
                path.communities.join(" ").into(),
            ]);
        }
    }
    table
}
