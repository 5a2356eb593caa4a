//! GET of one object.

use super::call::{Call, Reply};
use super::respond;
use crate::api::Api;
use crate::status::{Result, Status};
use crate::storage::{self, Entry};

/// Answers a GET.
pub async fn get(api: &Api, call: &Call) -> Result<Reply> {
    respond::entry(api, call, &entry(api, call)?)
}

/// The stored object that a request names.
pub fn entry(api: &Api, call: &Call) -> Result<Entry> {
    let kind = call.kind();
    let key = storage::key(kind, &call.target.namespace, &call.target.name)?;
    api.store
        .get(&key)
        .ok_or_else(|| Status::not_found(kind.group_resource(), &call.target.name))
}
