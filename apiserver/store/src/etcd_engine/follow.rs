//! The watch: every change after a revision, in order, once, over whatever happens to members and
//! connections. When etcd has forgotten what was not read yet everything is read anew. It ends when
//! the engine closes.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::assemble::{Assembly, Raw};
use super::layout::{Clock, Place};
use super::load;
use super::members::{Failure, Members, PATIENCE};
use crate::engine::{Delivery, News};
use crate::revision::Revision;

/// The pause before a watch that broke is begun again.
const PAUSE: Duration = Duration::from_millis(100);

/// How a watch ended.
enum Ended {
    /// Begin it again.
    Broken(String),
    /// What was to come next may be forgotten: the past up to here is.
    Compacted(Revision),
    /// Nobody listens any more.
    Closed,
}

/// Follows until `closing`.
pub(super) async fn run(
    members: Arc<Members>,
    place: Place,
    mut assembly: Assembly,
    sender: mpsc::Sender<News>,
    closing: CancellationToken,
) {
    loop {
        let watching = watch(&members, &place, &mut assembly, &sender);
        let Some(ended) = closing.run_until_cancelled(watching).await else {
            return;
        };
        assembly.interrupted();
        match ended {
            Ended::Closed => return,
            Ended::Broken(why) => {
                let last = assembly.last();
                tracing::info!(%last, why, "the watch of etcd broke; it is begun again");
            }
            Ended::Compacted(floor) => match newest_at(&members, &place, floor).await {
                // Idle, while others wrote to this etcd and compacted it.
                Ok(newest) if newest <= assembly.last() => assembly.skip_to(floor),
                // Compacted again meanwhile: the next watch says up to where.
                Err(Failure::Compacted) => {}
                Ok(_) => {
                    let last = assembly.last();
                    let reading = load::newest(&members, &place);
                    let Some(read) = closing.run_until_cancelled(reading).await else {
                        return;
                    };
                    match read {
                        Ok(loaded) => {
                            let now = loaded.revision;
                            tracing::warn!(
                                %last,
                                %now,
                                "etcd was compacted beyond what this server had read; \
                                 everything was read anew, and its watches end"
                            );
                            assembly.skip_to(now);
                            if sender.send(News::Anew(loaded)).await.is_err() {
                                return;
                            }
                        }
                        Err(failure) => tracing::warn!(%failure, "cannot read etcd anew"),
                    }
                }
                Err(failure) => tracing::warn!(%failure, "cannot read etcd's newest revision"),
            },
        }
        if closing
            .run_until_cancelled(tokio::time::sleep(PAUSE))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Watches with one member, as long as it goes.
async fn watch(
    members: &Members,
    Place { names, clock }: &Place,
    assembly: &mut Assembly,
    sender: &mpsc::Sender<News>,
) -> Ended {
    let (at, mut client) = members.watch_client();
    let broken = |why: String| {
        let url = members.url();
        let why = format!("etcd at {url}: {why}");
        members.leave(at);
        Ended::Broken(why)
    };
    let (first, end) = names.all();
    let options = WatchOptions::new()
        .with_range(end)
        .with_start_revision(clock.number(assembly.last().next()))
        .with_fragment()
        .with_progress_notify();
    let begun = tokio::time::timeout(PATIENCE, client.watch(first, Some(options))).await;
    let mut stream = match begun {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return broken(error.to_string()),
        Err(_) => return broken("it does not answer".to_owned()),
    };
    loop {
        let response = match stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return broken("it ended the watch".to_owned()),
            Err(error) => return broken(error.to_string()),
        };
        if response.compact_revision() > 0 {
            return Ended::Compacted(clock.of(response.compact_revision()));
        }
        if response.canceled() {
            return broken(format!(
                "it cancelled the watch: {}",
                response.cancel_reason()
            ));
        }
        let batch = assemble(assembly, *clock, &response);
        if !batch.is_empty() && sender.send(News::Changes(batch)).await.is_err() {
            return Ended::Closed;
        }
    }
}

fn assemble(assembly: &mut Assembly, clock: Clock, response: &WatchResponse) -> Vec<Delivery> {
    let events = response.events().iter();
    let changes = events.filter_map(|event| {
        let kv = event.kv()?;
        assembly.take(Raw {
            key: kv.key(),
            value: (event.event_type() == EventType::Put).then(|| kv.value()),
            created: clock.of(kv.create_revision()),
            modified: clock.of(kv.mod_revision()),
        })
    });
    let deliveries = changes.map(|change| Delivery {
        change,
        committer: None,
    });
    deliveries.collect()
}

/// The newest revision of this store as of `at`.
async fn newest_at(
    members: &Members,
    Place { names, clock }: &Place,
    at: Revision,
) -> Result<Revision, Failure> {
    let options = GetOptions::new().with_revision(clock.number(at));
    let head = members.get(&names.head(), options).await?;
    let newest = head.kvs().first().map_or(0, |kv| kv.mod_revision());
    Ok(clock.of(newest))
}
