//! The verbs on resources: what a request asks for, what is done, what is answered.
//!
//! [`serve`] is the whole way of a request on a resource; each verb has its file.

pub mod apply;
pub mod body_object;
pub mod call;
pub mod computed;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod encode;
pub mod fields;
pub mod get;
pub mod list;
pub mod listing;
pub mod negotiate;
pub mod options;
pub mod patch;
mod pretty;
pub mod query;
pub mod respond;
pub mod selection;
pub mod table;
pub mod target;
pub mod update;
pub mod watch;
pub mod write;

use call::{Call, Reply};
use target::Verb;

use crate::api::Api;
use crate::config::Engine;
use crate::registry::Subresource;
use crate::status::{Result, Status};

/// Answers a request on a resource.
pub async fn serve(api: &Api, call: &Call) -> Result<Reply> {
    catch_up(api, call).await?;
    let mut reply = match &call.subresource {
        None => on_object(api, call).await,
        Some(subresource) => on_subresource(api, call, subresource).await,
    }?;
    reply.warnings.extend(call.kind().deprecation.clone());
    Ok(reply)
}

/// Over a store that other servers write to as well, waits until whatever was acknowledged before, by
/// any of them, is known here: a GET must not be older, and a write must neither miss an object nor
/// find a conflict with what is gone. LIST and WATCH do so themselves.
async fn catch_up(api: &Api, call: &Call) -> Result<()> {
    if !matches!(api.config.engine, Engine::Etcd(_)) {
        return Ok(());
    }
    let least = match call.verb {
        Verb::List | Verb::Watch => return Ok(()),
        Verb::Get => list::revision(call.query.get("resourceVersion"))?,
        _ => None,
    };
    match least {
        Some(least) => list::reached(api, least).await,
        None if call.query.get("resourceVersion") == "0" && call.verb == Verb::Get => Ok(()),
        None => {
            let fenced = api.store.fence().await;
            fenced
                .map(drop)
                .map_err(|fault| Status::unavailable(fault.to_string()))
        }
    }
}

async fn on_object(api: &Api, call: &Call) -> Result<Reply> {
    if !call.kind().verbs.contains(&call.verb) {
        return Err(Status::method_not_allowed());
    }
    if crate::placements::serve::serves(call.kind()) {
        return crate::placements::serve::serve(api, call).await;
    }
    if crate::components::serves(call.kind()) {
        return crate::components::serve(api, call).await;
    }
    if crate::usage::serve::serves(call.kind()) {
        return crate::usage::serve::serve(api, call).await;
    }
    match call.verb {
        Verb::Get => get::get(api, call).await,
        Verb::List => list::list(api, call).await,
        Verb::Watch => watch::watch(api, call).await,
        Verb::Create if !call.target.name.is_empty() => Err(Status::method_not_allowed()),
        Verb::Create if call.kind().plural == "bindings" => {
            crate::subresources::bind(api, call).await
        }
        Verb::Create if call.kind().ephemeral => crate::reviews::create(api, call).await,
        Verb::Create => create::create(api, call).await,
        Verb::Update => update::update(api, call).await,
        Verb::Patch => patch::patch(api, call).await,
        Verb::Delete => delete::delete(api, call).await,
        Verb::DeleteCollection => delete_collection::delete_collection(api, call).await,
    }
}

async fn on_subresource(api: &Api, call: &Call, subresource: &Subresource) -> Result<Reply> {
    if !subresource.verbs().contains(&call.verb) {
        return Err(Status::method_not_allowed());
    }
    match (subresource, call.verb) {
        (whole, Verb::Get) if update::is_whole(whole) => get::get(api, call).await,
        (whole, Verb::Update) if update::is_whole(whole) => update::update(api, call).await,
        (whole, Verb::Patch) if update::is_whole(whole) => patch::patch(api, call).await,
        (subresource, _) => crate::subresources::serve(api, call, subresource).await,
    }
}
