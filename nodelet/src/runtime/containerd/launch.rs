//! Finding a containerd, or starting a private one.
//!
//! A private daemon has its own socket, state and content below the data directory. It survives
//! the agent (its own session, no pipe to us), is found again by its socket, and is stopped
//! only by [`stop`]. What its processes need from us is a small configuration file: the CRI and
//! the snapshotters that we do not use are off, for their memory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::client::Client;
use crate::images::inflate;
use crate::runtime::{Error, Result, sys};

/// Where a distribution's containerd listens.
pub const SYSTEM_SOCKET: &str = "/run/containerd/containerd.sock";

/// A private daemon's configuration file; by it we know the daemon for ours.
const CONFIG: &str = "config.toml";
/// A link to the program that decompresses layers for a private daemon. The daemon outlives the program's
/// updates and moves: its configuration names the link.
const INFLATER: &str = "inflater";

const STARTING: &str = "starting a private containerd";

/// A cold start on a busy machine takes a second or two.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(15);
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Longest path that fits into `sockaddr_un`.
const SOCKET_PATH_MAX: usize = 107;

/// Which containerd to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The machine's, when one answers at [`SYSTEM_SOCKET`]; otherwise a private one.
    #[default]
    Auto,
    /// The one at this socket; it must be there, unless it is the private one's.
    Socket(PathBuf),
    /// A private one, whatever the machine has.
    Private,
}

/// The socket of a containerd that answers. `dir` is where a private one lives
/// (`DATA_DIR/containerd`); `inflater` is the program that decompresses layers for it
/// ([`inflate::inflate_main`]), in the place of its own reader.
pub async fn find_or_start(
    choice: &Choice,
    dir: &Path,
    inflater: Option<&Path>,
) -> Result<PathBuf> {
    let start = async |dir| {
        if let Some(program) = inflater {
            link(program, dir).map_err(|e| failed(STARTING, dir, &e))?;
        }
        start(dir).await
    };
    match choice {
        Choice::Socket(socket) if *socket == private_socket(dir) => start(dir).await,
        Choice::Socket(socket) => answers(socket).await.map(|()| socket.clone()),
        Choice::Auto if answers(Path::new(SYSTEM_SOCKET)).await.is_ok() => {
            Ok(PathBuf::from(SYSTEM_SOCKET))
        }
        Choice::Auto | Choice::Private => start(dir).await,
    }
}

/// Starts the daemon behind this socket again if it is a private one that has ended. The machine's own
/// is its service manager's affair.
pub async fn revive(socket: &Path) -> Result<()> {
    match private_dir(socket) {
        Some(dir) => start(dir).await.map(drop),
        None => Ok(()),
    }
}

/// What helps when nothing answers at this socket.
pub fn remedy(socket: &Path) -> &'static str {
    if private_dir(socket).is_some() {
        "it is Peapod's own and is being started again"
    } else if socket == Path::new(SYSTEM_SOCKET) {
        "start it (systemctl start containerd); containers run on"
    } else {
        "start it; containers run on"
    }
}

/// Where the private daemon with this socket lives; `None` for a daemon of others.
fn private_dir(socket: &Path) -> Option<&Path> {
    let dir = socket.parent()?;
    (private_socket(dir) == socket && dir.join(CONFIG).exists()).then_some(dir)
}

/// The socket of the private daemon in `dir`.
pub fn private_socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

/// Lets [`INFLATER`] lead to a program, whichever it led to before.
fn link(program: &Path, dir: &Path) -> std::io::Result<()> {
    let link = dir.join(INFLATER);
    if fs::read_link(&link).is_ok_and(|at| at == program) {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let new = link.with_extension("new");
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(program, &new)?;
    fs::rename(new, link)
}

async fn answers(socket: &Path) -> Result<()> {
    Client::new(socket, "peapod")?.version().await.map(|_| ())
}

async fn start(dir: &Path) -> Result<PathBuf> {
    let socket = private_socket(dir);
    if answers(&socket).await.is_ok() {
        return Ok(socket);
    }
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Error::Invalid(format!(
            "the path {} is too long for a socket; choose a shorter data directory",
            socket.display()
        )));
    }
    let what = STARTING;
    fs::create_dir_all(dir).map_err(|e| failed(what, dir, &e))?;
    // Several nodes may share it and find at once that it has ended. One starts it; a second
    // daemon would wait for the first one's files, and its number hide the first one's.
    let _turn = turn(dir).await.map_err(|e| failed(what, dir, &e))?;
    let deadline = Instant::now() + START_LIMIT;
    while running_pid(dir).is_some() && Instant::now() < deadline {
        if answers(&socket).await.is_ok() {
            return Ok(socket);
        }
        sleep(CHECK_INTERVAL).await;
    }
    // One that hangs makes room.
    end_all(dir).await;
    let config = dir.join(CONFIG);
    fs::write(&config, config_toml(dir)).map_err(|e| failed(what, &config, &e))?;
    let log = dir.join("containerd.log");
    let output = File::create(&log).map_err(|e| failed(what, &log, &e))?;

    let mut command = Command::new("containerd");
    command
        .arg("--config")
        .arg(&config)
        // Two threads and an eager collector serve one node well and save tens of megabytes.
        .env("GOMAXPROCS", "2")
        .env("GOGC", "40")
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(|e| failed(what, &log, &e))?)
        .stderr(output);
    let mut child = sys::own_session(&mut command)
        .spawn()
        .map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::Unavailable(
                "no containerd answers, and there is none to start; install it \
             (apt install containerd)"
                    .into(),
            ),
            _ => failed(what, dir, &e),
        })?;
    let pid_file = dir.join("containerd.pid");
    fs::write(&pid_file, child.id().to_string()).map_err(|e| failed(what, &pid_file, &e))?;

    let deadline = Instant::now() + START_LIMIT;
    loop {
        if answers(&socket).await.is_ok() {
            tracing::info!(pid = child.id(), socket = %socket.display(), "started containerd");
            reap(child);
            return Ok(socket);
        }
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            // It may have ended by itself.
            let _ = child.kill();
            reap(child);
            let state = ended.map_or("does not answer".to_owned(), |s| format!("ended ({s})"));
            return Err(Error::Unavailable(format!(
                "the private containerd {state}; its last words in {}: {}",
                log.display(),
                last_line(&log)
            )));
        }
        sleep(CHECK_INTERVAL).await;
    }
}

