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
        // A close is answered as the next message is waited for, of which there is none: then it ends.
        while let Some(Ok(message)) = incoming.next().await {
            match message {
                Message::Binary(data) => input.take(data).await,
                Message::Text(text) => input.take(text.into()).await,
                Message::Close(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    tokio::pin!(reading);
    // A client that goes takes its process along; an ended process is reported first.
    tokio::select! {
        ((), ()) = async { tokio::join!(process, outgoing.run()) } => {}
        () = &mut reading => return,
    }
    channels::farewell(reading).await;
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use futures::SinkExt;
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message as Sent;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A client of a command that ends when `ends` says so.
    async fn client<R>(
        ends: impl FnOnce(Streams) -> R + Clone + Send + Sync + 'static,
    ) -> (WebSocketStream<DuplexStream>, AbortOnDropHandle<()>)
    where
        R: Future<Output = runtime::Result<Option<i32>>> + Send + 'static,
    {
        let (near, far) = tokio::io::duplex(STDIN_BUFFER);
        let wanted = Wanted {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let router =
            Router::new().fallback(move |request: Request| upgraded(request, wanted, ends));
        let server = tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(far), TowerToHyperService::new(router))
                .with_upgrades();
            connection.await.unwrap();
        });
        let mut request = "ws://node/exec".into_client_request().unwrap();
        let protocol = "v5.channel.k8s.io".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (socket, _) = tokio_tungstenite::client_async(request, near)
            .await
            .unwrap();
        (socket, AbortOnDropHandle::new(server))
    }

    #[tokio::test]
    async fn a_client_that_closes_is_answered_and_its_command_ends() {
        let (held, ended) = tokio::sync::watch::channel(());
        let (mut socket, _server) = client(move |_streams| async move {
            let _held = held;
            std::future::pending().await
        })
        .await;
        let hello = socket.next().await.unwrap().unwrap();
        assert_eq!(hello.into_data().as_ref(), [channels::STDOUT]);
        socket.send(Sent::Close(None)).await.unwrap();
        let answer = socket.next().await;
        assert!(matches!(answer, Some(Ok(Sent::Close(_)))), "{answer:?}");
        assert!(socket.next().await.is_none());
        assert!(
            ended.clone().changed().await.is_err(),
            "the command still runs"
        );
    }

    #[tokio::test]
    async fn the_end_of_a_command_is_the_last_word_before_the_close() {
        let (mut socket, _server) = client(|streams| async move {
            let mut output = streams.stdout.unwrap();
            output.write_all(b"done").await.unwrap();
            Ok(Some(0))
        })
        .await;
        // It types on though nobody reads.
        let typed = Sent::Binary(Bytes::from_static(b"\0ls\n"));
        for _ in 0..100 {
            if socket.send(typed.clone()).await.is_err() {
                break;
            }
        }
        let mut said = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            said.push(message);
        }
        let channels: Vec<u8> = said[..3].iter().map(|m| m.clone().into_data()[0]).collect();
        assert_eq!(
            channels,
            [channels::STDOUT, channels::STDOUT, channels::ERROR]
        );
        let close = &said[3];
        assert!(
            matches!(close, Sent::Close(Some(frame)) if u16::from(frame.code) == 1000),
            "{close:?}"
        );
    }
}
