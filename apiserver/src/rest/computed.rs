//! Lists of objects that are not in the store but come about when they are asked for.

use bytes::Bytes;
use serde_json::Value;

use super::call::{Call, Reply};
use super::encode;
use super::listing::{Items, Listing};
use crate::api::Api;
use crate::status::Result;

/// The list of these objects, in the form and the encoding that the call asks for. The objects are
/// held in memory at once: whoever makes them bounds their number.
pub async fn list(api: &Api, call: &Call, meta: Value, items: Vec<Value>) -> Result<Reply> {
    let objects: Result<Vec<Bytes>> = items
        .iter()
        .map(|item| encode::json(item).map(Bytes::from))
        .collect();
    let listing = Listing::of(api, call, meta, Items::Made(objects?))?;
    listing.reply().await
}
