//! What a container left to say of its end.

use std::sync::Arc;

use super::{Context, Entry, observe};
use crate::core::{Exit, find_container, view};
use crate::runtime::ContainerId;

/// The exit with its termination message: from the file, or from the end of the log.
pub(super) async fn last_words(context: Arc<Context>, entry: Arc<Entry>, mut exit: Exit) -> Exit {
    let pod = entry.pod();
    let found = {
        let machine = entry.machine.lock();
        // It may end before its start is reported; but its id says which one it is.
        let mut all = view(&pod).map(|view| (machine.attempt_of(view.name), view.name.to_owned()));
        all.find(|(attempt, name)| ContainerId::derive(&entry.uid, name, *attempt).0 == exit.id)
    };
    let Some((attempt, name)) = found else {
        return exit;
    };
    let container = find_container(&pod, &name);
    let policy = container
        .as_ref()
        .and_then(|c| c.termination_message_policy.as_deref());
    let from_log = policy == Some("FallbackToLogsOnError") && exit.code != 0;
    let message = context.message_path(&entry.uid, &name, attempt);
    let log = context.log_path(&pod, &name, attempt);
    let read = tokio::task::spawn_blocking(move || {
        observe::message(&message).or_else(|| from_log.then(|| observe::log_tail(&log)).flatten())
    });
    let left = read.await.ok().flatten();
    exit.message = left.or(exit.message);
    exit
}
