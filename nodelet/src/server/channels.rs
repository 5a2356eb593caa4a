//! Several streams over one WebSocket: the first byte of each message names the stream
//! (`channel.k8s.io`; `v4.channel.k8s.io`, which ends with a Status; `v5.channel.k8s.io`, which
//! can also close a stream). The `base64` ones are the same in text, for clients that have no
//! bytes. One stream alone needs no names (`binary.k8s.io`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
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

/// The protocols of a process's streams, the preferred one first.
pub const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// The protocols of one stream alone.
pub const READER_PROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];
/// Largest message that is written, bytes.
const CHUNK: usize = 32 * 1024;
/// Messages that wait to be sent.
const QUEUE: usize = 32;
/// How long a client has to answer the close (RFC 6455, 7.1.1).
const FAREWELL: Duration = Duration::from_secs(10);

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes of a stream.
    Data(u8, Bytes),
    /// A stream is at its end.
    Close(u8),
}

/// How bytes stand in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// As they are; a stream's number is a byte.
    #[default]
    Binary,
    /// In base64; a stream's number is a digit.
    Base64,
}

/// What a client and the node have agreed on for a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// How bytes stand in messages.
    pub framing: Framing,
    /// Whether how it ended is told as a Status; the oldest protocols tell only failures, in
    /// plain text.
    pub status: bool,
}

// === impl Framing ===

impl Framing {
    /// That of a protocol's name.
    pub fn of(protocol: Option<&HeaderValue>) -> Self {
        let name = protocol.and_then(|name| name.to_str().ok());
        match name.is_some_and(|name| name.contains("base64")) {
            true => Self::Base64,
            false => Self::Binary,
        }
    }

    /// Reads a message; `None` for one that says nothing.
    pub fn parse(self, mut message: Bytes) -> Option<Incoming> {
        let first = *message.first()?;
        bytes::Buf::advance(&mut message, 1);
        match (self, first) {
            (Self::Binary, CLOSE) => Some(Incoming::Close(*message.first()?)),
            (Self::Binary, channel) => Some(Incoming::Data(channel, message)),
            (Self::Base64, digit) => {
                let channel = digit.checked_sub(b'0')?;
                let data = BASE64.decode(&message).ok()?;
                Some(Incoming::Data(channel, data.into()))
            }
        }
    }

    /// A message of a stream.
    pub fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut bytes = BytesMut::with_capacity(data.len() + 1);
                bytes.put_u8(channel);
                bytes.put_slice(data);
                Message::Binary(bytes.freeze())
            }
            Self::Base64 => {
                let mut text = String::from(char::from(b'0' + channel));
                BASE64.encode_string(data, &mut text);
                Message::Text(text.into())
            }
        }
    }

    /// A message where there is but one stream.
    pub fn raw(self, data: &[u8]) -> Message {
        match self {
            Self::Binary => Message::Binary(Bytes::copy_from_slice(data)),
            Self::Base64 => Message::Text(BASE64.encode(data).into()),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The agreed one; the oldest where the client names none.
    pub fn of(agreed: Option<&HeaderValue>) -> Self {
        let name = agreed.and_then(|name| name.to_str().ok());
        Self {
            framing: Framing::of(agreed),
            status: name.is_some_and(|name| name.starts_with('v')),
        }
    }

    /// What is said at the end, given the Status of it.
    pub fn end(self, status: &Value) -> Option<Message> {
        let text = match (self.status, status["status"] == "Success") {
            (true, _) => status.to_string(),
            (false, true) => return None,
            (false, false) => status["message"].as_str().unwrap_or_default().to_owned(),
        };
        Some(self.framing.message(ERROR, text.as_bytes()))
    }
}

/// A close with a code: without one it reads as a broken connection.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: Utf8Bytes::default(),
    }))
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

/// Waits, after everything is said, until what reads has heard the client go too. An end of the connection
/// with something unread would reset it, and take along what is on the way to the client.
pub async fn farewell(reading: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(FAREWELL, reading).await;
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
    framing: Framing,
    channel: Option<u8>,
    queue: PollSender<Message>,
}

impl Writer {
    /// Writes into the stream of a number; without one, raw.
    pub fn new(framing: Framing, channel: Option<u8>, queue: mpsc::Sender<Message>) -> Self {
        Self {
            framing,
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
            Some(channel) => self.framing.message(channel, part),
            None => self.framing.raw(part),
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
        let parse = |bytes: &'static [u8]| Framing::Binary.parse(Bytes::from_static(bytes));
        assert_eq!(parse(b""), None);
        assert_eq!(
            parse(b"\0hi"),
            Some(Incoming::Data(STDIN, Bytes::from_static(b"hi")))
        );
        assert_eq!(parse(b"\xff\0"), Some(Incoming::Close(STDIN)));
        assert_eq!(parse(b"\xff"), None);
        assert_eq!(
            Framing::Binary.message(STDOUT, b"x"),
            Message::Binary(Bytes::from_static(b"\x01x"))
        );
    }

    #[test]
    fn messages_in_text() {
        let parse = |text: &'static str| Framing::Base64.parse(Bytes::from_static(text.as_bytes()));
        let hi = Some(Incoming::Data(STDIN, Bytes::from_static(b"hi")));
        assert_eq!(parse("0aGk="), hi);
        assert_eq!(parse("0%"), None);
        assert_eq!(parse("!aGk="), None);
        let said = Framing::Base64.message(STDERR, b"hi");
        assert_eq!(said, Message::Text("2aGk=".into()));
        assert_eq!(Framing::Base64.raw(b"hi"), Message::Text("aGk=".into()));
    }

    #[test]
    fn whatever_comes_is_read_and_what_is_written_comes_back() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let wire = |message: Message| message.into_data();
        for _ in 0..20_000 {
            let length = next(48);
            let data: Vec<u8> = (0..length).map(|_| next(256) as u8).collect();
            let channel = next(5) as u8;
            for framing in [Framing::Binary, Framing::Base64] {
                let sent = wire(framing.message(channel, &data));
                let read = Some(Incoming::Data(channel, data.clone().into()));
                assert_eq!(framing.parse(sent.clone()), read);
                let mut damaged = sent.to_vec();
                damaged[next(sent.len() as u64) as usize] ^= 1 << next(8);
                damaged.truncate(next(sent.len() as u64 + 1) as usize);
                for bytes in [damaged, data.clone()] {
                    let says_nothing = matches!(bytes[..], [] | [CLOSE]);
                    let parsed = framing.parse(bytes.into());
                    if framing == Framing::Binary {
                        assert_eq!(parsed.is_none(), says_nothing);
                    }
                }
            }
        }
    }

    #[test]
    fn each_protocol_ends_in_its_own_way() {
        let end = |name: &'static str, code| {
            let agreed = HeaderValue::from_static(name);
            Protocol::of(Some(&agreed)).end(&exit_status(code))
        };
        let text = |message: Option<Message>| match message {
            Some(Message::Binary(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        };
        assert!(text(end("v5.channel.k8s.io", 0)).contains("Success"));
        assert!(text(end("v4.channel.k8s.io", 3)).contains("NonZeroExitCode"));
        assert_eq!(end("channel.k8s.io", 0), None);
        assert_eq!(
            text(end("channel.k8s.io", 3)),
            "\u{3}command terminated with non-zero exit code: exit status 3"
        );
        assert!(matches!(
            end("v4.base64.channel.k8s.io", 0),
            Some(Message::Text(_))
        ));
        assert_eq!(Protocol::of(None).end(&exit_status(0)), None);
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
