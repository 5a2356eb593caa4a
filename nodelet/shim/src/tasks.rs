//! Containers: started, signalled, followed to their end, forgotten.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Semaphore, broadcast, watch};

use crate::console::{Console, ConsoleSocket};
use crate::files::{self, Process, Started};
use crate::protocol::{Exit, Size, Task as Seen, TaskSpec};
use crate::reaper::{Reaper, Working};
use crate::rootfs;
use crate::runtime::Runtimes;
use crate::streams::Streams;
use crate::sys;

/// Starts, deletions and commands at one time; the rest waits in line.
const RUNTIMES_MAX: usize = 64;
/// Ends that a listener may fall behind by before it is told all of them again.
const ENDS_MAX: usize = 1024;

/// All containers. One thread.
pub struct Tasks {
    known: RefCell<HashMap<String, Rc<Task>>>,
    /// One step of a container's life at a time.
    locks: RefCell<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The OCI runtimes.
    pub(crate) runtimes: Runtimes,
    /// Children.
    pub(crate) reaper: Rc<Reaper>,
    /// Where root file systems are mounted.
    rootfs: PathBuf,
    ends: broadcast::Sender<String>,
    pub(crate) room: Semaphore,
}

/// A container that runs, or has run.
pub struct Task {
    /// What it is.
    pub spec: TaskSpec,
    pid: u32,
    process: Option<OwnedFd>,
    exit: watch::Sender<Option<Exit>>,
    /// Keeps its standard input from ending.
    hold: RefCell<Option<OwnedFd>>,
    console: RefCell<Option<Console>>,
}

/// Why something was not done.
pub enum Refusal {
    /// There is no such container.
    NotFound,
    /// Anything else.
    Failed(String),
}

type Result<T> = std::result::Result<T, Refusal>;

// === impl Refusal ===

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

// === impl Task ===

impl Task {
    /// As the agent sees it.
    pub fn seen(&self) -> Seen {
        Seen {
            id: self.spec.id.clone(),
            pid: self.pid,
            exit: *self.exit.borrow(),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let _ = self.exit.subscribe().wait_for(Option::is_some).await;
    }

    /// No more comes from standard input.
    pub fn close_stdin(&self) {
        drop(self.hold.borrow_mut().take());
    }

    /// Changes the size of its terminal.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        match self.console.borrow().as_ref() {
            Some(console) => console.resize(size),
            None => Ok(()),
        }
    }
}

// === impl Tasks ===

impl Tasks {
    /// None yet. OCI runtimes keep their states below `dir`; root file systems are mounted at `rootfs`.
    pub fn new(dir: &Path, rootfs: PathBuf, reaper: Rc<Reaper>) -> Rc<Self> {
        Rc::new(Self {
            known: RefCell::default(),
            locks: RefCell::default(),
            runtimes: Runtimes::new(dir.join("oci"), Rc::clone(&reaper)),
            reaper,
            rootfs,
            ends: broadcast::channel(ENDS_MAX).0,
            room: Semaphore::new(RUNTIMES_MAX),
        })
    }

    /// A container.
    pub fn get(&self, id: &str) -> Result<Rc<Task>> {
        self.known
            .borrow()
            .get(id)
            .cloned()
            .ok_or(Refusal::NotFound)
    }

    /// All containers.
    pub fn all(&self) -> Vec<Rc<Task>> {
        self.known.borrow().values().cloned().collect()
    }

    /// The names of those that end from now on.
    pub fn ends(&self) -> broadcast::Receiver<String> {
        self.ends.subscribe()
    }

