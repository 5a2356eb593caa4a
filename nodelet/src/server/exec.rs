//! `exec` and `attach`: a process's streams over a WebSocket, or over SPDY ([`super::exec_spdy`]).

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::channels::{self, Framing, Incoming, Protocol, Writer};
use super::{Refusal, Shared, exec_spdy, flag, values};
use crate::runtime::{self, ContainerId, ExecSpec, Runtime, Streams, TerminalSize};

/// Bytes of standard input that wait for the process.
pub const STDIN_BUFFER: usize = 64 * 1024;
/// Sizes of the terminal that wait for the process.
pub const RESIZES_MAX: usize = 8;

/// Namespace, pod, container.
type Place = Path<(String, String, String)>;

/// Which streams are wanted.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; not with a terminal.
    pub stderr: bool,
    /// A terminal, and with it its sizes.
    pub tty: bool,
}

impl Wanted {
    fn of(query: Option<&str>) -> Self {
        let tty = flag(query, "tty");
        Self {
            stdin: flag(query, "input") || flag(query, "stdin"),
            stdout: flag(query, "output") || flag(query, "stdout"),
            stderr: !tty && (flag(query, "error") || flag(query, "stderr")),
            tty,
        }
    }
}

fn running(shared: &Shared, place: &Place) -> Result<ContainerId, Refusal> {
    let Path((namespace, pod, container)) = place;
    let entry = shared.pod(namespace, pod)?;
    let machine = entry.machine.lock();
    let id = machine
        .container_id(container, false)
        .filter(|_| machine.runs(container));
    let id =
        id.ok_or_else(|| Refusal::not_found(format!("container not found (\"{container}\")")))?;
    Ok(ContainerId(id.to_owned()))
}

/// Runs a command in a container.
pub async fn exec(
    State(shared): State<Shared>,
    place: Place,
    request: Request,
) -> Result<Response, Refusal> {
    let id = running(&shared, &place)?;
    let query = request.uri().query();
    let command = values(query, "command");
    if command.is_empty() {
        return Err(Refusal::bad(
            "you must specify at least 1 command for the container",
        ));
    }
    let wanted = Wanted::of(query);
    let runtime = shared.context.runtime.clone();
    let process = move |streams| async move {
        let spec = ExecSpec {
            command,
            tty: wanted.tty,
        };
        runtime.exec(&id, &spec, streams).await.map(Some)
    };
    upgraded(request, wanted, process).await
}

/// Connects to a container's own process.
pub async fn attach(
    State(shared): State<Shared>,
    place: Place,
    request: Request,
) -> Result<Response, Refusal> {
    let id = running(&shared, &place)?;
    let wanted = Wanted::of(request.uri().query());
    let runtime: Arc<dyn Runtime> = shared.context.runtime.clone();
    // How the container ends is not how the attachment ends.
    let process =
        move |streams| async move { runtime.attach(&id, streams).await.map(|_code| None) };
    upgraded(request, wanted, process).await
}

/// Carries a process's streams in whichever way the client asks for.
async fn upgraded<F, R>(request: Request, wanted: Wanted, process: F) -> Result<Response, Refusal>
where
    F: FnOnce(Streams) -> R + Send + 'static,
    R: Future<Output = runtime::Result<Option<i32>>> + Send + 'static,
{
    if exec_spdy::is_asked_for(request.headers()) {
        return exec_spdy::upgrade(request, wanted, process);
    }
    let (mut parts, _body) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let upgrade = upgrade.protocols(channels::PROTOCOLS);
    let protocol = Protocol::of(upgrade.selected_protocol());
    Ok(upgrade.on_upgrade(move |socket| converse(socket, protocol, wanted, process)))
}

/// Connects a WebSocket with a process until either is done.
async fn converse<F, R>(socket: WebSocket, protocol: Protocol, wanted: Wanted, process: F)
where
    F: FnOnce(Streams) -> R,
    R: Future<Output = runtime::Result<Option<i32>>>,
{
    let framing = protocol.framing;
    let (mut incoming, queue, outgoing) = channels::open(socket);
    let (stdin, process_stdin) = tokio::io::duplex(STDIN_BUFFER);
    let (resizes, process_resizes) = mpsc::channel(RESIZES_MAX);
    let writer =
        |wanted: bool, channel: u8| -> Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>> {
            wanted.then(|| Box::new(Writer::new(framing, Some(channel), queue.clone())) as _)
        };
    let streams = Streams {
        stdin: wanted.stdin.then(|| Box::new(process_stdin) as _),
        stdout: writer(wanted.stdout, channels::STDOUT),
        stderr: writer(wanted.stderr, channels::STDERR),
        resize: wanted.tty.then_some(process_resizes),
    };
    let mut input = Input {
        framing,
        stdin: wanted.stdin.then_some(stdin),
        resizes,
    };
    let process = async move {
        // Tells the client that the streams stand.
        let _ = queue.send(framing.message(channels::STDOUT, b"")).await;
        let status: Value = match process(streams).await {
            Ok(code) => channels::exit_status(code.unwrap_or(0)),
            Err(error) => channels::error_status(&error.to_string()),
        };
        for last in protocol
            .end(&status)
            .into_iter()
            .chain([channels::goodbye()])
        {
            let _ = queue.send(last).await;
        }
    };
    let reading = async {
        while let Some(Ok(message)) = incoming.next().await {
            match message {
                Message::Binary(data) => input.take(data).await,
                Message::Text(text) => input.take(text.into()).await,
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    // A client that goes takes its process along; an ended process is reported first.
    tokio::select! {
        ((), ()) = async { tokio::join!(process, outgoing.run()) } => {}
        () = reading => {}
    }
}

/// What a client sends to a process.
struct Input {
    framing: Framing,
    stdin: Option<DuplexStream>,
    resizes: mpsc::Sender<TerminalSize>,
}

/// A terminal's size as a client writes it; `None` for anything else.
pub fn terminal_size(message: &[u8]) -> Option<TerminalSize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let Size { width, height } = serde_json::from_slice(message).ok()?;
    Some(TerminalSize { width, height })
}

impl Input {
    async fn take(&mut self, message: Bytes) {
        match self.framing.parse(message) {
            Some(Incoming::Data(channels::STDIN, data)) => {
                // A process that reads no more misses nothing.
                if let Some(stdin) = &mut self.stdin
                    && stdin.write_all(&data).await.is_err()
                {
                    self.stdin = None;
                }
            }
            Some(Incoming::Data(channels::RESIZE, data)) => {
                if let Some(size) = terminal_size(&data) {
                    // Of many in a row the next one will do.
                    let _ = self.resizes.try_send(size);
                }
            }
            Some(Incoming::Close(channels::STDIN)) => self.stdin = None,
            Some(_) | None => {}
        }
    }
}
