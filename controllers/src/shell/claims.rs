//! Who owns what: whose loops a change wakes, and adoption and release, which carry out what
//! [`crate::common::owner::claim`] decides.

use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use peapod_api::selector::{Selector, SelectorError};
use serde_json::json;

use super::informer::Kind;
use super::write::{self, Scope};
use super::{Change, Context, Error, Informer, Result};
use crate::common::Key;
use crate::common::owner::{self, Claim};

/// The keys of the controllers of `kind` of a changed object, old and new; for an object that
/// nothing controls, those that might adopt it.
pub(crate) fn owners_of<K: Resource>(
    change: &Change<K>,
    kind: &str,
    might_adopt: impl Fn(&K) -> Vec<Key>,
) -> Vec<Key> {
    let mut keys = Vec::new();
    for object in change.both() {
        if let Some(owner) = owner::controller_of(object.meta())
            && owner.kind == kind
        {
            keys.push(Key::new(change.key.namespace.clone(), &owner.name));
        }
    }
    let orphan = change
        .new
        .as_deref()
        .filter(|new| owner::controller_of(new.meta()).is_none());
    keys.extend(orphan.into_iter().flat_map(might_adopt));
    keys.dedup();
    keys
}

/// The keys of those whose selector an object without a controller matches.
pub(crate) fn possible_owners<O: Kind>(
    owners: &Informer<O>,
    object: &ObjectMeta,
    selector: impl Fn(&O) -> Result<Selector>,
) -> Vec<Key> {
    let Some(labels) = &object.labels else {
        return Vec::new();
    };
    let owners = owners.in_namespace(object.namespace.as_deref().unwrap_or_default());
    let matches = |owner: &&Arc<O>| selector(owner).is_ok_and(|one| one.matches(labels));
    let matching = owners.iter().filter(matches);
    matching.map(|owner| Key::of(&**owner)).collect()
}

/// The selector of `owner`, with its name in the error.
pub(crate) fn selector_of<O: Kind>(
    owner: &O,
    parsed: Result<Selector, SelectorError>,
) -> Result<Selector> {
    parsed.map_err(|fault| Error::Object {
        object: write::label::<O>(&Key::of(owner)),
        fault: format!("spec.selector: {fault}"),
    })
}

/// Of the candidates those that `owner` controls: its own, and the orphans it adopts now. Its
/// own that no longer match its selector are released. The owner is looked up live before it
/// adopts, because a cache does not know that it was just deleted. What is adopted gets the
/// `finalizer`, if there is one, and what is released loses it.
pub async fn claim_all<O, K>(
    ctx: &Context,
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<K>>>
where
    O: Kind + Scope,
    K: Kind + Scope,
{
    let mut owned = Vec::with_capacity(candidates.len());
    let mut may_adopt = None;
    for object in candidates {
        match owner::claim(owner.meta(), selector, object.meta()) {
            Claim::Own => owned.push(object),
            Claim::Ignore => {}
            Claim::Release => release(ctx, owner.meta(), &*object, finalizer).await?,
            Claim::Adopt => {
                if may_adopt.is_none() {
                    may_adopt = Some(still_there(ctx, owner).await?);
                }
                if may_adopt == Some(true)
                    && let Some(adopted) = adopt(ctx, owner, &*object, finalizer).await?
                {
                    owned.push(adopted);
                }
            }
        }
    }
    Ok(owned)
}

async fn still_there<O: Kind + Scope>(ctx: &Context, owner: &O) -> Result<bool> {
    let live = write::get::<O>(ctx, &Key::of(owner)).await?;
    Ok(live.is_some_and(|live| {
        let meta = live.meta();
        meta.uid == owner.meta().uid && meta.deletion_timestamp.is_none()
    }))
}

async fn adopt<O, K>(
    ctx: &Context,
    owner: &O,
    object: &K,
    finalizer: Option<&str>,
) -> Result<Option<Arc<K>>>
where
    O: Kind,
    K: Kind + Scope,
{
    let mut meta = claimed(object.meta());
    let references = meta.owner_references.get_or_insert_default();
    references.push(owner::controller_reference(owner));
    meta.finalizers = finalizer.map(|finalizer| {
        let mut all = object.meta().finalizers.clone().unwrap_or_default();
        if !all.iter().any(|one| one == finalizer) {
            all.push(finalizer.to_owned());
        }
        all
    });
    write_claim(ctx, object, meta).await
}

async fn release<K: Kind + Scope>(
    ctx: &Context,
    owner: &ObjectMeta,
    object: &K,
    finalizer: Option<&str>,
) -> Result<()> {
    let mut meta = claimed(object.meta());
    let references = meta.owner_references.get_or_insert_default();
    references.retain(|reference| Some(&reference.uid) != owner.uid.as_ref());
    meta.finalizers = finalizer.map(|finalizer| {
        let mut all = object.meta().finalizers.clone().unwrap_or_default();
        all.retain(|one| one != finalizer);
        all
    });
    write_claim(ctx, object, meta).await?;
    Ok(())
}

/// The owners of an object as it is, to be changed.
fn claimed(meta: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        owner_references: meta.owner_references.clone(),
        ..ObjectMeta::default()
    }
}

/// Bound to the resourceVersion, because a merge patch replaces whole lists.
async fn write_claim<K: Kind + Scope>(
    ctx: &Context,
    object: &K,
    meta: ObjectMeta,
) -> Result<Option<Arc<K>>> {
    let patch = json!({"metadata": meta});
    match write::patch::<K>(ctx, &Key::of(object), patch).await {
        Ok(written) => Ok(Some(Arc::new(written))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
