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
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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

/// Makes a PID namespace, pins it at `pin` and gives its first process. `inside` are the pinned
/// namespaces that the process joins; `root`, a directory, becomes its empty root; `note` remembers
/// its number.
pub fn create(
    pin: &Path,
    inside: Vec<PathBuf>,
    root: PathBuf,
    note: impl FnOnce(u32) -> io::Result<()>,
) -> io::Result<u32> {
    fs::create_dir_all(&root)?;
    File::create(pin)?;
    let program = program()?;
    let mut child = sys::in_thread("make-pidns", move || {
        for path in &inside {
            setns(File::open(path)?, CloneFlags::empty())?;
        }
        // Opened while there still is a `/dev`.
        let null = File::options().read(true).write(true).open("/dev/null")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        sys::pivot_to_empty(&root)?;
        spawn(program, null)
    })?;
    let pid = child.id();
    let pinned = sys::bind(&PathBuf::from(format!("/proc/{pid}/ns/pid")), pin)
        .and_then(|()| note(pid))
        .and_then(|()| release(&mut child));
    if let Err(error) = pinned {
        // Without the byte it ends by itself.
        drop(child.stdin.take());
        let _ = child.wait();
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

fn spawn(program: &'static OwnedFd, null: File) -> io::Result<Child> {
    // The name is never looked up: what runs is the descriptor.
    let mut command = Command::new("reaper");
    command
        .stdin(Stdio::piped())
        .stdout(null.try_clone()?)
        .stderr(null)
        .current_dir("/")
        .gid(USER)
        .uid(USER);
    sys::exec_descriptor(&mut command, program.as_fd(), c"peapod-reaper").spawn()
}

fn release(child: &mut Child) -> io::Result<()> {
    match child.stdin.take() {
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

    fn unmounted(pin: &Path) {
        sys::unmount(pin).unwrap();
    }

    #[test]
    fn the_first_process_is_small_powerless_and_reaps() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("pid");
        let pid = create(&pin, Vec::new(), dir.path().join("root"), |_| Ok(())).unwrap();
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
    fn only_the_namespaces_own_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pin = dir.path().join("pid");
        let pid = create(&pin, Vec::new(), dir.path().join("root"), |_| Ok(())).unwrap();
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        kill(other.id(), &pin).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "another was killed");
        other.kill().unwrap();
        other.wait().unwrap();
        kill(pid, &pin).unwrap();
        unmounted(&pin);
    }
}
