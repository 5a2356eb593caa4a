//! Watches the ruleset for what others do to it: a firewall that is started or reloaded may
//! drop pods' packets, or flush our tables with everything else.

use std::sync::Arc;
use std::time::Duration;

use peapod_nft::{Error, Nft, Watch};
use tokio::sync::mpsc;

use super::Shared;
use super::inputs::Input;
use crate::host_firewall::{self, Passage, TAG};
use crate::links::{alias, vxlan};
use crate::surroundings;

/// A reload is many changes: they are looked at together, this long after the first.
const SETTLE: Duration = Duration::from_millis(200);

/// Looks at the ruleset at start, and after every change.
pub(super) async fn run(shared: Arc<Shared>, inputs: mpsc::Sender<Input>) {
    let mut watch = match Watch::open() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(%error, "changes of the ruleset are not noticed");
            return;
        }
    };
    let mut tunnelled = shared.tunnelled.subscribe();
    loop {
        tunnelled.mark_unchanged();
        let look = shared.clone();
        match tokio::task::spawn_blocking(move || look_around(&look)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                tracing::warn!(
                    "this agent's nftables tables are gone or changed; making them anew"
                );
                if inputs.send(Input::TablesLost).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot look at the ruleset"),
            Err(error) => tracing::error!(%error, "looking at the ruleset was cut short"),
        }
        tokio::select! {
            changed = watch.changed() => if let Err(error) = changed {
                tracing::error!(%error, "changes of the ruleset are no longer noticed");
                return;
            },
            Ok(()) = tunnelled.changed() => continue,
        }
        tokio::time::sleep(SETTLE).await;
        watch.drain();
    }
}

/// Accepts pods' packets in others' chains, and tells of what cannot be helped; whether our own
/// tables are in place.
fn look_around(shared: &Shared) -> Result<bool, Error> {
    let passage = Passage {
        tag: TAG.to_owned(),
        links: [(alias::PREFIX, "pods"), (vxlan::PREFIX, "tunnels")]
            .map(|(prefix, what)| (prefix.to_owned(), what))
            .to_vec(),
        ranges: shared.config.pod_cidrs.clone(),
        tunnels: shared
            .tunnelled
            .borrow()
            .then_some(shared.config.vxlan_port),
    };
    let mut warnings = host_firewall::ensure(&mut Nft::open()?, &passage)?;
    warnings.extend(surroundings::look());
    shared.warnings.send_if_modified(|told| {
        let news = *told != warnings;
        *told = warnings;
        news
    });
    shared.nat.lock().is_intact()
}
