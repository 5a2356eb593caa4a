//! Ends the node's pods in order before the machine goes down, if the node's settings give them time for
//! that: [`plan`] says which first, [`logind`] tells and waits.
//!
//! Without it a machine that goes down is to its pods as if it were unplugged.

mod logind;
pub mod plan;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};

use self::logind::Logind;
use self::plan::Period;
use crate::core::{Eviction, spec_of};
use crate::pods::worker::Message;
use crate::pods::{Context, Entry, Table};

/// Why pods are refused meanwhile, and the node is not ready.
pub const GOING: &str = "node is shutting down";
/// After a connection that failed: first and longest rest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Watches over the machine until it is dropped.
pub async fn run(context: Arc<Context>, table: Table) {
    let periods = context.config.kubelet.shutdown_periods();
    if periods.is_empty() {
        return std::future::pending().await;
    }
    let mut rest = AGAIN.0;
    loop {
        match attend(&context, &table, &periods).await {
            Ok(()) => rest = AGAIN.0,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "a shutdown of the machine would not wait for pods: no word with systemd-logind"
                );
            }
        }
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(AGAIN.1);
    }
}

/// Serves one connection to its end.
async fn attend(context: &Context, table: &Table, periods: &[Period]) -> zbus::Result<()> {
    let logind = Logind::connect().await?;
    let mut shutdowns = pin!(logind.shutdowns().await?);
    let mut inhibitor = Some(logind.inhibit().await?);
    let seconds = periods.iter().map(|one| one.shutdown_grace_period_seconds);
    let (wanted, longest) = (Duration::from_secs(seconds.sum()), logind.longest().await?);
    if longest < wanted {
        tracing::warn!(
            "a shutdown waits for {longest:?} at most, and pods were given {wanted:?}; set \
             InhibitDelayMaxSec in /etc/systemd/logind.conf"
        );
    }
    while let Some(going) = shutdowns.next().await {
        context.going.send_replace(going);
        if !going {
            tracing::info!("the machine stays");
            inhibitor = Some(logind.inhibit().await?);
            continue;
        }
        tracing::info!("the machine is about to go down; ending its pods");
        let called_off = tokio::select! {
            () = end_all(table, periods) => false,
            () = stays(&mut shutdowns) => true,
        };
        tracing::info!("all that was to be waited for is done");
        inhibitor.take();
        if called_off {
            context.going.send_replace(false);
            inhibitor = Some(logind.inhibit().await?);
        }
    }
    drop(inhibitor);
    Ok(())
}

/// Waits until a shutdown is called off.
async fn stays(shutdowns: &mut (impl Stream<Item = bool> + Unpin)) {
    while let Some(going) = shutdowns.next().await {
        if !going {
            return;
        }
    }
    std::future::pending().await
}

/// Ends pods group by group. A group that is done early hands its time to nobody: the machine waits less.
async fn end_all(table: &Table, periods: &[Period]) {
    let entries: Vec<Arc<Entry>> = table.all();
    let occupying = entries
        .iter()
        .filter(|entry| entry.machine.lock().occupies());
    let pods: Vec<(String, i32)> = occupying
        .map(|entry| {
            let priority = spec_of(&entry.pod()).priority.unwrap_or(0);
            (entry.uid.clone(), priority)
        })
        .collect();
    for group in plan::groups(periods, &pods) {
        let of_group = entries
            .iter()
            .filter(|entry| group.uids.contains(&entry.uid));
        let of_group: Vec<_> = of_group.cloned().collect();
        for entry in &of_group {
            let grace_s = i64::try_from(group.seconds).unwrap_or(i64::MAX);
            // A worker that has ended has no pod left to end.
            let _ = entry
                .inbox
                .send(Message::Evict(Eviction::shutdown(grace_s)))
                .await;
        }
        let all_ended = futures::future::join_all(of_group.iter().map(|entry| entry.vacated()));
        let time = Duration::from_secs(group.seconds);
        if tokio::time::timeout(time, all_ended).await.is_err() {
            tracing::warn!(seconds = group.seconds, "pods did not end in their time");
        }
    }
}
