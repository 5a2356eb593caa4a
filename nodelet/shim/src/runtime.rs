//! OCI runtimes: their command lines (those that runc, crun and youki have in common), and what they
//! say when they fail.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::time::timeout;

use crate::reaper::{Reaper, Working};
use crate::sys::{self, MountCall};

/// A runtime takes milliseconds; on a disk that hangs it is given up before the agent gives us up.
const RUNTIME_LIMIT: Duration = Duration::from_secs(100);
/// How much of a log is looked at for what went wrong.
const LOG_MAX: usize = 64 * 1024;

/// Programs and where they keep their states.
pub struct Runtimes {
    /// A directory for each program: they do not read each other's.
    root: PathBuf,
    reaper: Rc<Reaper>,
}

/// A command line that is not run yet.
pub struct Call {
    command: Command,
    log: PathBuf,
    hide_unified: bool,
    verb: &'static str,
}

// === impl Runtimes ===

impl Runtimes {
    /// `root` is where the programs keep their states.
    pub fn new(root: PathBuf, reaper: Rc<Reaper>) -> Self {
        Self { root, reaper }
    }

    /// A command line of a program, with its errors in the file `log`.
    pub fn call(&self, program: &str, log: PathBuf, verb: &'static str) -> Call {
        let mut command = Command::new(program);
        command.arg("--root").arg(self.state_root(program));
        command
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", verb]);
        command
            .stdin(sys::nowhere())
            .stdout(sys::nowhere())
            .stderr(sys::nowhere());
        let hide_unified = name_of(program).starts_with("crun") && has_both_versions();
        Call {
            command,
            log,
            hide_unified,
            verb,
        }
    }

    /// Whether the program has a container of this name, or a part of one.
    pub fn knows(&self, program: &str, id: &str) -> bool {
        self.state_root(program).join(id).exists()
    }

    fn state_root(&self, program: &str) -> PathBuf {
        self.root.join(name_of(program))
    }

    /// Runs it to its end. `mounts` are mounted for it alone.
    pub async fn run(&self, call: Call, mounts: Vec<MountCall>) -> Result<Working, String> {
        let Call {
            mut command,
            log,
            hide_unified,
            verb,
        } = call;
        let program = command.get_program().to_string_lossy().into_owned();
        let _ = fs::remove_file(&log);
        sys::own_mounts(&mut command, mounts, hide_unified);
        let working = self.reaper.working();
        let spawned = self.reaper.spawn(&mut command);
        // Our copies of its streams are closed here: the container's end must end them.
        drop(command);
        let (pid, ending) = spawned.map_err(|error| {
            format!("cannot run the OCI runtime {program}: {error}; is it installed?")
        })?;
        let Ok(exit) = timeout(RUNTIME_LIMIT, ending.exit()).await else {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            return Err(format!(
                "OCI runtime {verb} not done within {RUNTIME_LIMIT:?}: killed"
            ));
        };
        match exit.code {
            Some(0) => Ok(working),
            code => Err(format!(
                "OCI runtime {verb} failed: {}",
                why(&program, &log, code)
            )),
        }
    }
}

// === impl Call ===

impl Call {
    /// One more word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// The rest of the command line, or the streams.
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }
}

fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// A host with cgroups of both versions, which crun refuses to work on.
fn has_both_versions() -> bool {
    statfs(Path::new(sys::UNIFIED)).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The last error in its log.
fn why(program: &str, log: &Path, code: Option<i32>) -> String {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_MAX)..]).into_owned();
    let mut lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let last = lines.rfind(|line| matches!(line.level.as_str(), "error" | "fatal"));
    match (last, code) {
        (Some(line), _) => line.msg,
        (None, Some(code)) => format!("{program} ended with exit code {code} and said nothing"),
        (None, None) => format!("the end of {program} was not seen"),
    }
}
