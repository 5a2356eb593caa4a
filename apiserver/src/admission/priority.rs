//! `Priority`: a pod's priority and preemption policy are those of its class.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Plugin, all_true, find};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// The preemption policy of a class that names none.
const PREEMPT: &str = "PreemptLowerPriority";

pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if !write.creates("", "pods") {
            return Ok(());
        }
        let named = value::text(pod, "spec.priorityClassName").to_owned();
        let class = match named.as_str() {
            "" => default_class(api),
            name => match find(api, "scheduling.k8s.io", "priorityclasses", "", name) {
                Some(class) => Some(class),
                None => {
                    return Err(
                        write.forbid(format!("no PriorityClass with name {name} was found"))
                    );
                }
            },
        };
        let priority = class.as_ref().and_then(|c| value::integer(c, "value"));
        let priority = priority.unwrap_or(0);
        match value::integer(pod, "spec.priority") {
            Some(given) if given != priority => {
                return Err(write.forbid(format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
                )));
            }
            _ => value::set(pod, "spec.priority", priority),
        }
        let policy = class
            .as_ref()
            .map_or("", |c| value::text(c, "preemptionPolicy"));
        let policy = if policy.is_empty() { PREEMPT } else { policy };
        value::set_default(pod, "spec.preemptionPolicy", policy);
        if let (true, Some(class)) = (named.is_empty(), &class) {
            let name = value::text(class, "metadata.name");
            value::set(pod, "spec.priorityClassName", name);
        }
        Ok(())
    }
}

/// The class for pods that name none: of those marked as default, the one of the lowest value.
fn default_class(api: &Api) -> Option<Value> {
    let defaults = all_true(api, "scheduling.k8s.io", "priorityclasses", "globalDefault");
    defaults
        .into_iter()
        .min_by_key(|class| value::integer(class, "value").unwrap_or(0))
}
