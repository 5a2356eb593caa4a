//! Programs that a test runs.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A finished program.
#[derive(Clone, Debug)]
pub struct Run {
    /// Exit status; -1 when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Standard output of a program that succeeded.
    pub fn ok(self) -> Result<String> {
        if self.status != 0 {
            bail!(
                "exit status {}\n{}{}",
                self.status,
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }

    /// Standard error of a program that failed, as it should.
    pub fn refused(self) -> Result<String> {
        if self.status == 0 {
            bail!("it should have failed, but said:\n{}", self.stdout);
        }
        Ok(self.stderr)
    }
}

/// Runs a program to its end.
pub fn run<I, S>(program: impl AsRef<OsStr>, args: I) -> Result<Run>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    finish(command, None)
}

/// Runs a prepared command to its end, with a text as its standard input.
pub fn finish(mut command: Command, input: Option<&str>) -> Result<Run> {
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "cannot run {:?}; `make test` installs what tests need",
                command.get_program()
            )
        })?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok(Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The folder of this build's binaries: `target/debug`. Tests lie in `deps` below it, programs
/// such as `peapod-bench` in it.
pub fn binaries() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find the program's own path")?;
    let folder = this.ancestors().skip(1).find(|at| !at.ends_with("deps"));
    folder
        .map(PathBuf::from)
        .context("the program does not run from a target folder")
}

/// The peapod binary of this build.
pub fn peapod() -> Result<PathBuf> {
    let path = binaries()?.join("peapod");
    if !path.exists() {
        bail!(
            "{} is not built; run `cargo build --workspace`, or `make test`",
            path.display()
        );
    }
    Ok(path)
}

/// The archive of a demo image.
pub fn demo_archive(version: &str) -> Result<PathBuf> {
    let path = binaries()?.join(format!("../demo-{version}.tar"));
    if !path.exists() {
        bail!(
            "{} is not made; run `scripts/demo-image target/debug/peapod`, or `make test`",
            path.display()
        );
    }
    Ok(path)
}
