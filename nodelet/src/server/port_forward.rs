//! `portForward`: connections to ports of a pod, carried to wherever the client is.
//!
//! Three ways to carry them: SPDY/3.1 tunnelled in a WebSocket (kubectl since 1.31), SPDY/3.1
//! by itself (older ones), and the channels of a WebSocket (the Python client).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderName, UPGRADE};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use peapod_spdy::{Session, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

use super::channels::{self, Framing, Incoming, Writer};
use super::dial::dial;
use super::{Refusal, Shared, values};
use crate::core::spec_of;
use crate::pods::Entry;

/// SPDY in a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// SPDY by itself.
const SPDY: &str = "SPDY/3.1";
/// What is spoken in SPDY.
const PROTOCOL: &str = "portforward.k8s.io";
const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Ports of one request by channels.
const PORTS_MAX: usize = 64;
/// Bytes read at once.
const CHUNK: usize = 32 * 1024;

/// Where a pod's ports are reached.
#[derive(Clone)]
struct Target {
    netns: Option<PathBuf>,
    pod: String,
}

impl Target {
    fn of(entry: &Entry) -> Result<Self, Refusal> {
        let pod = entry.pod();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let netns = entry.netns();
        if netns.is_none() && spec_of(&pod).host_network != Some(true) {
            return Err(Refusal::bad(format!("pod {name} is not connected yet")));
        }
        Ok(Self { netns, pod: name })
    }

    async fn dial(&self, port: u16) -> Result<tokio::net::TcpStream, String> {
        dial(self.netns.clone(), port).await.map_err(|error| {
            format!(
                "failed to connect to localhost:{port} inside pod {}: {error}",
                self.pod
            )
        })
    }
}

/// Carries connections in whichever way the client asks for.
pub async fn port_forward(
    State(shared): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let target = Target::of(&*shared.pod(&namespace, &pod)?)?;
    let asks_spdy = request.headers().get(UPGRADE).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.eq_ignore_ascii_case(SPDY))
    });
    if asks_spdy {
        return Ok(plain_spdy(target, request));
    }
    let query = request.uri().query().map(str::to_owned);
    let (mut parts, _body) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| Refusal::bad(format!("port-forward needs an upgrade: {e}")))?;
    let upgrade = upgrade.protocols([TUNNEL, "v4.channel.k8s.io"]);
    if upgrade
        .selected_protocol()
        .is_some_and(|protocol| protocol.as_bytes() == TUNNEL.as_bytes())
    {
        return Ok(upgrade.on_upgrade(move |socket| tunnel(target, socket)));
    }
    let mut asked = values(query.as_deref(), "port");
    asked.extend(values(query.as_deref(), "ports"));
    let listed = asked.iter().flat_map(|list| list.split(','));
    let ports: Result<Vec<u16>, _> = listed.map(str::parse).collect();
    let ports = ports.map_err(|_| Refusal::bad("ports must be numbers from 1 to 65535"))?;
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(Refusal::bad(format!(
            "name 1 to {PORTS_MAX} ports (?port=80)"
        )));
    }
    Ok(upgrade.on_upgrade(move |socket| by_channels(target, ports, socket)))
}

// === SPDY ===

