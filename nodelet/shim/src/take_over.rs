//! Taking over the containers of a shim that was killed.
//!
//! They run on: nothing of theirs passes through the shim but terminals, which have hung up, and
//! standard input, which has ended. They are not this process's children, so their ends are learnt
//! from the kernel: since Linux 6.15 with the exit code, before without. The code of one that ended
//! while no shim was there is lost, too.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use crate::exec;
use crate::files::{self, Process, Started};
use crate::protocol::Exit;
use crate::sys;
use crate::tasks::Tasks;

/// How long the parent of a process that has ended may take to take it away. Before that its exit
/// code is not told.
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// Takes over all containers below a directory.
pub async fn take_over(tasks: &Rc<Tasks>, containers: &Path) {
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        if let Some(started) = files::started(&entry.path()) {
            one(tasks, started).await;
        }
    }
}

async fn one(tasks: &Rc<Tasks>, started: Started) {
    let Started { spec, process } = started;
    let Some(known) = process else {
        // It was being started: whoever asked for it will ask again.
        tasks.clean(&spec).await;
        files::forget(&spec.dir);
        return;
    };
    // Held on to first, so that what is compared is what is held.
    let held = sys::open_process(known.pid).ok().flatten();
    let held = held.filter(|_| Process::of(known.pid) == Some(known));
    if held.is_some() {
        exec::kill_left_behind(&spec.dir, known.pid);
    }
    let watched = held.as_ref().and_then(|fd| fd.try_clone().ok());
    let before = files::exit(&spec.dir);
    let task = tasks.add(spec, known.pid, held, None, None);
    match (before, watched) {
        (Some(exit), _) => tasks.end(&task, exit).await,
        (None, Some(process)) => tasks.until(&task, end_of(process)),
        (None, None) => tasks.end(&task, Tasks::unseen()).await,
    }
}

/// The end of a process that is no child of ours.
async fn end_of(process: OwnedFd) -> Exit {
    let Ok(process) = sys::wake_on(process) else {
        return Tasks::unseen();
    };
    let _ = process.readable().await;
    let at = Timestamp::now();
    // It is told once more when it has been taken away.
    let status = async {
        loop {
            let Ok(mut ready) = process.readable().await else {
                return None;
            };
            ready.clear_ready();
            if let Some(status) = sys::status_of(std::os::fd::AsFd::as_fd(process.get_ref())) {
                return Some(status);
            }
        }
    };
    let status = timeout(REAP_LIMIT, status).await.ok().flatten();
    Exit {
        code: status.map(code_of),
        at,
    }
}

/// The exit code in a status as `waitpid` has it.
fn code_of(status: i32) -> i32 {
    match libc::WIFSIGNALED(status) {
        true => 128 + libc::WTERMSIG(status),
        false => libc::WEXITSTATUS(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_code_of_a_strangers_end_is_known_where_the_kernel_tells_it() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = sys::open_process(child.id()).unwrap().unwrap();
        let held = process.try_clone().unwrap();
        drop(child.stdin.take());
        // Somebody else takes it away.
        let parent = std::thread::spawn(move || child.wait().unwrap());
        let exit = end_of(process).await;
        parent.join().unwrap();
        let told = sys::status_of(std::os::fd::AsFd::as_fd(&held)).is_some();
        assert_eq!(exit.code, told.then_some(7));
    }
}
