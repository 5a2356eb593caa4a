//! Nodes: are they heard of, what taints follow, and what becomes of their pods.
//!
//! [`health`] judges silence, [`taints`] draws the consequence, [`eviction`] moves pods away.
//! Silence is measured by our own clock, from when a heartbeat was seen to change, so that
//! nodes' clocks do not matter.

pub mod eviction;
pub mod health;
pub mod taints;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use peapod_api::conditions;
use peapod_api::labels::{REGION, ZONE};
use serde_json::json;

use self::health::{Judgement, Readiness};
use self::taints::Zone;
use crate::common::{Key, pods};
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "node_lifecycle";
const COMPONENT: &str = "node-controller";

/// When a node was last heard of.
struct Heartbeat {
    /// The time in its status, by its own clock.
    status: Option<Timestamp>,
    /// When we last saw its status or its Lease change.
    seen: Instant,
}

type Heartbeats = Arc<Mutex<HashMap<String, Heartbeat>>>;

struct Nodes {
    ctx: Context,
    heartbeats: Heartbeats,
}

/// Wires this loop and the eviction of pods.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    eviction::start(ctx, tasks);
    let informers = ctx.informers.clone();
    let heartbeats = Heartbeats::default();
    let heard = heartbeats.clone();
    Loop::new(ctx, NAME)
        .on(&ctx.informers.nodes, move |change| {
            let ready = |node: Option<&Node>| node.map(health::readiness);
            let turned = ready(change.old.as_deref()) != ready(change.new.as_deref());
            // How many are ready decides about the others, too.
            let others = if turned {
                informers.nodes.all()
            } else {
                Vec::new()
            };
            let others = others.into_iter().map(|node| Key::of(&*node));
            others.chain([change.key.clone()]).collect::<Vec<_>>()
        })
        .on(&ctx.informers.leases, move |change| hear(&heard, change))
        .reads(&ctx.informers.pods)
        .run(
            tasks,
            Nodes {
                ctx: ctx.clone(),
                heartbeats,
            },
        );
}

/// Notes a renewal. It wakes nobody: the deadline that was set looks at what is noted.
fn hear(heartbeats: &Heartbeats, change: &Change<Lease>) -> Option<Key> {
    let renewed = |lease: Option<&Lease>| Some(lease?.spec.as_ref()?.renew_time.as_ref()?.0);
    if renewed(change.new.as_deref()) != renewed(change.old.as_deref())
        && let Some(heartbeat) = heartbeats.lock().get_mut(&change.key.name)
    {
        heartbeat.seen = Instant::now();
    }
    None
}

impl Controller for Nodes {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(node) = self.ctx.informers.nodes.get(key) else {
            self.heartbeats.lock().remove(&key.name);
            return Ok(Outcome::Done);
        };
        let (grace, now) = (self.ctx.config.node_grace, Timestamp::now());
        let wake = match health::judge(&node, self.silent_for(key, &node), grace, now) {
            Judgement::Alive(left) => Some(left),
            Judgement::Silent => None,
            Judgement::Lost(conditions) => {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                let note = Note::normal("NodeNotReady", message);
                self.ctx.events.record(COMPONENT, &*node, note);
                let mut new = node.status.clone().unwrap_or_default();
                new.conditions = Some(conditions);
                write::status(&self.ctx, &*node, node.status.as_ref(), &new).await?;
                // The change of the conditions wakes this again, for the rest.
                return Ok(Outcome::Done);
            }
        };
        self.taint(&node, now).await?;
        if health::readiness(&node) == Readiness::Unknown {
            self.unready_pods(&key.name, now).await?;
        }
        // Silent nodes wake us by their next heartbeat's node status.
        Ok(Outcome::maybe(wake))
    }
}

impl Nodes {
    /// How long ago the node was last heard of; one that was never looked at counts from now.
    fn silent_for(&self, key: &Key, node: &Node) -> Duration {
        let ready = conditions::find(health::conditions(node), "Ready");
        let status = ready.and_then(|ready| Some(ready.last_heartbeat_time.as_ref()?.0));
        let mut heartbeats = self.heartbeats.lock();
        match heartbeats.get(&key.name) {
            Some(known) if known.status == status => known.seen.elapsed(),
            _ => {
                let seen = Instant::now();
                heartbeats.insert(key.name.clone(), Heartbeat { status, seen });
                Duration::ZERO
            }
        }
    }

    async fn taint(&self, node: &Node, now: Timestamp) -> Result<()> {
        let old = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let new = taints::wanted(node, self.may_evict(node), now);
        if old.unwrap_or_default() != new {
            let patch = json!({
                "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": new},
            });
            write::patch::<Node>(&self.ctx, &Key::of(node), patch).await?;
        }
        Ok(())
    }

    fn may_evict(&self, node: &Node) -> bool {
        let (mut zone, mut all) = (Zone::default(), Zone::default());
        for other in self.ctx.informers.nodes.all() {
            let readiness = health::readiness(&other);
            all.count(readiness);
            if zone_of(&other) == zone_of(node) {
                zone.count(readiness);
            }
        }
        taints::may_evict(zone, all)
    }

    /// Takes the pods of a silent node out of their services.
    async fn unready_pods(&self, node: &str, now: Timestamp) -> Result<()> {
        for pod in self.ctx.informers.pods.indexed(&term::on_node(node)) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let condition = PodCondition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: Some("NodeNotReady".to_owned()),
                last_transition_time: Some(Time(now)),
                ..Default::default()
            };
            eviction::mark(&self.ctx, &pod, condition, None).await?;
            let note = Note::warning("NodeNotReady", "Node is not ready");
            self.ctx.events.record(COMPONENT, &*pod, note);
        }
        Ok(())
    }
}

fn zone_of(node: &Node) -> (Option<&String>, Option<&String>) {
    let label = |name| {
        node.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(name))
    };
    (label(REGION), label(ZONE))
}
