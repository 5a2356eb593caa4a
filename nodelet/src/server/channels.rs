//! Several streams over one WebSocket: the first byte of each message names the stream
//! (`v4.channel.k8s.io`, and `v5.channel.k8s.io`, which can also close one).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

/// Standard input.
pub const STDIN: u8 = 0;
/// Standard output.
pub const STDOUT: u8 = 1;
/// Standard error.
pub const STDERR: u8 = 2;
/// How it ended, as a Status.
pub const ERROR: u8 = 3;
/// Sizes of the terminal.
pub const RESIZE: u8 = 4;
/// Closes the stream that its second byte names (v5).
const CLOSE: u8 = 255;

/// The protocols, the preferred one first.
pub const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Largest message that is written, bytes.
const CHUNK: usize = 32 * 1024;
/// Messages that wait to be sent.
const QUEUE: usize = 32;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes of a stream.
    Data(u8, Bytes),
    /// A stream is at its end.
    Close(u8),
}

/// Reads a message; `None` for one that says nothing.
pub fn parse(mut message: Bytes) -> Option<Incoming> {
    let channel = *message.first()?;
    bytes::Buf::advance(&mut message, 1);
    match channel {
        CLOSE => Some(Incoming::Close(*message.first()?)),
        _ => Some(Incoming::Data(channel, message)),
    }
}

/// A message of a stream.
pub fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

/// The Status of a command that came to its end.
pub fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The Status of what did not come about.
pub fn error_status(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message,
        "code": 500})
}

/// Two ends of a WebSocket: what comes, and a queue of what goes.
pub fn open(socket: WebSocket) -> (SplitStream<WebSocket>, mpsc::Sender<Message>, Outgoing) {
    let (sink, stream) = socket.split();
    let (sender, queue) = mpsc::channel(QUEUE);
    (stream, sender, Outgoing { sink, queue })
}

/// Sends what is queued.
pub struct Outgoing {
    sink: SplitSink<WebSocket, Message>,
    queue: mpsc::Receiver<Message>,
}

impl Outgoing {
    /// Runs until every sender is gone and all is sent, or the other side is gone.
    pub async fn run(mut self) {
        while let Some(message) = self.queue.recv().await {
            if self.sink.send(message).await.is_err() {
                return;
            }
        }
        // It is closing anyway.
        let _ = self.sink.close().await;
    }
}

/// Writes into a stream of a WebSocket.
pub struct Writer {
    channel: Option<u8>,
    queue: PollSender<Message>,
}

impl Writer {
    /// Writes into the stream of a number; without one, raw.
    pub fn new(channel: Option<u8>, queue: mpsc::Sender<Message>) -> Self {
        Self {
            channel,
            queue: PollSender::new(queue),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.queue.poll_reserve(cx)).map_err(gone)?;
        let part = &data[..data.len().min(CHUNK)];
        let message = match self.channel {
            Some(channel) => message(channel, part),
            None => Message::Binary(Bytes::copy_from_slice(part)),
        };
        self.queue.send_item(message).map_err(gone)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let parse = |bytes: &'static [u8]| super::parse(Bytes::from_static(bytes));
        assert_eq!(parse(b""), None);
        assert_eq!(
            parse(b"\0hi"),
            Some(Incoming::Data(STDIN, Bytes::from_static(b"hi")))
        );
        assert_eq!(parse(b"\xff\0"), Some(Incoming::Close(STDIN)));
        assert_eq!(parse(b"\xff"), None);
        assert_eq!(
            message(STDOUT, b"x"),
            Message::Binary(Bytes::from_static(b"\x01x"))
        );
    }

    #[test]
    fn statuses_as_kubectl_reads_them() {
        assert_eq!(exit_status(0)["status"], "Success");
        let failed = exit_status(3);
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(
            failed["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "3"})
        );
    }
}
