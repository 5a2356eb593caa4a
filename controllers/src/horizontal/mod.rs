//! HorizontalPodAutoscalers: as many replicas as the load needs. Upstream calls the loop
//! `horizontal-pod-autoscaler`.
//!
//! ```text
//!   sources ──▶ replicas (per metric) ──▶ decide ──▶ target
//!   [figures]   [pure]                    [pure, with rates]   [the scale subresource]
//! ```
//!
//! [`ask`] fetches a metric's figures and has its replicas counted. Load has no watch: each
//! object is looked at every [`PERIOD`], and none costs anything where there is none.

mod ask;
mod decide;
mod rates;
mod replicas;
mod sources;
mod target;

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale as ScaleObject;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;

use self::ask::Ask;
use self::decide::{Conditions, Decision, Fault, Proposal, Scale};
use self::rates::{Memory, Rates};
use self::replicas::Group;
use self::sources::Sources;
use self::target::Target;
use crate::common::Key;
use crate::shell::error::Doing;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "horizontalpodautoscaler";
const COMPONENT: &str = "horizontal-pod-autoscaler";
/// Time between two looks at the load.
const PERIOD: Duration = Duration::from_secs(15);

struct Autoscaler {
    ctx: Context,
    /// What each object's turn did lately; gone with the object.
    memories: Mutex<HashMap<Key, Memory>>,
}

/// Wires the loop; its keys are HorizontalPodAutoscalers.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let wired = Loop::new(ctx, NAME).on(&ctx.informers.autoscalers, |change| {
        // The loop's own writes of the status say nothing new.
        let spec = |side: &Option<std::sync::Arc<HorizontalPodAutoscaler>>| {
            side.as_ref().map(|hpa| hpa.spec.clone())
        };
        (spec(&change.old) != spec(&change.new)).then(|| change.key.clone())
    });
    let memories = Mutex::default();
    wired.run(
        tasks,
        Autoscaler {
            ctx: ctx.clone(),
            memories,
        },
    );
}

impl Controller for Autoscaler {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(hpa) = self.ctx.informers.autoscalers.get(key) else {
            self.memories.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let mut conditions = Conditions::of(&hpa, Timestamp::now());
        let old = hpa.status.as_ref();
        let status = match self.turn(key, &hpa, &mut conditions).await {
            Ok((scale, desired, metrics, rescaled)) => {
                conditions.into_status(&hpa, Some(scale), desired, metrics, rescaled)
            }
            Err(fault) => {
                self.note(&hpa, &fault);
                let desired = old.map_or(0, |old| old.desired_replicas);
                let metrics = old.and_then(|old| old.current_metrics.clone());
                conditions.into_status(&hpa, None, desired, metrics.unwrap_or_default(), false)
            }
        };
        write::status(&self.ctx, &*hpa, old, &status).await?;
        Ok(Outcome::After(PERIOD))
    }
}

impl Autoscaler {
    /// One look at the load, and what follows from it: the scale, the desired replicas, the
    /// metrics, and whether the scale was changed.
    async fn turn(
        &self,
        key: &Key,
        hpa: &HorizontalPodAutoscaler,
        conditions: &mut Conditions,
    ) -> Result<(Scale, i32, Vec<MetricStatus>, bool), Fault> {
        let (target, object) = self.target(key, hpa, conditions).await?;
        let scale = Scale {
            wanted: object
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(0),
            there: object.status.as_ref().map_or(0, |status| status.replicas),
        };
        let proposals = match scale.wanted {
            0 => Vec::new(),
            _ => self.proposals(key, hpa, scale, &object, conditions).await?,
        };
        let mut memory = self.memories.lock().get(key).cloned().unwrap_or_default();
        let decision = decide::decide(hpa, scale, &proposals, &mut memory, conditions);
        if let Some(fault) = &decision.fault {
            self.note(hpa, fault);
        }
        let rescales = decision.desired != scale.wanted;
        if rescales {
            self.rescale(hpa, &target, &object, &decision, conditions)
                .await?;
            memory.changed(decision.desired - scale.wanted, Timestamp::now());
        }
        self.memories.lock().insert(key.clone(), memory);
        let metrics = proposals
            .into_iter()
            .flatten()
            .map(|proposal| proposal.status);
        Ok((scale, decision.desired, metrics.collect(), rescales))
    }

