//! Writes: the smallest patch from what the cache shows to what should be.

use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::Doing;
use super::informer::Kind;
use super::{Context, Result};
use crate::common::{Key, merge};

/// The field manager of all writes, as upstream names it.
pub const MANAGER: &str = "kube-controller-manager";

/// Parameters of a creation.
pub fn post() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Parameters of a patch.
pub fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// A deletion of exactly the object with this metadata's uid.
pub fn delete_exactly(meta: &ObjectMeta) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: meta.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

/// `Pod default/web`
pub fn label<K: Resource<DynamicType = ()>>(key: &Key) -> String {
    format!("{} {key}", K::kind(&()))
}

/// The typed API of a namespace, or of the cluster.
pub trait Scope: Sized {
    /// The API for objects beside `key`.
    fn beside(ctx: &Context, key: &Key) -> Api<Self>;
}

impl<K: Kind> Scope for K
where
    K: Scoped<<K as Resource>::Scope>,
{
    fn beside(ctx: &Context, key: &Key) -> Api<K> {
        K::scoped(ctx, key)
    }
}

/// How a kind's scope chooses its API; an implementation detail of [`Scope`].
pub trait Scoped<S>: Sized {
    #[doc(hidden)]
    fn scoped(ctx: &Context, key: &Key) -> Api<Self>;
}

impl<K> Scoped<kube::core::NamespaceResourceScope> for K
where
    K: Kind + Resource<Scope = kube::core::NamespaceResourceScope>,
{
    fn scoped(ctx: &Context, key: &Key) -> Api<K> {
        Api::namespaced(ctx.client.clone(), &key.namespace)
    }
}

impl<K> Scoped<kube::core::ClusterResourceScope> for K
where
    K: Kind + Resource<Scope = kube::core::ClusterResourceScope>,
{
    fn scoped(ctx: &Context, _: &Key) -> Api<K> {
        Api::all(ctx.client.clone())
    }
}

/// Reads an object from the API itself, not from a cache; `None` when there is none.
pub async fn get<K: Kind + Scope>(ctx: &Context, key: &Key) -> Result<Option<K>> {
    let found = K::beside(ctx, key).get_opt(&key.name).await;
    found.doing(|| format!("get {}", label::<K>(key)))
}

/// Creates an object.
pub async fn create<K: Kind + Scope + Serialize>(ctx: &Context, object: &K) -> Result<K> {
    let key = Key::of(object);
    let name = match (&object.meta().name, &object.meta().generate_name) {
        (None, Some(prefix)) => Key::new(key.namespace.clone(), format!("{prefix}...")),
        _ => key.clone(),
    };
    let created = K::beside(ctx, &key).create(&post(), object).await;
    created.doing(|| format!("create {}", label::<K>(&name)))
}

/// Deletes the object with this metadata, if it is still there.
pub async fn delete<K: Kind + Scope>(ctx: &Context, meta: &ObjectMeta) -> Result<()> {
    let key = Key::of_meta(meta);
    let api = K::beside(ctx, &key);
    let deleted = api.delete(&key.name, &delete_exactly(meta)).await;
    deleted.unless_gone(|| format!("delete {}", label::<K>(&key)))?;
    Ok(())
}

/// Changes an object from `old` to `new` by a merge patch bound to `old`'s resourceVersion;
/// `None` when there is nothing to change.
pub async fn update<K: Kind + Scope + Serialize>(
    ctx: &Context,
    old: &K,
    new: &K,
) -> Result<Option<K>> {
    let Some(patch) = merge::diff_typed(old, new) else {
        return Ok(None);
    };
    let key = Key::of(old);
    let patch = Patch::Merge(bound(patch, old.meta()));
    let api = K::beside(ctx, &key);
    let written = api.patch(&key.name, &patch_params(), &patch).await;
    written
        .doing(|| format!("update {}", label::<K>(&key)))
        .map(Some)
}

/// Changes an object by a merge patch, whatever its resourceVersion.
pub async fn patch<K: Kind + Scope>(ctx: &Context, key: &Key, patch: Value) -> Result<K> {
    let api = K::beside(ctx, key);
    let written = api
        .patch(&key.name, &patch_params(), &Patch::Merge(patch))
        .await;
    written.doing(|| format!("patch {}", label::<K>(key)))
}

/// Changes an object by a merge patch of its status subresource.
pub async fn patch_status<K: Kind + Scope>(ctx: &Context, key: &Key, patch: Value) -> Result<K> {
    let api = K::beside(ctx, key);
    let written = api
        .patch_status(&key.name, &patch_params(), &Patch::Merge(patch))
        .await;
    written.doing(|| format!("update status of {}", label::<K>(key)))
}

/// Changes an object's status, if it differs; `None` when it does not, or the object is gone.
/// Each status has one writer, so the patch is bound to the uid only. A first status is written
/// whole, so that counts of zero are there too.
pub async fn status<K: Kind + Scope, S: Serialize>(
    ctx: &Context,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> Result<Option<K>> {
    let old = old.map_or(Value::Null, merge::to_value);
    let Some(patch) = merge::diff(&old, &merge::to_value(new)) else {
        return Ok(None);
    };
    let key = Key::of(object);
    let patch = Patch::Merge(json!({"metadata": {"uid": object.meta().uid}, "status": patch}));
    let api = K::beside(ctx, &key);
    let written = api.patch_status(&key.name, &patch_params(), &patch).await;
    written.unless_gone(|| format!("update status of {}", label::<K>(&key)))
}

fn bound(mut patch: Value, meta: &ObjectMeta) -> Value {
    patch["metadata"]["resourceVersion"] = json!(meta.resource_version);
    patch["metadata"]["uid"] = json!(meta.uid);
    patch
}
