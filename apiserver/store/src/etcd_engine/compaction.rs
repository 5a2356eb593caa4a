//! One server gives up the past for all: whoever writes `compacted` first compacts.
//!
//! Each server asks for a floor when its history gives something up. The one that replaces the
//! value that it has read is the one that compacts; the others see that it was done. What is given up is
//! the floor of one round before, so that a server that starts meanwhile finds what it begins with.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::assemble::decimal;
use super::layout::Place;
use super::members::{Failure, Members};
use crate::revision::Revision;

/// Compacts when asked, at most `every` so long, until `closing`.
pub(super) async fn run(
    members: Arc<Members>,
    place: Place,
    mut floor: watch::Receiver<Revision>,
    every: Duration,
    closing: CancellationToken,
) {
    let rounds = async {
        while floor.changed().await.is_ok() {
            let wanted = *floor.borrow_and_update();
            match turn(&members, &place, wanted).await {
                Ok(None) => {}
                Ok(Some(before)) => tracing::debug!(%wanted, %before, "etcd is compacted"),
                Err(failure) => tracing::warn!(%failure, "cannot compact etcd"),
            }
            tokio::time::sleep(every).await;
        }
    };
    closing.run_until_cancelled(rounds).await;
}

/// Says that the past up to `wanted` goes, and compacts what was said the time before. `None` when
/// another server was first.
async fn turn(
    members: &Members,
    Place { names, clock }: &Place,
    wanted: Revision,
) -> Result<Option<Revision>, Failure> {
    let name = names.compacted();
    let known = members.get(&name, GetOptions::new()).await?;
    let known = known.kvs().first();
    let before = known.and_then(|kv| decimal(kv.value())).unwrap_or(0);
    if Revision(before) >= wanted {
        return Ok(None);
    }
    let read = known.map_or(0, |kv| kv.mod_revision());
    let unchanged = Compare::mod_revision(name.clone(), CompareOp::Equal, read);
    let say = TxnOp::put(name, wanted.0.to_string(), None);
    let txn = Txn::new().when([unchanged]).and_then([say]);
    if !members.txn(txn).await?.succeeded() {
        return Ok(None);
    }
    if clock.number(Revision(before)) > 0 {
        match members.compact(clock.number(Revision(before))).await {
            Ok(()) | Err(Failure::Compacted) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Some(Revision(before)))
}
