//! `peapod net drain NODE [--undo]`: a node leaves the cluster without a connection being lost.
//!
//! It goes in steps, each when the one before has taken hold: no pod is placed there any more;
//! the other nodes are ready to hand over what is the node's; leaves prefer other nodes; clients'
//! connections end; services are withdrawn; pods are evicted; their addresses are withdrawn.
//! What the node has been told stands in its annotation, what it tells its neighbours in the
//! `BgpNode` of its name: a drain that was broken off can be begun again at any point.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt};
use peapod_api::k8s_openapi;
use peapod_api::labels::{DRAIN, DRAIN_ALL, DRAIN_GRACEFUL, DRAIN_HANDOVER, DRAIN_SERVICES};
use peapod_api::net::BgpNode;
use serde::Serialize;
use serde_json::json;

use super::Context;
use super::evict::{self, Evicted};
use super::show::Table;

/// A node does what it is told within this time, or it is not there.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long others may take to be ready.
const OTHERS: Duration = Duration::from_secs(10);

/// `peapod net drain`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct DrainArgs {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// Takes it all back: the node announces as ever, and pods may be placed there
    #[arg(long)]
    undo: bool,
    /// How long to wait for clients' connections to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// How long to wait for pods to end
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Evict pods that no controller will make anew, too
    #[arg(long)]
    force: bool,
    /// Evict pods with emptyDir volumes, whose data is lost
    #[arg(long = "delete-emptydir-data")]
    delete_emptydir_data: bool,
}

const HELP: &str = "\
The steps: cordon; others are readied; routes with the community GRACEFUL_SHUTDOWN
(RFC 8326) and a longer AS path; clients' connections end; services are withdrawn;
pods are evicted (those of DaemonSets stay); their addresses are withdrawn.

From the third step on leaves lead all packets to other nodes. What belongs to TCP
connections that the node began is handed back to it, so none is cut off before
--wait is over. Which flows of OTHER nodes a leaf moves when the choice among nodes
gets smaller, or larger again with --undo, depends on its resilient hashing.

`kubectl cordon` changes nothing of what is announced. `kubectl drain` evicts, and
endpoints go one by one: a service of which the node had the last is withdrawn
before that one ends, but connections that came by this node are not waited for.";

/// What was done, for programs.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    node: String,
    /// The last step that was taken; none after `--undo`.
    step: Option<&'static str>,
    /// Whether the node speaks BGP: else there was nothing to withdraw.
    on_fabric: bool,
    /// Nodes that were not ready in time to hand over what is the node's.
    unready: Vec<String>,
    /// Seconds waited for connections.
    waited_seconds: u64,
    /// Connections that were longer than the wait.
    cut_off: u32,
    /// Pods that were evicted, as `namespace/name`.
    evicted: Vec<String>,
    /// Pods that stay: of DaemonSets, and static ones.
    stays: Vec<String>,
}

/// Drains a node, or takes that back.
pub async fn run(context: &Context, args: &DrainArgs) -> Result<()> {
    let drain = Drain {
        args,
        nodes: Api::all(context.session.client()),
        speakers: Api::all(context.session.client()),
        quiet: !context.format.is_table(),
    };
    let outcome = match args.undo {
        true => drain.undo().await?,
        false => drain.all_steps(context).await?,
    };
    match context.format.is_table() {
        true => Ok(()),
        false => context.format.print(&outcome, Table::default),
    }
}

struct Drain<'a> {
    args: &'a DrainArgs,
    nodes: Api<Node>,
    speakers: Api<BgpNode>,
    quiet: bool,
}

// === impl Drain ===

