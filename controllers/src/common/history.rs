//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had, numbered. Pure.
//!
//! A revision's data is a patch that puts its template back, which is what `kubectl rollout
//! undo` sends.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::{merge, owner};
use crate::deployment::template;

/// Pods and revisions: which revision.
pub const REVISION_HASH: &str = "controller-revision-hash";
/// Revisions: the hash of their template.
const HASH: &str = "controller.kubernetes.io/hash";

/// What makes the present template the newest revision.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// It is.
    Is(Arc<ControllerRevision>),
    /// An older revision is the same; it gets this number.
    Again(Arc<ControllerRevision>, i64),
    /// There is none yet.
    New(Box<ControllerRevision>),
}

/// Decides for the template of `owner`, of whose revisions `history` has all.
pub fn next<O: Resource<DynamicType = ()>>(
    owner: &O,
    present: &PodTemplateSpec,
    collisions: i32,
    history: &[Arc<ControllerRevision>],
) -> Next {
    let newest = history.iter().map(|one| number(one)).max().unwrap_or(0);
    let same = history
        .iter()
        .filter(|one| template_of(one).is_some_and(|old| template::same(&old, present)))
        .max_by_key(|one| number(one));
    match same {
        Some(same) if number(same) == newest => Next::Is(same.clone()),
        Some(same) => Next::Again(same.clone(), newest + 1),
        None => Next::New(Box::new(new(owner, present, collisions, newest + 1))),
    }
}

fn new<O: Resource<DynamicType = ()>>(
    owner: &O,
    present: &PodTemplateSpec,
    collisions: i32,
    number: i64,
) -> ControllerRevision {
    let hash = template::hash(present, collisions);
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let labels = present
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: change_cause(owner.meta()),
            owner_references: Some(vec![owner::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data(present)),
        revision: Some(number),
    }
}

/// What `kubectl rollout history` shows.
fn change_cause(meta: &ObjectMeta) -> Option<std::collections::BTreeMap<String, String>> {
    const CAUSE: &str = "kubernetes.io/change-cause";
    let cause = meta.annotations.as_ref()?.get(CAUSE)?;
    Some([(CAUSE.to_owned(), cause.clone())].into())
}

fn data(present: &PodTemplateSpec) -> Value {
    let mut template = merge::to_value(present);
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The number of a revision.
pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// The name of a revision.
pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The value of [`REVISION_HASH`] on a revision.
pub fn hash(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    let hash = labels.and_then(|labels| labels.get(REVISION_HASH));
    hash.map(String::as_str).unwrap_or_default()
}

/// The revisions to forget, oldest first: of those not in use all but the `limit` newest.
pub fn surplus(
    history: &[Arc<ControllerRevision>],
    is_used: impl Fn(&ControllerRevision) -> bool,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let mut unused: Vec<_> = history
        .iter()
        .filter(|one| !is_used(one))
        .cloned()
        .collect();
    unused.sort_by_key(|one| number(one));
    let kept = usize::try_from(limit).unwrap_or(0);
    unused.truncate(unused.len().saturating_sub(kept));
    unused
}

/// The revisions that pods carry in [`REVISION_HASH`].
pub fn carried<'a>(
    pods: impl IntoIterator<Item = &'a Arc<k8s_openapi::api::core::v1::Pod>>,
) -> BTreeSet<&'a str> {
    pods.into_iter().filter_map(|pod| carried_by(pod)).collect()
}

/// The revision that a pod carries.
pub fn carried_by(pod: &k8s_openapi::api::core::v1::Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    labels.get(REVISION_HASH).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSet;

    fn template(image: &str) -> PodTemplateSpec {
        let text = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        serde_json::from_value(text).unwrap()
    }

    fn made(next: Next) -> Arc<ControllerRevision> {
        match next {
            Next::New(revision) => Arc::from(revision),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn templates_are_numbered_and_found_again() {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("web".into());
        let first = made(next(&set, &template("a"), 0, &[]));
        assert_eq!(
            (number(&first), template_of(&first)),
            (1, Some(template("a")))
        );
        let second = made(next(&set, &template("b"), 0, std::slice::from_ref(&first)));
        assert_eq!(number(&second), 2);
        assert_ne!(name(&first), name(&second));
        let history = [first.clone(), second.clone()];
        assert_eq!(
            next(&set, &template("b"), 0, &history),
            Next::Is(second.clone())
        );
        let again = next(&set, &template("a"), 0, &history);
        assert_eq!(again, Next::Again(first.clone(), 3));
        assert_eq!(surplus(&history, |_| false, 1), vec![first.clone()]);
        assert_eq!(
            surplus(&history, |one| name(one) == name(&first), 1),
            vec![]
        );
    }
}
