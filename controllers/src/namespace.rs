//! Namespaces that are being deleted: first their pods, then all else, then themselves.
//!
//! The core is [`Report`]: what is left, as conditions. What is left is asked of the API, kind
//! by kind as discovered, so that kinds unknown to us go too. The garbage collector sees every
//! deletion and wakes this loop for the next look.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta};
use kube::discovery::verbs;
use peapod_api::conditions;

use crate::common::Key;
use crate::shell::discovery::{Discovered, discover};
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Error, Loop, Outcome, Queue, Result, Tasks, write};

const NAME: &str = "namespace";
/// The finalizer in `spec.finalizers` that is ours to remove.
const FINALIZER: &str = "kubernetes";
/// Kinds that are emptied at the same time.
const PARALLEL: usize = 8;
/// Objects of one page of a look.
const PAGE: u32 = 500;
/// Looks again after this though no deletion was seen: some kinds cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(15);

struct Namespaces(Context);

/// Wires the loop; the queue is for whoever sees objects go.
pub fn start(ctx: &Context, tasks: &mut Tasks) -> Queue {
    let wired = Loop::new(ctx, NAME).on_self(&ctx.informers.namespaces);
    let queue = wired.queue();
    wired.run(tasks, Namespaces(ctx.clone()));
    queue
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Report {
    /// Objects by `resource.group`.
    remaining: BTreeMap<String, usize>,
    /// How many objects have each finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Kinds that could not be emptied, and why.
    failures: Vec<String>,
}

impl Report {
    fn add<'a>(&mut self, kind: &Discovered, left: impl Iterator<Item = &'a ObjectMeta>) {
        let resource = format!("{}.{}", kind.resource.plural, kind.resource.group);
        for meta in left {
            *self.remaining.entry(resource.clone()).or_default() += 1;
            for finalizer in meta.finalizers.iter().flatten() {
                *self.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.failures.is_empty()
    }

    /// The status that tells it, worded as upstream's.
    fn status(&self, old: Option<&NamespaceStatus>, now: Timestamp) -> NamespaceStatus {
        let counted = |counts: &BTreeMap<String, usize>, joint: &str| {
            let parts = counts
                .iter()
                .map(|(name, n)| format!("{name} {joint} {n} resource instances"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let failed = format!(
            "Failed to delete all resource types, {} remaining: {}",
            self.failures.len(),
            self.failures.join(", ")
        );
        let content = format!(
            "Some resources are remaining: {}",
            counted(&self.remaining, "has")
        );
        let finalizers = format!(
            "Some content in the namespace has finalizers remaining: {}",
            counted(&self.finalizers, "in")
        );
        let mut conditions = old
            .and_then(|old| old.conditions.clone())
            .unwrap_or_default();
        for (kind, is, reasons, bad, good) in [
            (
                "NamespaceDeletionDiscoveryFailure",
                false,
                ["", "ResourcesDiscovered"],
                String::new(),
                "All resources successfully discovered",
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                ["", "ParsedGroupVersions"],
                String::new(),
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                !self.failures.is_empty(),
                ["ContentDeletionFailed", "ContentDeleted"],
                failed,
                "All content successfully deleted, may be waiting on finalization",
            ),
            (
                "NamespaceContentRemaining",
                !self.remaining.is_empty(),
                ["SomeResourcesRemain", "ContentRemoved"],
                content,
                "All content successfully removed",
            ),
            (
                "NamespaceFinalizersRemaining",
                !self.finalizers.is_empty(),
                ["SomeFinalizersRemain", "ContentHasNoFinalizers"],
                finalizers,
                "All content-preserving finalizers finished",
            ),
        ] {
            let [bad_reason, good_reason] = reasons;
            let condition = NamespaceCondition {
                type_: kind.to_owned(),
                status: if is { "True" } else { "False" }.to_owned(),
                reason: Some(if is { bad_reason } else { good_reason }.to_owned()),
                message: Some(if is { bad } else { good.to_owned() }),
                last_transition_time: Some(Time(now)),
            };
            conditions::set(&mut conditions, condition);
        }
        NamespaceStatus {
            phase: Some("Terminating".to_owned()),
            conditions: Some(conditions),
        }
    }
}

fn is_held(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
}

impl Controller for Namespaces {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let namespace = self.0.informers.namespaces.get(key);
        let going = namespace.filter(|n| n.metadata.deletion_timestamp.is_some() && is_held(n));
        let Some(namespace) = going else {
            return Ok(Outcome::Done);
        };
        let report = self.empty(&key.name).await?;
        if report.is_empty() {
            self.finalize(key).await?;
            return Ok(Outcome::Done);
        }
        let old = namespace.status.as_ref();
        let new = report.status(old, Timestamp::now());
        write::status(&self.0, &*namespace, old, &new).await?;
        match report.failures.first() {
            Some(failure) => Err(Error::Object {
                object: write::label::<Namespace>(key),
                fault: format!("not all content could be deleted: {failure}"),
            }),
            None => Ok(Outcome::After(UNWATCHED)),
        }
    }
}

impl Namespaces {
    /// Deletes everything in a namespace, and reports what is left. Pods go first: they may
    /// still need their secrets, volumes and network policies while they stop.
    async fn empty(&self, namespace: &str) -> Result<Report> {
        let kinds = discover(&self.0.client).await?;
        let kinds = kinds
            .into_iter()
            .filter(|kind| kind.namespaced && kind.is_deletable());
        let (pods, others): (Vec<_>, Vec<_>) =
            kinds.partition(|kind| kind.resource.kind == "Pod" && kind.resource.group.is_empty());
        let mut report = Report::default();
        self.empty_all(namespace, pods, &mut report).await;
        if report.is_empty() {
            self.empty_all(namespace, others, &mut report).await;
        }
        Ok(report)
    }

    async fn empty_all(&self, namespace: &str, kinds: Vec<Discovered>, report: &mut Report) {
        let looks = kinds.into_iter().map(|kind| async move {
            let left = self.empty_one(namespace, &kind).await;
            (kind, left)
        });
        let mut looks = stream::iter(looks).buffer_unordered(PARALLEL);
        while let Some((kind, left)) = looks.next().await {
            match left {
                Ok(left) => report.add(&kind, left.iter()),
                Err(error) => report.failures.push(error.to_string()),
            }
        }
        report.failures.sort();
    }

    /// Deletes the objects of one kind, and says which are still there afterwards.
    async fn empty_one(&self, namespace: &str, kind: &Discovered) -> Result<Vec<ObjectMeta>> {
        let api = kind.api(&self.0.client, namespace);
        let what = || format!("{} of namespace {namespace}", kind.resource.plural);
        let page = ListParams::default().limit(PAGE);
        let list = async || {
            let listed = api.list_metadata(&page).await;
            let listed = listed.unless_gone(|| format!("list {}", what()))?;
            let items = listed.into_iter().flat_map(|list| list.items);
            Ok::<Vec<_>, Error>(items.map(|item| item.metadata).collect())
        };
        let found = list().await?;
        if found.iter().all(|meta| meta.deletion_timestamp.is_some()) {
            return Ok(found);
        }
        let background = DeleteParams::background();
        if kind.can(verbs::DELETE_COLLECTION) {
            let deleted = api
                .delete_collection(&background, &ListParams::default())
                .await;
            deleted.unless_gone(|| format!("delete {}", what()))?;
        } else {
            for name in found.iter().flat_map(|meta| &meta.name) {
                let deleted = api.delete(name, &background).await;
                deleted.unless_gone(|| format!("delete {}", what()))?;
            }
        }
        list().await
    }

    /// Removes our finalizer; the API then lets the namespace go.
    async fn finalize(&self, key: &Key) -> Result<()> {
        let Some(mut namespace) = write::get::<Namespace>(&self.0, key).await? else {
            return Ok(());
        };
        if namespace.metadata.deletion_timestamp.is_none() || !is_held(&namespace) {
            return Ok(());
        }
        let spec = namespace.spec.get_or_insert_default();
        if let Some(finalizers) = &mut spec.finalizers {
            finalizers.retain(|name| name != FINALIZER);
        }
        let api: Api<Namespace> = Api::all(self.0.client.clone());
        let written = api
            .replace_subresource("finalize", &key.name, &write::post(), &namespace)
            .await;
        written.unless_gone(|| format!("finalize {}", write::label::<Namespace>(key)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_as_upstream_does() {
        let report = Report {
            remaining: [("pods.".to_owned(), 2), ("jobs.batch".to_owned(), 1)].into(),
            finalizers: [("example.com/wait".to_owned(), 1)].into(),
            failures: Vec::new(),
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let status = report.status(None, now);
        let conditions = status.conditions.as_ref().unwrap();
        let told = conditions.iter().map(|c| {
            let (reason, message) = (c.reason.as_ref().unwrap(), c.message.as_ref().unwrap());
            format!("{} {reason}: {message}", c.status)
        });
        let expected = [
            "False ResourcesDiscovered: All resources successfully discovered",
            "False ParsedGroupVersions: All legacy kube types successfully parsed",
            "False ContentDeleted: All content successfully deleted, may be waiting on finalization",
            "True SomeResourcesRemain: Some resources are remaining: \
             jobs.batch has 1 resource instances, pods. has 2 resource instances",
            "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: \
             example.com/wait in 1 resource instances",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(report.status(Some(&status), now), status, "told once");
    }
}
