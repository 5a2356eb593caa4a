//! `exec` and `attach`: a process's streams over a WebSocket.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::channels::{self, Incoming, Writer};
use super::{Refusal, Shared, flag, values};
use crate::runtime::{self, ContainerId, ExecSpec, Runtime, Streams, TerminalSize};

/// Bytes of standard input that wait for the process.
const STDIN_BUFFER: usize = 64 * 1024;
/// Sizes of the terminal that wait for the process.
const RESIZES_MAX: usize = 8;

/// Namespace, pod, container.
type Place = Path<(String, String, String)>;

/// Which streams are wanted.
#[derive(Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
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
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let id = running(&shared, &place)?;
    let command = values(query.as_deref(), "command");
    if command.is_empty() {
        return Err(Refusal::bad(
            "you must specify at least 1 command for the container",
        ));
    }
    let wanted = Wanted::of(query.as_deref());
    let runtime = shared.context.runtime.clone();
    Ok(upgrade
        .protocols(channels::PROTOCOLS)
        .on_upgrade(move |socket| {
            converse(socket, wanted, move |streams| async move {
                let spec = ExecSpec {
                    command,
                    tty: wanted.tty,
                };
                runtime.exec(&id, &spec, streams).await.map(Some)
            })
        }))
}

/// Connects to a container's own process.
pub async fn attach(
    State(shared): State<Shared>,
    place: Place,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let id = running(&shared, &place)?;
    let wanted = Wanted::of(query.as_deref());
    let runtime: Arc<dyn Runtime> = shared.context.runtime.clone();
    Ok(upgrade
        .protocols(channels::PROTOCOLS)
        .on_upgrade(move |socket| {
            converse(socket, wanted, move |streams| async move {
                // How the container ends is not how the attachment ends.
                runtime.attach(&id, streams).await.map(|_code| None)
            })
        }))
}

/// Connects a WebSocket with a process until either is done.
async fn converse<F, R>(socket: WebSocket, wanted: Wanted, process: F)
where
    F: FnOnce(Streams) -> R,
    R: Future<Output = runtime::Result<Option<i32>>>,
{
    let (mut incoming, queue, outgoing) = channels::open(socket);
    let (stdin, process_stdin) = tokio::io::duplex(STDIN_BUFFER);
    let (resizes, process_resizes) = mpsc::channel(RESIZES_MAX);
    let writer =
        |wanted: bool, channel: u8| -> Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>> {
            wanted.then(|| Box::new(Writer::new(Some(channel), queue.clone())) as _)
        };
    let streams = Streams {
        stdin: wanted.stdin.then(|| Box::new(process_stdin) as _),
        stdout: writer(wanted.stdout, channels::STDOUT),
        stderr: writer(wanted.stderr, channels::STDERR),
        resize: wanted.tty.then_some(process_resizes),
    };
    let mut input = Input {
        stdin: wanted.stdin.then_some(stdin),
        resizes,
    };
    let process = async move {
        // Tells the client that the streams stand.
        let _ = queue.send(channels::message(channels::STDOUT, b"")).await;
        let status: Value = match process(streams).await {
            Ok(code) => channels::exit_status(code.unwrap_or(0)),
            Err(error) => channels::error_status(&error.to_string()),
        };
        let text = status.to_string();
        let _ = queue
            .send(channels::message(channels::ERROR, text.as_bytes()))
            .await;
        // A close without a code reads as a broken connection.
        let normal = CloseFrame {
            code: close_code::NORMAL,
            reason: Utf8Bytes::default(),
        };
        let _ = queue.send(Message::Close(Some(normal))).await;
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
    stdin: Option<DuplexStream>,
    resizes: mpsc::Sender<TerminalSize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Input {
    async fn take(&mut self, message: Bytes) {
        match channels::parse(message) {
            Some(Incoming::Data(channels::STDIN, data)) => {
                // A process that reads no more misses nothing.
                if let Some(stdin) = &mut self.stdin
                    && stdin.write_all(&data).await.is_err()
                {
                    self.stdin = None;
                }
            }
            Some(Incoming::Data(channels::RESIZE, data)) => {
                if let Ok(Size { width, height }) = serde_json::from_slice(&data) {
                    // Of many in a row the next one will do.
                    let _ = self.resizes.try_send(TerminalSize { width, height });
                }
            }
            Some(Incoming::Close(channels::STDIN)) => self.stdin = None,
            Some(_) | None => {}
        }
    }
}
