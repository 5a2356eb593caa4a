//! The PID namespace that the containers of a pod share (`shareProcessNamespace`), and its first
//! process.
//!
//! A PID namespace lives as long as its first process, which also inherits the orphans in it.
//! Ours is a program of one kilobyte (`reaper/reaper.rs`) that only sleeps: the kernel itself takes
//! its children away. It is not trusted with anything, for a container with `SYS_PTRACE` may look
//! into it: an empty root, the pod's namespaces, no capability, an unprivileged user.
//!
//! It belongs to nobody and outlives the agent. Until the namespace is pinned it waits for a byte
//! from us, so that an agent that dies in between leaves none behind.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::sys;

/// The program, for this machine.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reaper"));

/// Nobody else's user: containers as root cannot be stopped by it, nor it by others.
const USER: u32 = 65_535;
/// Goes after every container when memory runs out, as other runtimes have it for theirs.
const OOM_SCORE_ADJ: &str = "-998";
/// A process that was killed and is there after this is stuck in the kernel, milliseconds.
const KILL_LIMIT_MS: u16 = 10_000;

/// The namespaces that a first process joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The pod's user namespace, which then owns the PID namespace, too.
    pub users: Option<PathBuf>,
    /// Others.
    pub others: Vec<PathBuf>,
}

/// A first process that waits for its byte.
struct First {
    pid: u32,
    stdin: Option<ChildStdin>,
}

/// Makes a PID namespace, pins it at `pin` and gives its first process. `inside` are the pinned
/// namespaces that the process joins; `root`, a directory, becomes its empty root; `note` remembers
/// its number.
pub fn create(
    pin: &Path,
    inside: Inside,
    root: PathBuf,
    note: impl FnOnce(u32) -> io::Result<()>,
) -> io::Result<u32> {
    fs::create_dir_all(&root)?;
    File::create(pin)?;
    let mut first = match inside.users {
        None => spawn_first(inside.others, root)?,
        Some(users) => spawn_first_of(users, inside.others, root)?,
    };
    let pid = first.pid;
    let pinned = sys::bind(&PathBuf::from(format!("/proc/{pid}/ns/pid")), pin)
        .and_then(|()| note(pid))
        .and_then(|()| release(&mut first));
    if let Err(error) = pinned {
        // Without the byte it ends by itself.
        drop(first.stdin.take());
        sys::await_end(pid);
        return Err(error);
    }
    // Where the host does not let it be lowered, it stays at what the agent has.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE_ADJ);
    Ok(pid)
}

/// Whether this process is the first of the namespace pinned at `pin`, and lives.
pub fn is_alive(pid: u32, pin: &Path) -> bool {
    sys::is_pinned(pin) && is_first_of(pid, pin) && !is_zombie(pid)
}

/// Kills the first process of the namespace pinned at `pin`, and with it whatever is in the
/// namespace, and waits for its end. Succeeds when it is gone.
pub fn kill(pid: u32, pin: &Path) -> io::Result<()> {
    let Some(process) = sys::open_process(pid)? else {
        return Ok(());
    };
    // The number may be another process's by now; what is held open here cannot change any more.
    if !sys::is_pinned(pin) || !is_first_of(pid, pin) {
        return Ok(());
    }
    sys::kill_process(process.as_fd())?;
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::from(KILL_LIMIT_MS))? == 0 {
        return Err(io::Error::other(format!(
            "process {pid} was killed and does not end"
        )));
    }
    sys::reap(pid);
    Ok(())
}