    async fn target(
        &self,
        key: &Key,
        hpa: &HorizontalPodAutoscaler,
        conditions: &mut Conditions,
    ) -> Result<(Target, ScaleObject), Fault> {
        let named = &hpa.spec.scale_target_ref;
        let version = named.api_version.as_deref().unwrap_or("v1");
        let names = (version, named.kind.as_str(), named.name.as_str());
        let found = async {
            let target = Target::find(&self.ctx.client, &key.namespace, names).await?;
            let object = target.scale().await?;
            Ok((target, object))
        };
        let found: Result<_, String> = found.await;
        match found {
            Ok(found) => {
                let message = "the HPA controller was able to get the target's current scale";
                conditions.set("AbleToScale", true, "SucceededGetScale", message);
                Ok(found)
            }
            Err(error) => {
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {error}"
                );
                conditions.set("AbleToScale", false, "FailedGetScale", &*message);
                Err(Fault {
                    reason: "FailedGetScale",
                    message: error,
                })
            }
        }
    }

    async fn proposals(
        &self,
        key: &Key,
        hpa: &HorizontalPodAutoscaler,
        scale: Scale,
        object: &ScaleObject,
        conditions: &mut Conditions,
    ) -> Result<Vec<Result<Proposal, Fault>>, Fault> {
        let status = object.status.as_ref();
        let selector = status
            .and_then(|status| status.selector.as_deref())
            .unwrap_or_default();
        let faulty = |conditions: &mut Conditions, message: String| {
            let why = format!("the HPA target's scale is missing a selector: {message}");
            conditions.set("ScalingActive", false, "InvalidSelector", why);
            Fault {
                reason: "SelectorRequired",
                message,
            }
        };
        if selector.is_empty() {
            return Err(faulty(conditions, "selector is required".to_owned()));
        }
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let pods = api.list(&ListParams::default().labels(selector)).await;
        let pods = pods.doing(|| format!("list the pods of {key}"));
        let pods = pods
            .map_err(|error| faulty(conditions, error.to_string()))?
            .items;
        let ask = Ask {
            sources: Sources {
                client: &self.ctx.client,
                namespace: &key.namespace,
            },
            group: Group {
                current: scale.wanted,
                pods: &pods,
                resource: None,
                container: None,
                tolerance: Rates::of(hpa.spec.behavior.as_ref()).tolerance(),
                now: Timestamp::now(),
            },
            scale,
            selector,
        };
        let metrics = hpa.spec.metrics.iter().flatten();
        Ok(futures::future::join_all(metrics.map(|metric| ask.metric(metric))).await)
    }

    async fn rescale(
        &self,
        hpa: &HorizontalPodAutoscaler,
        target: &Target,
        seen: &ScaleObject,
        decision: &Decision,
        conditions: &mut Conditions,
    ) -> Result<(), Fault> {
        let Decision {
            desired, reason, ..
        } = decision;
        if let Err(error) = target.set(seen, *desired).await {
            let message =
                format!("the HPA controller was unable to update the target scale: {error}");
            conditions.set("AbleToScale", false, "FailedUpdateScale", message);
            let message = format!("New size: {desired}; reason: {reason}; error: {error}");
            return Err(Fault {
                reason: "FailedRescale",
                message,
            });
        }
        let message =
            format!("the HPA controller was able to update the target scale to {desired}");
        conditions.set("AbleToScale", true, "SucceededRescale", message);
        let message = format!("New size: {desired}; reason: {reason}");
        self.ctx
            .events
            .record(COMPONENT, hpa, Note::normal("SuccessfulRescale", message));
        Ok(())
    }

    fn note(&self, hpa: &HorizontalPodAutoscaler, fault: &Fault) {
        let note = Note::warning(fault.reason, fault.message.clone());
        self.ctx.events.record(COMPONENT, hpa, note);
    }
}
