//! `/agents/NAME?ask=LINE`: looks into the other agents of this node, from wherever the API is.
//!
//! An agent answers on a socket of its own: one line is asked, and lines are answered until it
//! closes. What they say is between it and whoever asks.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path as Matched, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use super::{Refusal, Shared, values};

/// Longest question, in bytes.
const QUESTION_MAX: usize = 4 * 1024;
/// Longest time for an agent to take a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Passes a question on, and the answer back.
pub async fn ask(
    State(shared): State<Shared>,
    Matched(name): Matched<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let Some(socket) = shared.agents.get(&name) else {
        return Err(Refusal::not_found(format!("no agent {name:?} here")));
    };
    let question = values(query.as_deref(), "ask").into_iter().next();
    let question = question.filter(|line| line.len() <= QUESTION_MAX && !line.contains('\n'));
    let Some(question) = question else {
        return Err(Refusal::bad(format!(
            "the query must be ask=LINE, of {QUESTION_MAX} bytes at most"
        )));
    };
    let connecting = tokio::time::timeout(PATIENCE, put(socket, question));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Refusal::not_found(format!(
                "agent {name:?} does not answer at {}: {error}",
                socket.display()
            )));
        }
        Err(_) => return Err(Refusal::failed(format!("agent {name:?} takes no question"))),
    };
    let body = Body::from_stream(ReaderStream::new(stream));
    Ok(([(CONTENT_TYPE, "application/jsonl")], body).into_response())
}

async fn put(socket: &Path, mut question: String) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    question.push('\n');
    stream.write_all(question.as_bytes()).await?;
    Ok(stream)
}