fn program() -> io::Result<&'static OwnedFd> {
    static LOADED: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded);
    }
    let mut file = File::from(memfd_create(c"peapod-reaper", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(PROGRAM)?;
    Ok(LOADED.get_or_init(|| file.into()))
}

/// A command that [`become_program`] makes one of the program. The name is never looked up: what runs is a
/// descriptor.
pub fn command() -> Command {
    Command::new("reaper")
}

/// Lets the command run the program, which waits for a byte on its standard input, and ends when there is
/// none.
pub fn become_program(command: &mut Command) -> io::Result<&mut Command> {
    Ok(sys::exec_descriptor(
        command,
        program()?.as_fd(),
        c"peapod-reaper",
    ))
}

fn spawn_first(inside: Vec<PathBuf>, root: PathBuf) -> io::Result<First> {
    program()?;
    let child = sys::in_thread("make-pidns", move || {
        for path in &inside {
            setns(File::open(path)?, CloneFlags::empty())?;
        }
        // Opened while there still is a `/dev`.
        let null = null()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        sys::pivot_to_empty(&root)?;
        let mut command = piped(null)?;
        command.current_dir("/").gid(USER).uid(USER);
        become_program(&mut command)?.spawn()
    })?;
    Ok(First {
        pid: child.id(),
        stdin: child.stdin,
    })
}

/// Only a process of one thread can join a user namespace: what a thread does above, a process does here.
fn spawn_first_of(users: PathBuf, inside: Vec<PathBuf>, root: PathBuf) -> io::Result<First> {
    let paths = std::iter::once(users).chain(inside);
    let namespaces = paths.map(File::open).collect::<io::Result<Vec<_>>>()?;
    let (mut told, tell) = io::pipe()?;
    let mut command = piped(null()?)?;
    sys::first_process_of(&mut command, namespaces, root, USER, tell.into());
    let mut between = become_program(&mut command)?.spawn()?;
    // With it go our copies of what only the new processes use.
    drop(command);
    let stdin = between.stdin.take();
    let mut pid = [0; 4];
    let read = told.read_exact(&mut pid);
    let _ = between.wait();
    read?;
    Ok(First {
        pid: u32::from_ne_bytes(pid),
        stdin,
    })
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

fn piped(null: File) -> io::Result<Command> {
    let mut command = command();
    command
        .stdin(Stdio::piped())
        .stdout(null.try_clone()?)
        .stderr(null);
    Ok(command)
}

fn release(first: &mut First) -> io::Result<()> {
    match first.stdin.take() {
        Some(mut stdin) => stdin.write_all(b"\n"),
        None => Err(io::Error::other("the first process has no input")),
    }
}

fn is_first_of(pid: u32, pin: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let own = inode(&PathBuf::from(format!("/proc/{pid}/ns/pid")));
    own.is_ok_and(|own| inode(pin).is_ok_and(|pinned| own == pinned)) && first_in_its_own(pid)
}

/// Whether a process is number 1 in the innermost of its PID namespaces.
fn first_in_its_own(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::users::{HostIds, namespace};

    fn unmounted(pin: &Path) {
        sys::unmount(pin).unwrap();
    }

    #[test]
    fn the_first_process_is_small_powerless_and_reaps() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("pid");
        let pid = create(&pin, Inside::default(), dir.path().join("root"), |_| Ok(())).unwrap();
        assert!(is_alive(pid, &pin));

        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert_eq!(field("CapPrm:"), "0000000000000000");
        assert_eq!(field("NoNewPrivs:"), "1");
        assert!(field("Uid:").starts_with("65535"));
        let rss_kb: u32 = field("VmRSS:").trim_end_matches(" kB").parse().unwrap();
        assert!(rss_kb <= 64, "{rss_kb} KB");
        let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
        assert!(root.is_empty(), "{root:?}");

        // An orphan becomes its child, ends, and must not stay a zombie.
        let script = "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); tries=0
            while [ -e /proc/$orphan ] && [ $tries -lt 500 ]; do
                sleep 0.02; tries=$((tries + 1)); done
            test ! -e /proc/$orphan && readlink /proc/self/ns/pid";
        let output = Command::new("nsenter")
            .arg(format!("--pid={}", pin.display()))
            .args(["unshare", "--mount", "--mount-proc", "sh", "-c", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");

        kill(pid, &pin).unwrap();
        assert!(!is_alive(pid, &pin));
        kill(pid, &pin).unwrap();
        unmounted(&pin);
    }

    #[test]
    fn a_user_namespace_owns_the_pids_of_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let (pin, user) = (dir.path().join("pid"), dir.path().join("user"));
        let ids = HostIds {
            first: 6_553_600,
            count: 65_536,
        };
        namespace::pin(ids, &user, Vec::new(), || Ok(())).unwrap();
        let inside = Inside {
            users: Some(user.clone()),
            others: Vec::new(),
        };
        let pid = create(&pin, inside, dir.path().join("root"), |_| Ok(())).unwrap();
        assert!(is_alive(pid, &pin));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Uid:\t6619135\t"), "{status}");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
        assert!(root.is_empty(), "{root:?}");
        // A file system of these processes can be mounted only by who owns their namespace.
        let output = Command::new("nsenter")
            .arg(format!("--user={}", user.display()))
            .arg(format!("--pid={}", pin.display()))
            .args(["unshare", "--mount", "--mount-proc", "true"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        kill(pid, &pin).unwrap();
        assert!(!is_alive(pid, &pin));
        unmounted(&pin);
        unmounted(&user);
    }

    #[test]
    fn only_the_namespaces_own_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("pid");
        let pid = create(&pin, Inside::default(), dir.path().join("root"), |_| Ok(())).unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        kill(other.id(), &pin).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "another was killed");
        other.kill().unwrap();
        other.wait().unwrap();
        kill(pid, &pin).unwrap();
        unmounted(&pin);
    }
}
