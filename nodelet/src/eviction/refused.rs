//! Tells whoever looks at a pod that it has reached its limit of processes: when the runtime announces it, and
//! by a look at all pods for kernels that tell nobody.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::LOOK_EVERY;
use super::forks::{self, Refused};
use crate::core::{Note, Severity};
use crate::node::facts;
use crate::pods::{Context, Table};
use crate::runtime::RuntimeEvent;

/// For ever.
pub(super) async fn run(context: &Arc<Context>, table: &Table) {
    let mut events = context.runtime.events();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = Refused::default();
    loop {
        tokio::select! {
            _ = look.tick() => look_at_all(context, table, &mut refused).await,
            event = events.recv() => match event {
                Ok(RuntimeEvent::ForksRefused { pod_uid, count }) => {
                    if refused.saw(&pod_uid, count, Timestamp::now()) {
                        tell(context, table, &pod_uid);
                    }
                }
                // What was missed the next look finds.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn look_at_all(context: &Context, table: &Table, refused: &mut Refused) {
    let all = table.all();
    refused.keep(|uid| all.iter().any(|entry| entry.uid == uid));
    for entry in all {
        let count = context.runtime.refused_forks(&entry.uid).await;
        if refused.saw(&entry.uid, count.unwrap_or(0), Timestamp::now()) {
            tell(context, table, &entry.uid);
        }
    }
}

fn tell(context: &Context, table: &Table, uid: &str) {
    let Some(entry) = table.get(uid) else {
        return;
    };
    let limit = context.config.kubelet.pids_of_pod(facts::pids_max());
    let note = Note {
        severity: Severity::Warning,
        reason: "PIDLimitReached".into(),
        message: forks::message(limit),
        container: None,
    };
    context.notes.about_pod(&entry.pod(), note);
}
