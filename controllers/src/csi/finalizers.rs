//! Finalizers put on objects and taken off them, bound to the object's resourceVersion.

use kube::Resource;
use serde::Serialize;

use crate::shell::informer::Kind;
use crate::shell::write::Scope;
use crate::shell::{Context, Result, write};

/// Puts one on; the object as written, or `None` if it had it.
pub async fn add<K: Kind + Scope + Serialize + Resource>(
    ctx: &Context,
    object: &K,
    finalizer: &str,
) -> Result<Option<K>> {
    let mut new = object.clone();
    let all = new.meta_mut().finalizers.get_or_insert_default();
    if all.iter().any(|one| one == finalizer) {
        return Ok(None);
    }
    all.push(finalizer.to_owned());
    write::update(ctx, object, &new).await
}

/// Takes one off; that the object is gone is as good.
pub async fn remove<K: Kind + Scope + Serialize + Resource>(
    ctx: &Context,
    object: &K,
    finalizer: &str,
) -> Result<()> {
    remove_all(ctx, object, &[finalizer]).await
}

/// Takes several off.
pub async fn remove_all<K: Kind + Scope + Serialize + Resource>(
    ctx: &Context,
    object: &K,
    finalizers: &[&str],
) -> Result<()> {
    let mut new = object.clone();
    if let Some(all) = new.meta_mut().finalizers.as_mut() {
        all.retain(|one| !finalizers.contains(&one.as_str()));
    }
    match write::update(ctx, object, &new).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}
