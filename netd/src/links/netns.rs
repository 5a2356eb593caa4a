//! Working inside another network namespace.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use super::Error;

/// Runs `work` inside the namespace pinned at `path`, on a thread of its own: no other thread
/// of this process ever changes its namespace. Sockets opened inside stay there.
pub fn inside<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let namespace = File::open(path).map_err(|source| Error::Namespace {
        path: path.to_owned(),
        source,
    })?;
    let enter_and_work = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Namespace {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(enter_and_work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
