//! Reading what the store holds, as of one revision.

use etcd_client::{GetOptions, KeyValue};

use super::assemble::decimal;
use super::layout::{self, Name, Place};
use super::members::{Failure, Members};
use crate::engine::{Loaded, Record};
use crate::revision::Revision;

/// How many entries are read at once.
const PAGE: i64 = 500;

/// Everything as far back as the past goes, so that watches of clients that come from another server go
/// on here; what happened since then is to be replayed.
pub(super) async fn all(members: &Members, place: &Place) -> Result<Loaded, Failure> {
    let (founded, newest) = head(members, place).await?;
    let compacted = members
        .get(&place.names.compacted(), GetOptions::new())
        .await?;
    let compacted = compacted.kvs().first().and_then(|kv| decimal(kv.value()));
    let floor = founded.max(Revision(compacted.unwrap_or(0)));
    match as_of(members, place, floor).await {
        // Somebody else compacts this etcd.
        Err(Failure::Compacted) => as_of(members, place, newest).await,
        loaded => loaded,
    }
}

/// Everything as it is now.
pub(super) async fn newest(members: &Members, place: &Place) -> Result<Loaded, Failure> {
    let (_, newest) = head(members, place).await?;
    as_of(members, place, newest).await
}

/// The state of `head`: when the store was founded, and its newest revision.
pub(super) async fn head(
    members: &Members,
    place: &Place,
) -> Result<(Revision, Revision), Failure> {
    let name = place.names.head();
    let head = members.get(&name, GetOptions::new()).await?;
    let missing = || Failure::Refused(format!("{name} is missing in etcd"));
    let head = head.kvs().first().ok_or_else(missing)?;
    Ok((
        place.clock.of(head.create_revision()),
        place.clock.of(head.mod_revision()),
    ))
}

/// Every entry as of `revision`, page by page.
async fn as_of(members: &Members, place: &Place, revision: Revision) -> Result<Loaded, Failure> {
    let (mut from, end) = place.names.entries();
    let mut base = Vec::new();
    loop {
        let options = GetOptions::new()
            .with_range(end.clone())
            .with_limit(PAGE)
            .with_revision(place.clock.number(revision));
        let page = members.get(&from, options).await?;
        base.extend(page.kvs().iter().filter_map(|kv| record(place, kv)));
        match page.kvs().last() {
            Some(last) if page.more() => {
                from = format!("{}\0", String::from_utf8_lossy(last.key()));
            }
            _ => break,
        }
    }
    Ok(Loaded {
        floor: revision,
        base,
        recent: Vec::new(),
        revision,
    })
}

fn record(place: &Place, kv: &KeyValue) -> Option<Record> {
    let Name::Entry(key) = place.names.parse(kv.key()) else {
        return None;
    };
    let (created, modified) = (kv.create_revision(), kv.mod_revision());
    let [created, modified] = [created, modified].map(|number| place.clock.of(number));
    let record = layout::decode(key, kv.value(), created, modified);
    if record.is_none() {
        let key = String::from_utf8_lossy(kv.key()).into_owned();
        tracing::error!(key, "etcd holds what is no entry there; it is left out");
    }
    record
}