/// Waits for the daemon's end in the background, so that it leaves no zombie if it ends before
/// us.
fn reap(mut child: std::process::Child) {
    let waiter = std::thread::Builder::new().name("containerd-reaper".into());
    if let Err(error) = waiter.spawn(move || child.wait()) {
        tracing::warn!(%error, "cannot wait for containerd");
    }
}

/// Stops the private daemon of `dir`, if it runs, and any that was left beside it. Containers run
/// on.
pub async fn stop(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let turn = turn(dir).await;
    let _turn = turn.map_err(|e| failed("stopping the private containerd", dir, &e))?;
    end_all(dir).await;
    let _ = fs::remove_file(dir.join("containerd.pid"));
    Ok(())
}

/// Waits until nobody else starts or stops the daemon of `dir`.
async fn turn(dir: &Path) -> std::io::Result<Flock<File>> {
    let file = File::create(dir.join("containerd.lock"))?;
    let locked = tokio::task::spawn_blocking(move || Flock::lock(file, FlockArg::LockExclusive));
    let locked = locked.await.map_err(std::io::Error::other)?;
    locked.map_err(|(_, errno)| errno.into())
}

/// Ends every daemon of `dir`, gently first.
async fn end_all(dir: &Path) {
    let deadline = Instant::now() + STOP_LIMIT;
    let mut told = Vec::new();
    loop {
        let running = all(dir);
        if running.is_empty() {
            return;
        }
        for pid in running {
            let late = Instant::now() > deadline;
            if late || !told.contains(&pid) {
                let with = if late {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                // It may have ended in between.
                let _ = kill(pid, with);
                told.push(pid);
            }
        }
        sleep(CHECK_INTERVAL).await;
    }
}

/// Every daemon that was started with the configuration file of `dir`.
fn all(dir: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter(|&pid| is_ours(pid, dir))
        .collect()
}

/// The private daemon's process, if it runs. A stale file may name a stranger's process.
pub fn running_pid(dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(dir.join("containerd.pid")).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?);
    is_ours(pid, dir).then_some(pid)
}

/// Whether the process is alive and was started with our configuration file.
fn is_ours(pid: Pid, dir: &Path) -> bool {
    let config = dir.join(CONFIG);
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|arg| arg == config.as_os_str().as_encoded_bytes())
    })
}

/// The daemon's configuration; everything of its own is below `dir`.
fn config_toml(at: &Path) -> String {
    let dir = at.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[debug]
  level = "warn"
"#
    ) + &inflater_toml(&at.join(INFLATER))
}

/// The part by which gzipped layers go through a program of ours, if there is one.
fn inflater_toml(program: &Path) -> String {
    if !program.exists() {
        return String::new();
    }
    let (program, role) = (program.display(), inflate::ROLE);
    format!(
        r#"[stream_processors."dev.peapod.inflate"]
  accepts = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"]
  returns = "application/vnd.oci.image.layer.v1.tar"
  path = "{program}"
  args = ["{role}"]
"#
    )
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("(nothing)").to_owned()
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Failed {
        what: what.to_owned(),
        reason: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_pid_file_names_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running_pid(dir.path()), None);
        fs::write(
            dir.path().join("containerd.pid"),
            std::process::id().to_string(),
        )
        .unwrap();
        assert_eq!(running_pid(dir.path()), None, "this test is no containerd");
    }

    #[test]
    fn layers_go_through_the_program_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!config_toml(dir.path()).contains("stream_processors"));
        link(Path::new("/an/earlier/one"), dir.path()).unwrap();
        assert!(
            !config_toml(dir.path()).contains("stream_processors"),
            "it is gone"
        );
        let program = std::env::current_exe().unwrap();
        link(&program, dir.path()).unwrap();
        assert!(config_toml(dir.path()).contains(r#"args = ["inflate"]"#));
        assert_eq!(fs::read_link(dir.path().join(INFLATER)).unwrap(), program);
    }

    #[tokio::test]
    async fn a_socket_that_was_asked_for_must_answer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("absent.sock");
        let error = find_or_start(&Choice::Socket(socket), dir.path(), None)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
}
