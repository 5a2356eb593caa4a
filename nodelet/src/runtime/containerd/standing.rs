//! Where a container stands, and how it ended: by its files, its task, and the kernel's count of what it
//! killed in it for memory. The same for one that is looked at and for one that is settled.

use jiff::Timestamp;

use super::state::State;
use super::tasks::{Task, TaskState};
use crate::runtime::{ContainerState, Exit, ExitReason, Result, sys};

/// Exit code of what was killed by `SIGKILL`.
const KILLED: i32 = 128 + 9;

/// Where a container stands. `oom`: whether the kernel has killed a process of it for memory; its count is there
/// until the task is deleted.
pub(super) fn standing(
    state: &State,
    task: Option<&Task>,
    oom: impl Fn() -> bool,
) -> Result<ContainerState> {
    if let Some(exit) = state.exit()? {
        return Ok(ContainerState::Exited(exit));
    }
    let started = state.started()?;
    let Some(task) = task else {
        // Started, without an end and without a task: the machine went down under it.
        return Ok(match started {
            None => ContainerState::Created,
            Some(started_at) => ContainerState::Exited(lost(Some(started_at))),
        });
    };
    Ok(match task.state {
        TaskState::Stopped { code, at } => {
            let exit = ended(code, at, started, oom);
            // It may have been settled, and the count have gone, while this looked at it.
            ContainerState::Exited(state.exit()?.unwrap_or(exit))
        }
        // Until something else is told it is what it was.
        TaskState::Unknown if started.is_none() => ContainerState::Created,
        TaskState::Running | TaskState::Unknown => {
            let started_at = started.or_else(|| process_start(task.pid));
            let started_at = started_at.unwrap_or(Timestamp::UNIX_EPOCH);
            ContainerState::Running {
                started_at,
                pid: task.pid,
            }
        }
        TaskState::Created => ContainerState::Created,
    })
}

/// How a task ended. One whose code nobody saw is believed to have been killed for memory if something of it was.
fn ended(
    code: Option<i32>,
    at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    oom: impl Fn() -> bool,
) -> Exit {
    let finished_at = at.unwrap_or_else(Timestamp::now);
    let (code, reason) = match code {
        None | Some(KILLED) if oom() => (KILLED, ExitReason::OomKilled),
        Some(code) => (code, ExitReason::Exited),
        None => {
            return Exit {
                finished_at,
                ..lost(started_at)
            };
        }
    };
    Exit {
        code,
        started_at,
        finished_at,
        reason,
        message: String::new(),
    }
}

/// The end of a container that nobody saw.
fn lost(started_at: Option<Timestamp>) -> Exit {
    Exit {
        code: 255,
        started_at,
        finished_at: Timestamp::now(),
        reason: ExitReason::Unknown,
        message: "the container was not there any more; its exit was not seen".to_owned(),
    }
}

/// When a process started, by the kernel's account.
fn process_start(pid: u32) -> Option<Timestamp> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 22 is the 20th behind it.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse::<i64>()
        .ok()?;
    let seconds = ticks / sys::clock_ticks_per_second();
    Timestamp::from_second(boot + i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ContainerId;
    use crate::runtime::containerd::state::States;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stopped(code: Option<i32>) -> Task {
        let at = Some(at(2));
        Task {
            id: "c".into(),
            pid: 1,
            state: TaskState::Stopped { code, at },
        }
    }

    #[test]
    fn an_end_that_is_not_settled_yet_is_told_as_it_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let state = States::new(dir.path().to_owned()).of(&ContainerId("c".into()));
        std::fs::create_dir(state.dir()).unwrap();
        state.set_started(at(1)).unwrap();
        let look = |code, oom| {
            let ContainerState::Exited(exit) =
                standing(&state, Some(&stopped(code)), || oom).unwrap()
            else {
                panic!("it has ended")
            };
            assert_eq!((exit.started_at, exit.finished_at), (Some(at(1)), at(2)));
            (exit.code, exit.reason)
        };
        assert_eq!(look(Some(137), true), (137, ExitReason::OomKilled));
        assert_eq!(look(Some(137), false), (137, ExitReason::Exited));
        assert_eq!(
            look(Some(3), true),
            (3, ExitReason::Exited),
            "it went on without"
        );
        assert_eq!(look(None, true), (137, ExitReason::OomKilled));
        assert_eq!(look(None, false), (255, ExitReason::Unknown));
    }

    #[test]
    fn what_was_settled_meanwhile_holds() {
        let dir = tempfile::tempdir().unwrap();
        let state = States::new(dir.path().to_owned()).of(&ContainerId("c".into()));
        std::fs::create_dir(state.dir()).unwrap();
        let settled = Exit {
            code: 137,
            started_at: Some(at(1)),
            finished_at: at(2),
            reason: ExitReason::OomKilled,
            message: String::new(),
        };
        // The count has gone with the group.
        let gone = || {
            state.set_exit(&settled).unwrap();
            false
        };
        let seen = standing(&state, Some(&stopped(Some(137))), gone).unwrap();
        assert_eq!(seen, ContainerState::Exited(settled.clone()));
    }
}