    /// Starts a container; one that was started is left alone.
    pub async fn start(self: &Rc<Self>, spec: TaskSpec) -> Result<Seen> {
        let _lock = self.lock(&spec.id).await;
        if let Ok(task) = self.get(&spec.id) {
            return Ok(task.seen());
        }
        let before = Started {
            spec,
            process: None,
        };
        let spec = &before.spec;
        let kept = files::write_started(&spec.dir, &before);
        kept.map_err(|error| format!("keeping the state of {}: {error}", spec.id))?;
        let started = match self.run(spec).await {
            Ok(started) => started,
            Err(reason) => {
                self.clean(spec).await;
                files::forget(&spec.dir);
                return Err(reason.into());
            }
        };
        Ok(self.follow(before.spec, started))
    }

    async fn run(&self, spec: &TaskSpec) -> std::result::Result<Running, String> {
        let streams = |error: io::Error| format!("making the streams of {}: {error}", spec.id);
        let mounts = spec
            .rootfs
            .iter()
            .map(|mount| rootfs::call(mount, &self.rootfs));
        let mounts = mounts.collect::<io::Result<Vec<_>>>();
        let mounts = mounts.map_err(|error| format!("the root file system: {error}"))?;
        let mut call = self
            .runtimes
            .call(&spec.runtime, files::log_file(&spec.dir), "run");
        call = call.with(|command| {
            command.arg("--detach").arg("--bundle").arg(&spec.dir);
            command.arg("--pid-file").arg(files::pid_file(&spec.dir));
        });
        let (mut socket, mut hold) = (None, None);
        if spec.tty {
            let made = ConsoleSocket::bind(&spec.dir).map_err(streams)?;
            call = call.arg("--console-socket").arg(made.path());
            socket = Some(made);
        } else {
            let made = Streams::of_container(&spec.dir, spec.stdin, spec.uid).map_err(streams)?;
            call = call.with(|command| hold = made.give(command));
        }
        call = call.arg(&spec.id);
        let permit = self.room.acquire().await;
        let working = self.runtimes.run(call, mounts).await?;
        drop(permit);
        let pid = files::pid(&spec.dir);
        let pid = pid.ok_or_else(|| format!("{} has written no process ID", spec.runtime))?;
        let console = match socket {
            Some(socket) => {
                let master = socket.master().await.map_err(streams)?;
                Some(Console::connect(master, &spec.dir, spec.stdin).map_err(streams)?)
            }
            None => None,
        };
        Ok(Running {
            working,
            pid,
            hold,
            console,
        })
    }

    /// Waits for its end from now on.
    fn follow(self: &Rc<Self>, spec: TaskSpec, running: Running) -> Seen {
        let Running {
            working,
            pid,
            hold,
            console,
        } = running;
        let process = sys::open_process(pid).ok().flatten();
        // One that has ended in the meantime has no start time, and needs none.
        let known = Process::of(pid).unwrap_or(Process {
            pid,
            start_ticks: 0,
            boot: 0,
        });
        let ending = self.reaper.adopt(&working, pid);
        let started = Started {
            spec,
            process: Some(known),
        };
        if let Err(error) = files::write_started(&started.spec.dir, &started) {
            eprintln!("{}: its state is not kept: {error}", started.spec.id);
        }
        let task = self.add(started.spec, pid, process, hold, console);
        self.until(&task, async move { ending.exit().await });
        task.seen()
    }

    /// Remembers a container.
    pub(crate) fn add(
        &self,
        spec: TaskSpec,
        pid: u32,
        process: Option<OwnedFd>,
        hold: Option<OwnedFd>,
        console: Option<Console>,
    ) -> Rc<Task> {
        let task = Rc::new(Task {
            spec,
            pid,
            process,
            exit: watch::Sender::new(None),
            hold: RefCell::new(hold),
            console: RefCell::new(console),
        });
        self.known
            .borrow_mut()
            .insert(task.spec.id.clone(), Rc::clone(&task));
        task
    }

    /// Waits for a container's end in the background.
    pub(crate) fn until(
        self: &Rc<Self>,
        task: &Rc<Task>,
        ending: impl Future<Output = Exit> + 'static,
    ) {
        let (tasks, task) = (Rc::clone(self), Rc::clone(task));
        tokio::task::spawn_local(async move {
            let exit = ending.await;
            tasks.end(&task, exit).await;
        });
    }

