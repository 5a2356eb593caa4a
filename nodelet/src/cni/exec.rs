//! Runs one plugin.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use peapod_api::cni;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Longest run of a plugin.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest output that is read, in bytes.
const OUTPUT_MAX: u64 = 1024 * 1024;

/// Why a plugin did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error(
        "the CNI plugin {plugin} is in none of {dirs:?}; install it, or name its folder with --cni-bin-dir"
    )]
    Missing {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// It cannot be run.
    #[error("cannot run the CNI plugin {path}: {source}")]
    Unusable {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It takes too long.
    #[error(
        "the CNI plugin {0} did not end within {TIMEOUT:?} and was ended; see what it waits for"
    )]
    Slow(PathBuf),
    /// It says no.
    #[error("the CNI plugin {plugin} failed on {command}: {error}")]
    Refused {
        /// Its type.
        plugin: String,
        /// What it was asked for.
        command: &'static str,
        /// What it says.
        error: cni::Error,
    },
    /// What it says is no answer.
    #[error(
        "the CNI plugin {plugin} answered {command} with what is no answer ({status}): {output}"
    )]
    Nonsense {
        /// Its type.
        plugin: String,
        /// What it was asked for.
        command: &'static str,
        /// How it ended.
        status: String,
        /// The beginning of what it printed.
        output: String,
    },
}

/// What a plugin is asked, beside its input.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// `ADD`, `DEL` ...
    pub command: &'static str,
    /// The other `CNI_*` variables.
    pub env: Vec<(&'static str, String)>,
    /// Where plugins are.
    pub dirs: &'a [PathBuf],
}

/// Where a plugin's program is.
pub fn find(plugin: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut paths = dirs.iter().map(|dir| dir.join(plugin));
    let found = paths.find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing {
        plugin: plugin.to_owned(),
        dirs: dirs.to_vec(),
    })
}

/// Runs a plugin; its result, if it printed one. It is killed when this is dropped.
pub async fn run(
    plugin: &str,
    question: &Question<'_>,
    input: &Value,
) -> Result<Option<Value>, Error> {
    let path = find(plugin, question.dirs)?;
    let done = tokio::time::timeout(TIMEOUT, start(&path, question, input)).await;
    let (success, status, output) = match done {
        Err(_) => return Err(Error::Slow(path)),
        Ok(done) => done.map_err(|source| Error::Unusable { path, source })?,
    };
    let command = question.command;
    let nonsense = || {
        let text = String::from_utf8_lossy(&output);
        Error::Nonsense {
            plugin: plugin.to_owned(),
            command,
            status: status.clone(),
            output: text.chars().take(300).collect(),
        }
    };
    if success {
        return match output.trim_ascii().is_empty() {
            true => Ok(None),
            false => serde_json::from_slice(&output)
                .map(Some)
                .map_err(|_| nonsense()),
        };
    }
    match serde_json::from_slice::<cni::Error>(&output) {
        Ok(error) if error.code != 0 || !error.msg.is_empty() => Err(Error::Refused {
            plugin: plugin.to_owned(),
            command,
            error,
        }),
        _ => Err(nonsense()),
    }
}

async fn start(
    path: &Path,
    question: &Question<'_>,
    input: &Value,
) -> io::Result<(bool, String, Vec<u8>)> {
    let search = std::env::join_paths(question.dirs).unwrap_or_default();
    let mut child = Command::new(path)
        .env("CNI_COMMAND", question.command)
        .env("CNI_PATH", search)
        .envs(question.env.iter().map(|(key, value)| (*key, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let text = input.to_string();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A plugin that does not read it to the end has failed before, and says so itself.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let read = async move {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT_MAX).read_to_end(&mut output).await?;
        }
        io::Result::Ok(output)
    };
    let ((), output) = tokio::join!(write, read);
    let status = child.wait().await?;
    Ok((status.success(), status.to_string(), output?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn run_script(script: &str) -> Result<Option<Value>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scripted");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let question = Question {
            command: "ADD",
            env: vec![("CNI_IFNAME", "eth0".to_owned())],
            dirs: &[dir.path().to_owned()],
        };
        run("scripted", &question, &serde_json::json!({"name": "n"})).await
    }

    #[tokio::test]
    async fn answers_are_read() {
        let echo = run_script(r#"printf '{"said":%s,"of":"%s"}' "$(cat)" "$CNI_IFNAME""#).await;
        let expected = serde_json::json!({"said": {"name": "n"}, "of": "eth0"});
        assert_eq!(echo.unwrap(), Some(expected));
        assert_eq!(run_script("true").await.unwrap(), None);
        let fault =
            run_script(r#"echo '{"code":11,"msg":"later","details":"soon"}'; exit 1"#).await;
        let text = fault.unwrap_err().to_string();
        assert_eq!(
            text,
            "the CNI plugin scripted failed on ADD: later: soon (code 11)"
        );
        let nonsense = run_script("echo oops; exit 3")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            nonsense.contains("exit status: 3") && nonsense.contains("oops"),
            "{nonsense}"
        );
        assert!(run_script("echo oops").await.is_err());
    }

    #[tokio::test]
    async fn a_plugin_that_is_not_there_is_named() {
        let question = Question {
            command: "ADD",
            env: vec![],
            dirs: &["/nowhere".into()],
        };
        let error = run("flannel", &question, &Value::Null).await.unwrap_err();
        assert!(
            error.to_string().contains("flannel is in none of"),
            "{error}"
        );
    }
}
