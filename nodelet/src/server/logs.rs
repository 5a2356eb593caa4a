//! `containerLogs`: what a container wrote.

use axum::body::{Body, Bytes};
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, UPGRADE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::channels::{self, Framing};
use super::{Refusal, Shared, flag, values};
use crate::logs::format::Stream;
use crate::logs::reader::{Options, Reader};
use crate::runtime::ContainerId;

/// What is wanted of a log.
fn options(query: Option<&str>, now: Timestamp) -> Result<Options, Refusal> {
    let first = |key: &str| {
        values(query, key)
            .into_iter()
            .next()
            .filter(|text| !text.is_empty())
    };
    let number = |key: &str| -> Result<Option<u64>, Refusal> {
        let parse = |text: String| {
            let bad =
                |_| Refusal::bad(format!("{key} must be a number of 0 or more, not {text:?}"));
            text.parse().map_err(bad)
        };
        first(key).map(parse).transpose()
    };
    let since = match (number("sinceSeconds")?, first("sinceTime")) {
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            now.checked_sub(SignedDuration::from_secs(seconds))
                .ok()
                .or(Some(Timestamp::MIN))
        }
        (None, Some(text)) => {
            let bad = |e| Refusal::bad(format!("sinceTime {text:?} is no RFC 3339 time: {e}"));
            Some(text.parse().map_err(bad)?)
        }
        (None, None) => None,
    };
    let stream = match first("stream").as_deref() {
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        _ => None,
    };
    Ok(Options {
        since,
        tail: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        timestamps: flag(query, "timestamps"),
        follow: flag(query, "follow"),
        stream,
    })
}

/// Answers with a log, to its end or for as long as the container runs.
pub async fn logs(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = request.uri().query();
    let entry = shared.pod(&namespace, &pod)?;
    let mut options = options(query, Timestamp::now())?;
    let previous = flag(query, "previous");
    let (attempt, running) = {
        let machine = entry.machine.lock();
        let attempt = machine
            .log_attempt(&container, previous)
            .map_err(Refusal::bad)?;
        let id = machine
            .container_id(&container, false)
            .filter(|_| machine.runs(&container));
        (attempt, id.filter(|_| !previous).map(str::to_owned))
    };
    let path = shared.context.log_path(&entry.pod(), &container, attempt);
    let complete = CancellationToken::new();
    let mut watching = None;
    match running {
        Some(id) => {
            let runtime = shared.context.runtime.clone();
            let flushed = runtime.flush_log(&ContainerId(id.clone())).await;
            if let Err(error) = flushed {
                tracing::debug!(%container, %error, "what was just written may be missing");
            }
            let (complete, container) = (complete.clone(), container.clone());
            watching = options.follow.then(|| {
                AbortOnDropHandle::new(tokio::spawn(async move {
                    entry.ended(&container, &id).await;
                    complete.cancel();
                }))
            });
        }
        None => options.follow = false,
    }
    let reader = Reader::open(&path, &options, complete)
        .await
        .map_err(|error| {
            Refusal::failed(format!(
                "failed to open the log of container {container}: {error}"
            ))
        })?;
    // The watch for the container's end lives as long as the answer does.
    let pieces = reader.into_stream().inspect(move |_| {
        let _ = &watching;
    });
    if request.headers().contains_key(UPGRADE) {
        return Ok(over_websocket(request, pieces).await);
    }
    Ok(([(CONTENT_TYPE, "text/plain")], Body::from_stream(pieces)).into_response())
}

/// The log in messages of a WebSocket, for clients that ask for one (`binary.k8s.io`).
async fn over_websocket<E: std::fmt::Display + Send + 'static>(
    request: Request,
    pieces: impl futures::Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    let (mut parts, _body) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.protocols(channels::READER_PROTOCOLS),
        Err(refusal) => return refusal.into_response(),
    };
    let framing = Framing::of(upgrade.selected_protocol());
    upgrade.on_upgrade(move |socket| send(socket, framing, pieces))
}

/// Sends all pieces, until the client goes or the log ends.
async fn send<E: std::fmt::Display>(
    socket: WebSocket,
    framing: Framing,
    pieces: impl futures::Stream<Item = Result<Bytes, E>>,
) {
    let (incoming, queue, outgoing) = channels::open(socket);
    let sending = async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            let Ok(data) = piece.inspect_err(|error| tracing::debug!(%error, "a log broke off"))
            else {
                break;
            };
            if queue.send(framing.raw(&data)).await.is_err() {
                return;
            }
        }
        let _ = queue.send(channels::goodbye()).await;
    };
    // What a client says is of no matter, but that it goes is.
    let said = incoming.take_while(|message| std::future::ready(message.is_ok()));
    let mut gone = std::pin::pin!(said.for_each(|_| std::future::ready(())));
    tokio::select! {
        ((), ()) = async { tokio::join!(sending, outgoing.run()) } => {}
        () = &mut gone => return,
    }
    channels::farewell(gone).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_query() {
        let now = Timestamp::from_second(100).unwrap();
        let parsed = options(Some("follow=true&tailLines=5&sinceSeconds=40"), now).unwrap();
        assert!(parsed.follow && !parsed.timestamps);
        assert_eq!(parsed.tail, Some(5));
        assert_eq!(parsed.since, Timestamp::from_second(60).ok());
        assert!(options(Some("tailLines=-1"), now).is_err());
        assert!(options(Some("sinceTime=yesterday"), now).is_err());
        let since = options(Some("sinceTime=1970-01-01T00:00:10Z"), now)
            .unwrap()
            .since;
        assert_eq!(since, Timestamp::from_second(10).ok());
    }
}
