//! Children and their ends.
//!
//! Besides the programs that it starts, the shim inherits what they leave behind: containers and
//! commands, which the OCI runtime starts and leaves running. A child may be inherited and end before
//! anybody knows that it is wanted; so while a runtime works, ends that nobody waits for are kept.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::rc::Rc;

use jiff::Timestamp;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::protocol::Exit;

/// Ends that are kept while runtimes work.
const UNCLAIMED_MAX: usize = 4096;

/// Waits for children. One thread.
#[derive(Default)]
pub struct Reaper {
    waiting: RefCell<HashMap<u32, oneshot::Sender<Exit>>>,
    unclaimed: RefCell<HashMap<u32, Exit>>,
    /// Runtimes that work at the moment.
    working: Cell<usize>,
}

/// While it lives, ends that nobody waits for are kept.
pub struct Working(Rc<Reaper>);

/// The end of a child, when it comes.
pub struct Ending(oneshot::Receiver<Exit>);

// === impl Reaper ===

impl Reaper {
    /// Takes children away for ever.
    pub async fn run(&self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::WNOHANG));
            let (pid, code) = match status {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let exit = Exit {
                code: Some(code),
                at: Timestamp::now(),
            };
            let pid = pid.as_raw().unsigned_abs();
            match self.waiting.borrow_mut().remove(&pid) {
                Some(waiting) => drop(waiting.send(exit)),
                None if self.working.get() > 0 => self.keep(pid, exit),
                None => {}
            }
        }
    }

    fn keep(&self, pid: u32, exit: Exit) {
        let mut unclaimed = self.unclaimed.borrow_mut();
        // Beyond the bound an end is lost: the code of a container that ended at once is unknown.
        if unclaimed.len() < UNCLAIMED_MAX {
            unclaimed.insert(pid, exit);
        }
    }

    /// A runtime begins to work.
    pub fn working(self: &Rc<Self>) -> Working {
        self.working.set(self.working.get() + 1);
        Working(Rc::clone(self))
    }

    /// Starts a program.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(u32, Ending)> {
        // It cannot be taken away before it is waited for: that is done by this same thread.
        let pid = command.spawn()?.id();
        Ok((pid, self.ending(pid)))
    }

    /// The end of a child that a runtime left behind; it may have come already.
    pub fn adopt(&self, _working: &Working, pid: u32) -> Ending {
        if let Some(exit) = self.unclaimed.borrow_mut().remove(&pid) {
            let (send, receive) = oneshot::channel();
            let _ = send.send(exit);
            return Ending(receive);
        }
        self.ending(pid)
    }

    /// The end of a child.
    fn ending(&self, pid: u32) -> Ending {
        let (send, receive) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, send);
        Ending(receive)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let working = self.0.working.get() - 1;
        self.0.working.set(working);
        if working == 0 {
            self.0.unclaimed.borrow_mut().clear();
        }
    }
}

// === impl Ending ===

impl Ending {
    /// Waits for it.
    pub async fn exit(self) -> Exit {
        let lost = Exit {
            code: None,
            at: Timestamp::now(),
        };
        self.0.await.unwrap_or(lost)
    }
}
