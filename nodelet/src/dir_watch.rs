//! Tells of changes in a directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::runtime::sys;

/// A directory that is watched.
pub struct Watch {
    inotify: AsyncFd<OwnedFd>,
}

// === impl Watch ===

impl Watch {
    /// Watches from now on.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(dir, changes)?;
        Ok(Self {
            inotify: sys::wake_on_input(OwnedFd::from(inotify))?,
        })
    }

    /// Waits for a change; several may be reported as one.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        let mut ready = self.inotify.readable().await?;
        loop {
            // What changed does not matter: who waits looks for itself.
            match nix::unistd::read(ready.get_inner(), &mut events) {
                Ok(_) => {}
                Err(nix::Error::EAGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
