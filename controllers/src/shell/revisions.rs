//! The ControllerRevisions of an object: carries out what [`crate::common::history`] decides.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;

use super::context::term;
use super::informer::Kind;
use super::{Context, Result, write};
use crate::common::history::{self, Next};
use crate::common::{Key, owner};

/// The history of an object, its newest revision, and how often a hash was taken by another.
pub struct History {
    /// All revisions.
    pub all: Vec<Arc<ControllerRevision>>,
    /// That of the present template.
    pub newest: Arc<ControllerRevision>,
    /// The count of collisions, to be kept in the status.
    pub collisions: i32,
}

/// Makes the present template the newest revision.
pub async fn sync<O: Kind>(
    ctx: &Context,
    owner: &O,
    template: &PodTemplateSpec,
    collisions: i32,
) -> Result<History> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let mut all = ctx.informers.revisions.indexed(&term::owned_by(uid));
    let (newest, collisions) = match history::next(owner, template, collisions, &all) {
        Next::Is(newest) => (newest, collisions),
        Next::Again(older, number) => {
            let key = Key::of(&*older);
            let patch = json!({"revision": number, "metadata": {"uid": older.metadata.uid}});
            let written = write::patch::<ControllerRevision>(ctx, &key, patch).await?;
            (Arc::new(written), collisions)
        }
        Next::New(revision) => create(ctx, owner, template, *revision, collisions).await?,
    };
    all.retain(|one| one.metadata.name != newest.metadata.name);
    all.push(newest.clone());
    Ok(History {
        all,
        newest,
        collisions,
    })
}

/// Creates a revision. One of that name is ours, unseen as yet, or another's: then the hash must
/// become another one.
async fn create<O: Kind>(
    ctx: &Context,
    owner: &O,
    template: &PodTemplateSpec,
    mut revision: ControllerRevision,
    mut collisions: i32,
) -> Result<(Arc<ControllerRevision>, i32)> {
    /// So many collisions of a 47 bit hash are not by chance.
    const TRIES: usize = 4;
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    for _ in 0..TRIES {
        let error = match write::create(ctx, &revision).await {
            Ok(created) => return Ok((Arc::new(created), collisions)),
            Err(error) if error.is_already_exists() => error,
            Err(error) => return Err(error),
        };
        let key = Key::of(&revision);
        let Some(found) = write::get::<ControllerRevision>(ctx, &key).await? else {
            return Err(error);
        };
        if owner::is_controlled_by(&found.metadata, uid) && found.data == revision.data {
            return Ok((Arc::new(found), collisions));
        }
        collisions += 1;
        revision = match history::next(owner, template, collisions, &[]) {
            Next::New(next) => ControllerRevision {
                revision: revision.revision,
                ..*next
            },
            _ => revision,
        };
    }
    Err(super::Error::Object {
        object: write::label::<O>(&Key::of(owner)),
        fault: "the hash of its template is taken by other revisions".to_owned(),
    })
}

/// Deletes the revisions that are not in use beyond `limit`.
pub async fn truncate(
    ctx: &Context,
    history: &History,
    is_used: impl Fn(&ControllerRevision) -> bool,
    limit: Option<i32>,
) -> Result<()> {
    const DEFAULT_LIMIT: i32 = 10;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    for old in history::surplus(&history.all, is_used, limit) {
        write::delete::<ControllerRevision>(ctx, &old.metadata).await?;
    }
    Ok(())
}