impl Drain<'_> {
    async fn all_steps(&self, context: &Context) -> Result<Outcome> {
        let name = &self.args.node;
        self.nodes
            .get(name)
            .await
            .map_err(crate::client::server_error)?;
        let options = evict::Options {
            force: self.args.force,
            delete_emptydir_data: self.args.delete_emptydir_data,
            timeout: Duration::from_secs(self.args.timeout),
        };
        let client = context.session.client();
        // Nothing is begun that could not be ended.
        let plan = evict::plan(&client, name, &options).await?;
        let mut outcome = Outcome {
            node: name.clone(),
            on_fabric: self.on_fabric().await?,
            ..Outcome::default()
        };
        self.patch(json!({"spec": {"unschedulable": true}})).await?;
        self.say("cordoned: no pod is placed there any more");
        match outcome.on_fabric {
            true => self.leave(&mut outcome).await?,
            false => self.say("it speaks no BGP: nothing is to be withdrawn"),
        }
        let Evicted { evicted, stays } =
            evict::run(&client, plan, &options, |line| self.say(line)).await?;
        (outcome.evicted, outcome.stays) = (evicted, stays);
        if outcome.on_fabric {
            self.step(DRAIN_ALL, &mut outcome).await?;
            self.say("its pods' addresses are withdrawn");
        }
        self.say(&format!(
            "drained; `peapod net drain {name} --undo` takes it back"
        ));
        Ok(outcome)
    }

    /// The fabric leads clients elsewhere.
    async fn leave(&self, outcome: &mut Outcome) -> Result<()> {
        self.step(DRAIN_HANDOVER, outcome).await?;
        outcome.unready = self.others().await?;
        match outcome.unready.is_empty() {
            true => self.say("the other nodes are ready to hand over what is its"),
            false => self.say(&format!(
                "warning: not ready to hand over, their flows will break: {}",
                outcome.unready.join(", ")
            )),
        }
        self.step(DRAIN_GRACEFUL, outcome).await?;
        self.say("leaves are asked to prefer others (graceful-shutdown, longer AS path)");
        self.connections(outcome).await?;
        self.step(DRAIN_SERVICES, outcome).await?;
        self.say("services are withdrawn");
        Ok(())
    }

    async fn undo(&self) -> Result<Outcome> {
        let name = &self.args.node;
        let patch =
            json!({"spec": {"unschedulable": null}, "metadata": {"annotations": {DRAIN: null}}});
        self.patch(patch).await?;
        let on_fabric = self.on_fabric().await?;
        if on_fabric {
            self.until("to announce as ever", |node: Option<&BgpNode>| {
                status(node).is_some_and(|status| status.drain.is_none())
            })
            .await?;
            self.say("it announces as ever");
        }
        self.say("uncordoned: pods may be placed there");
        Ok(Outcome {
            node: name.clone(),
            on_fabric,
            ..Outcome::default()
        })
    }

    async fn patch(&self, patch: serde_json::Value) -> Result<()> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.nodes.patch(&self.args.node, &params, &patch).await;
        patched.map(drop).map_err(crate::client::server_error)
    }

    /// Whether the node has neighbours to tell.
    async fn on_fabric(&self) -> Result<bool> {
        let found = self.speakers.get_opt(&self.args.node).await;
        let found = found.map_err(crate::client::server_error)?;
        Ok(speaks(found.as_ref()))
    }

    /// Tells the node how far to go, and waits until it went.
    async fn step(&self, step: &'static str, outcome: &mut Outcome) -> Result<()> {
        self.patch(json!({"metadata": {"annotations": {DRAIN: step}}}))
            .await?;
        self.until(
            &format!("to take the step {step:?}"),
            |node: Option<&BgpNode>| drained(node).is_some_and(|drain| drain.step == step),
        )
        .await?;
        outcome.step = Some(step);
        Ok(())
    }

    async fn until(&self, what: &str, condition: impl Condition<BgpNode>) -> Result<()> {
        let name = &self.args.node;
        let waiting = await_condition(self.speakers.clone(), name, condition);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(outcome) => outcome.map(drop).context("cannot watch the node's BgpNode"),
            Err(_) => bail!(
                "node {name} was told {what}, and has not within {} s; does its network agent run? \
                 (peapod net peers; `peapod net drain {name} --undo` takes it back)",
                PATIENCE.as_secs()
            ),
        }
    }

    /// Waits for the other nodes; those that are not ready in time.
    async fn others(&self) -> Result<Vec<String>> {
        let all = self.speakers.list(&Default::default()).await;
        let all = all.map_err(crate::client::server_error)?;
        // One that leaves itself may be the last, which hands over to nobody.
        let others = all
            .items
            .iter()
            .filter(|node| node.name_any() != self.args.node && speaks(Some(node)))
            .filter(|node| drained(Some(node)).is_none());
        let ready = |node: Option<&BgpNode>| {
            node.is_none() || status(node).is_some_and(|status| status.hands_over_to.is_some())
        };
        let until = Instant::now() + OTHERS;
        let mut unready = Vec::new();
        for node in others {
            let name = node.name_any();
            let waiting = await_condition(self.speakers.clone(), &name, ready);
            if tokio::time::timeout_at(until.into(), waiting)
                .await
                .is_err()
            {
                unready.push(name);
            }
        }
        Ok(unready)
    }

    /// Waits for clients' connections to end.
    async fn connections(&self, outcome: &mut Outcome) -> Result<()> {
        let begun = Instant::now();
        let wait = Duration::from_secs(self.args.wait);
        let mut told = None;
        let mut last = 0;
        loop {
            let before = told;
            let changed = move |node: Option<&BgpNode>| {
                let now = drained(node).map(|drain| drain.connections);
                now.is_none() || now != before
            };
            let waiting = await_condition(self.speakers.clone(), &self.args.node, changed);
            let left = wait.saturating_sub(begun.elapsed());
            let Ok(found) = tokio::time::timeout(left, waiting).await else {
                break;
            };
            let found = found.context("cannot watch the node's BgpNode")?;
            let Some(drain) = drained(found.as_ref()) else {
                bail!("somebody else takes the drain of {} back", self.args.node);
            };
            (told, last) = (Some(drain.connections), drain.connections);
            let (spent, most) = (begun.elapsed().as_secs(), wait.as_secs());
            self.say(&format!(
                "{last} connections of clients go through it ({spent} of {most} s)"
            ));
            if last == 0 {
                break;
            }
        }
        outcome.waited_seconds = begun.elapsed().as_secs();
        outcome.cut_off = last;
        if last > 0 {
            self.say(&format!(
                "{last} connections are longer than {} s: they go on while its routes and their \
                 pods do",
                wait.as_secs()
            ));
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{}: {line}", self.args.node);
        }
    }
}

fn status(node: Option<&BgpNode>) -> Option<&peapod_api::net::BgpNodeStatus> {
    node?.status.as_ref()
}

fn drained(node: Option<&BgpNode>) -> Option<&peapod_api::net::BgpDrain> {
    status(node)?.drain.as_ref()
}

/// It has an AS, and neighbours that are to hear from it.
fn speaks(node: Option<&BgpNode>) -> bool {
    status(node).is_some_and(|status| status.asn.is_some() && !status.sessions.is_empty())
}