fn plain_spdy(target: Target, mut request: Request) -> Response {
    let upgrading = hyper::upgrade::on(&mut request);
    // Ends with the connection that it took over.
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                forward(target, Session::accepting(read, write)).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade to SPDY failed"),
        }
    });
    let headers = [
        (CONNECTION, "Upgrade"),
        (UPGRADE, SPDY),
        (PROTOCOL_HEADER, PROTOCOL),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn tunnel(target: Target, socket: WebSocket) {
    let (incoming, queue, outgoing) = channels::open(socket);
    let bytes = incoming.filter_map(async |message| match message {
        Ok(Message::Binary(data)) => Some(Ok(data)),
        Ok(Message::Text(text)) => Some(Ok(Bytes::from(text))),
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    let read = StreamReader::new(Box::pin(bytes));
    let session = Session::accepting(read, Writer::new(Framing::Binary, None, queue));
    tokio::join!(forward(target, session), outgoing.run());
}

/// The two streams of one connection.
#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Connects each pair of streams with its port until the session is over.
async fn forward(target: Target, mut session: Session) {
    let target = Arc::new(target);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        let request = stream.header("requestid").unwrap_or_default().to_owned();
        let pair = pairs.entry(request.clone()).or_default();
        match stream.header("streamtype") {
            Some("data") => pair.data = Some(stream),
            Some("error") => pair.error = Some(stream),
            _ => continue,
        }
        if let Pair {
            data: Some(_),
            error: Some(_),
        } = pair
            && let Some(Pair {
                data: Some(data),
                error: Some(error),
            }) = pairs.remove(&request)
        {
            connections.spawn(connect(target.clone(), data, error));
        }
    }
}

/// One connection. When the session is closed there is nobody left to tell of a failure.
async fn connect(target: Arc<Target>, data: Stream, error: Stream) {
    let port = data
        .header("port")
        .and_then(|port| port.parse::<u16>().ok());
    let (_, complaint) = error.split();
    let (mut from_client, to_client) = data.split();
    let connected = match port {
        Some(port) => target.dial(port).await,
        None => Err("the stream names no port".to_owned()),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(message) => {
            let _ = complaint.send(Bytes::from(message)).await;
            let _ = complaint.finish().await;
            let _ = to_client.reset().await;
            return;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while read
            .read_buf(&mut buffer)
            .await
            .is_ok_and(|count| count > 0)
        {
            if to_client.send(buffer.split().freeze()).await.is_err() {
                return;
            }
            buffer.reserve(CHUNK);
        }
        let _ = to_client.finish().await;
    };
    tokio::join!(up, down);
    let _ = complaint.finish().await;
}

// === channels ===

/// Each port has two channels, data and error; both begin with the port's number.
async fn by_channels(target: Target, ports: Vec<u16>, socket: WebSocket) {
    let (mut incoming, queue, outgoing) = channels::open(socket);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        // At most 128 channels: two for each of 64 ports.
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
        let (input, local) = tokio::io::duplex(CHUNK);
        inputs.push(Some(input));
        connections.spawn(channel_pair(
            target.clone(),
            port,
            channel,
            local,
            queue.clone(),
        ));
    }
    drop(queue);
    let reading = async {
        while let Some(Ok(message)) = incoming.next().await {
            let Message::Binary(data) = message else {
                continue;
            };
            let Some(Incoming::Data(channel, data)) = Framing::Binary.parse(data) else {
                continue;
            };
            let slot = inputs.get_mut(usize::from(channel / 2));
            if let Some(input @ Some(_)) = slot
                && let Some(stream) = input
                && stream.write_all(&data).await.is_err()
            {
                *input = None;
            }
        }
    };
    tokio::pin!(reading);
    tokio::select! {
        () = &mut reading => return,
        () = outgoing.run() => {}
    }
    channels::farewell(reading).await;
}

async fn channel_pair(
    target: Target,
    port: u16,
    channel: u8,
    local: DuplexStream,
    queue: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let hello = Framing::Binary.message(channel, &port.to_le_bytes());
        if queue.send(hello).await.is_err() {
            return;
        }
    }
    let stream = match target.dial(port).await {
        Ok(stream) => stream,
        Err(message) => {
            let _ = queue
                .send(Framing::Binary.message(channel + 1, message.as_bytes()))
                .await;
            return;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let (mut from_client, _) = tokio::io::split(local);
    let mut to_client = Writer::new(Framing::Binary, Some(channel), queue);
    // The end of the pod's side ends the connection: channels cannot be half closed.
    tokio::select! {
        _ = tokio::io::copy(&mut read, &mut to_client) => {}
        _ = tokio::io::copy(&mut from_client, &mut write) => {}
    }
}
