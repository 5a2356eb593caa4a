//! `exec` and `attach`: a process in a container, with this terminal as its own.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use nix::sys::termios::{self, SetArg, Termios};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};

use super::session::{Session, server_error};
use crate::terminal;

/// The arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// POD, pod/NAME, or TYPE/NAME of a workload
    target: String,
    #[command(flatten)]
    stream: StreamArgs,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The arguments of `attach`.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// POD, pod/NAME, or TYPE/NAME of a workload
    target: String,
    #[command(flatten)]
    stream: StreamArgs,
}

#[derive(Debug, clap::Args)]
struct StreamArgs {
    /// Container
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The container's end is a terminal
    #[arg(short = 't', long)]
    tty: bool,
}

impl StreamArgs {
    fn params(&self) -> AttachParams {
        let tty = self.tty && std::io::stdin().is_terminal();
        let mut params = AttachParams::default()
            .stdin(self.stdin)
            .stdout(true)
            .stderr(!tty)
            .tty(tty);
        params.container = self.container.clone();
        params
    }
}

/// Runs `exec`; the status is the command's own.
pub async fn run(session: &Session, args: &ExecArgs) -> Result<u8> {
    let pod = pod_of(session, &args.target).await?;
    let api: Api<Pod> = Api::namespaced(session.client(), session.namespace());
    let params = args.stream.params();
    let process = api
        .exec(&pod, args.command.clone(), &params)
        .await
        .map_err(server_error)?;
    converse(process, params.stdin, params.tty).await
}

/// Runs `attach`.
pub async fn attach(session: &Session, args: &AttachArgs) -> Result<u8> {
    let pod = pod_of(session, &args.target).await?;
    let api: Api<Pod> = Api::namespaced(session.client(), session.namespace());
    let params = args.stream.params();
    let process = api.attach(&pod, &params).await.map_err(server_error)?;
    converse(process, params.stdin, params.tty).await
}

/// The pod that a word means: itself, or the first running pod of a workload.
pub async fn pod_of(session: &Session, word: &str) -> Result<String> {
    let Some((kind, name)) = word.split_once('/') else {
        return Ok(word.to_owned());
    };
    let resource = session.resource(kind).await?;
    if resource.plural == "pods" {
        return Ok(name.to_owned());
    }
    let object = session
        .get(&resource.object(session.namespace(), name))
        .await?;
    let selector = super::logs::selector_of(&object)?;
    let pods = session.resource("pods").await?;
    let path = pods.collection(Some(session.namespace()));
    let list = session
        .get(&(path + &super::args::query(&[("labelSelector", &selector)])))
        .await?;
    let running = list["items"].as_array().into_iter().flatten().find(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    let name = running.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned)
        .with_context(|| format!("no running pod belongs to {word}"))
}

/// Puts the terminal into raw mode, and back when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before =
            termios::tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)
            .context("cannot set the terminal's mode")?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done when it fails: the terminal is gone.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

async fn converse(mut process: AttachedProcess, stdin: bool, tty: bool) -> Result<u8> {
    let raw = if tty {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let status = process.take_status();
    let mut tasks = tokio::task::JoinSet::new();
    if let (true, Some(mut input)) = (stdin, process.stdin()) {
        tasks.spawn(async move {
            let mut source = tokio::io::stdin();
            // The other end may close first; then there is no one to tell.
            let _ = tokio::io::copy(&mut source, &mut input).await;
            let _ = input.shutdown().await;
        });
    }
    if let (true, Some(sizes)) = (tty, process.terminal_size()) {
        tasks.spawn(follow_size(sizes));
    }
    let mut outputs = tokio::task::JoinSet::new();
    if let Some(mut output) = process.stdout() {
        outputs.spawn(async move { copy_now(&mut output, tokio::io::stdout()).await });
    }
    if let Some(mut output) = process.stderr() {
        outputs.spawn(async move { copy_now(&mut output, tokio::io::stderr()).await });
    }
    while let Some(done) = outputs.join_next().await {
        done??;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    tasks.abort_all();
    drop(raw);
    exit_code(status)
}

async fn copy_now(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    mut to: impl tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}

async fn follow_size(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Some((height, width)) = terminal::console_size()
            && sizes.send(TerminalSize { width, height }).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// The command's exit status, from the stream's closing word.
fn exit_code(status: Option<Status>) -> Result<u8> {
    let Some(status) = status else {
        bail!("the connection to the container was lost")
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status
        .details
        .as_ref()
        .and_then(|d| d.causes.as_deref())
        .unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code
        .and_then(|cause| cause.message.as_deref())
        .and_then(|m| m.parse::<i32>().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Ok(code as u8)
        }
        None => bail!(
            "{}",
            status
                .message
                .unwrap_or_else(|| "the command failed".to_owned())
        ),
    }
}
