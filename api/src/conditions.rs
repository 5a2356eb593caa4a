//! Conditions of a status: found by type, changed with their transition time kept true.

use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::{NamespaceCondition, NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the condition types of the API have in common.
pub trait Condition {
    /// `type`
    fn kind(&self) -> &str;
    /// `status`: `True`, `False` or `Unknown`
    fn status(&self) -> &str;
    /// `lastTransitionTime`
    fn transition(&mut self) -> &mut Option<Time>;
}

/// A required string of the wire is optional in some of the generated types.
trait Text {
    fn text(&self) -> &str;
}
impl Text for String {
    fn text(&self) -> &str {
        self
    }
}
impl Text for Option<String> {
    fn text(&self) -> &str {
        self.as_deref().unwrap_or_default()
    }
}

macro_rules! condition {
    ($($name:ty),*) => {$(
        impl Condition for $name {
            fn kind(&self) -> &str {
                self.type_.text()
            }
            fn status(&self) -> &str {
                self.status.text()
            }
            fn transition(&mut self) -> &mut Option<Time> {
                &mut self.last_transition_time
            }
        }
    )*};
}

condition!(
    PodCondition,
    NodeCondition,
    NamespaceCondition,
    DeploymentCondition
);

/// The condition of a type.
pub fn find<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.kind() == kind)
}

/// Whether the condition of a type is there and `True`.
pub fn is_true<C: Condition>(conditions: &[C], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == "True")
}

/// Puts a condition in its place; its transition time stays what it was unless its status
/// changes.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut new: C) {
    match conditions.iter_mut().find(|old| old.kind() == new.kind()) {
        Some(old) => {
            if old.status() == new.status() {
                let kept = old.transition().take();
                if kept.is_some() {
                    *new.transition() = kept;
                }
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
