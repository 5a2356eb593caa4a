//! Commands in containers. A command lives as long as the connection of who asked for it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::console::{Console, ConsoleSocket};
use crate::files;
use crate::protocol::{ExecInput, ExecSpec, Reply};
use crate::reaper::Ending;
use crate::server::send;
use crate::streams::Streams;
use crate::sys;
use crate::tasks::{Refusal, Tasks};

/// A process that was killed and has not ended after this is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;

/// A command that runs.
pub struct Exec {
    /// Taken when it is waited for.
    ending: Option<Ending>,
    process: Option<OwnedFd>,
    hold: Option<OwnedFd>,
    console: Option<Console>,
}

// === impl Exec ===

impl Exec {
    /// Starts it.
    pub async fn start(tasks: &Rc<Tasks>, spec: &ExecSpec) -> Result<Self, Refusal> {
        let task = tasks.get(&spec.id)?;
        if task.has_ended() {
            return Err(Refusal::Failed(format!(
                "container {} does not run",
                spec.id
            )));
        }
        let failed = |error: io::Error| format!("making the streams of a command: {error}");
        let runtimes = &tasks.runtimes;
        let log = files::log_file(&spec.dir);
        let mut call = runtimes
            .call(&task.spec.runtime, log, "exec")
            .with(|command| {
                command
                    .arg("--detach")
                    .arg("--process")
                    .arg(spec.dir.join("process.json"));
                command.arg("--pid-file").arg(files::pid_file(&spec.dir));
            });
        let (mut socket, mut hold) = (None, None);
        if spec.tty {
            let made = ConsoleSocket::bind(&spec.dir).map_err(failed)?;
            call = call.arg("--console-socket").arg(made.path());
            socket = Some(made);
        } else {
            let made = Streams::of_command(&spec.dir, spec.stdin, spec.uid).map_err(failed)?;
            call = call.with(|command| hold = made.give(command));
        }
        call = call.arg(&spec.id);
        let permit = tasks.room.acquire().await;
        let working = runtimes.run(call, Vec::new()).await?;
        drop(permit);
        let pid = files::pid(&spec.dir);
        let pid = pid.ok_or_else(|| "the OCI runtime has written no process ID".to_owned())?;
        let process = sys::open_process(pid).ok().flatten();
        let ending = tasks.reaper.adopt(&working, pid);
        let mut exec = Self {
            ending: Some(ending),
            process,
            hold,
            console: None,
        };
        if let Some(socket) = socket {
            let connected = socket
                .master()
                .await
                .and_then(|m| Console::connect(m, &spec.dir, spec.stdin));
            match connected {
                Ok(console) => exec.console = Some(console),
                Err(error) => {
                    exec.kill();
                    return Err(failed(error).into());
                }
            }
        }
        Ok(exec)
    }

    /// Runs it to its end, or until nobody is there any more, which the end of `inputs` tells.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<ExecInput>,
        output: &mut OwnedWriteHalf,
    ) -> i32 {
        let (ending, process) = (self.ending.take(), self.process.take());
        let ending = async {
            match ending {
                Some(ending) => ending.exit().await,
                None => Tasks::unseen(),
            }
        };
        tokio::pin!(ending);
        let exit = loop {
            tokio::select! {
                exit = &mut ending => break exit,
                input = inputs.recv() => match input {
                    Some(input) => {
                        self.take(input);
                        // A client that is gone ends the inputs, too.
                        let _ = send(output, &Reply::Done).await;
                    }
                    None => {
                        kill(process.as_ref());
                        let lost = Tasks::unseen();
                        break timeout(KILL_LIMIT, &mut ending).await.unwrap_or(lost);
                    }
                }
            }
        };
        if let Some(console) = &mut self.console {
            console.drained().await;
        }
        exit.code.unwrap_or(255)
    }

    fn take(&mut self, input: ExecInput) {
        match (input, &self.console) {
            (ExecInput::CloseStdin, _) => drop(self.hold.take()),
            (ExecInput::Resize(size), Some(console)) => {
                // A process that has ended has no terminal.
                let _ = console.resize(size);
            }
            (ExecInput::Resize(_), None) => {}
        }
    }

    fn kill(&self) {
        kill(self.process.as_ref());
    }
}

fn kill(process: Option<&OwnedFd>) {
    if let Some(process) = process
        && let Err(error) = sys::signal_process(process.as_fd(), SIGKILL)
    {
        eprintln!("a command that nobody waits for cannot be killed: {error}");
    }
}

/// Kills the commands that a shim before this one left in a container: nobody waits for them.
pub fn kill_left_behind(dir: &std::path::Path, first: u32) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("exec-") {
            continue;
        }
        let Some(pid) = files::pid(&entry.path()) else {
            continue;
        };
        let Ok(Some(process)) = sys::open_process(pid) else {
            continue;
        };
        // The number may be another's by now; what is held on to cannot change any more.
        if same_mounts(pid, first) {
            kill(Some(&process));
        }
    }
}

fn same_mounts(one: u32, other: u32) -> bool {
    let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    of(one).is_some_and(|one| Some(one) == of(other))
}