    /// Its first process has ended.
    pub(crate) async fn end(&self, task: &Task, exit: Exit) {
        let console = task.console.borrow_mut().take();
        if let Some(mut console) = console {
            console.drained().await;
        }
        if task.spec.shares_pids
            && let Err(reason) = self.kill_all(&task.spec).await
        {
            eprintln!("{}: what is left of it: {reason}", task.spec.id);
        }
        if let Err(error) = files::write_exit(&task.spec.dir, &exit) {
            eprintln!("{}: its end is not kept: {error}", task.spec.id);
        }
        task.close_stdin();
        task.exit.send_replace(Some(exit));
        // That nobody listens is no error: a listener is first told all that have ended.
        let _ = self.ends.send(task.spec.id.clone());
    }

    /// Signals the first process, or every one.
    pub async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let task = self.get(id)?;
        if task.has_ended() {
            return Ok(());
        }
        if let Some(process) = &task.process {
            let sent = sys::signal_process(process.as_fd(), signal);
            sent.map_err(|error| format!("signalling {id}: {error}"))?;
        }
        // What the first process of a namespace leaves behind the kernel kills. Otherwise this is
        // done once more at the first one's end.
        if all
            && task.spec.shares_pids
            && let Err(reason) = self.kill_all(&task.spec).await
        {
            eprintln!("{id}: not all of it is killed yet: {reason}");
        }
        Ok(())
    }

    async fn kill_all(&self, spec: &TaskSpec) -> std::result::Result<(), String> {
        let call = self.call(spec, "kill").with(|command| {
            command.arg("--all").arg(&spec.id).arg("KILL");
        });
        self.runtimes.run(call, Vec::new()).await.map(drop)
    }

    /// Changes its limits.
    pub async fn update(&self, id: &str, file: &Path) -> Result<()> {
        let task = self.get(id)?;
        let call = self.call(&task.spec, "update").with(|command| {
            command.arg("--resources").arg(file).arg(id);
        });
        self.runtimes.run(call, Vec::new()).await?;
        Ok(())
    }

    /// Forgets a container that has ended.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let _lock = self.lock(id).await;
        let task = self.get(id)?;
        if !task.has_ended() {
            return Err(format!("container {id} runs; kill it first").into());
        }
        let permit = self.room.acquire().await;
        self.clean(&task.spec).await;
        drop(permit);
        let (program, id) = (&task.spec.runtime, &task.spec.id);
        if self.runtimes.knows(program, id) {
            return Err(format!("{program} could not remove container {id}").into());
        }
        files::forget(&task.spec.dir);
        self.known.borrow_mut().remove(id);
        self.locks.borrow_mut().remove(id);
        Ok(())
    }

    /// Lets the OCI runtime remove what it has of a container.
    pub(crate) async fn clean(&self, spec: &TaskSpec) {
        if !self.runtimes.knows(&spec.runtime, &spec.id) {
            return;
        }
        let call = self.call(spec, "delete").with(|command| {
            command.arg("--force").arg(&spec.id);
        });
        if let Err(reason) = self.runtimes.run(call, Vec::new()).await {
            eprintln!("{}: {reason}", spec.id);
        }
    }

    fn call(&self, spec: &TaskSpec, verb: &'static str) -> crate::runtime::Call {
        self.runtimes
            .call(&spec.runtime, files::log_file(&spec.dir), verb)
    }

    async fn lock(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(self.locks.borrow_mut().entry(id.to_owned()).or_default());
        lock.lock_owned().await
    }

    /// The end of something that nobody saw.
    pub(crate) fn unseen() -> Exit {
        Exit {
            code: None,
            at: Timestamp::now(),
        }
    }
}

/// A container that the OCI runtime has just started.
struct Running {
    working: Working,
    pid: u32,
    hold: Option<OwnedFd>,
    console: Option<Console>,
}
