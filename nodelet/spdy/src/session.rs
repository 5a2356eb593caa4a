//! The accepting side of a connection.
//!
//! ```text
//!   bytes ──► reader ──SynStream──► accept() ──► Stream ──recv()──► the caller
//!                   └───Data───────────────────►   │
//!   bytes ◄── writer ◄──────── frames ─────────────┘ send(), finish(), reset()
//! ```

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::frame::{Decoder, Encoder, Frame, PAYLOAD_MAX};
use crate::headers::Headers;

/// Streams of one connection at a time.
const STREAMS_MAX: usize = 1024;
/// Frames that wait in a stream before the connection waits.
const STREAM_QUEUE: usize = 32;
/// Frames that wait to be written.
const WRITE_QUEUE: usize = 64;
/// Status of a refused stream.
const REFUSED: u32 = 3;
/// Status of a cancelled stream.
const CANCEL: u32 = 5;

/// One connection. Dropping it ends the connection and its streams.
#[derive(Debug)]
pub struct Session {
    accepted: mpsc::Receiver<Stream>,
    _tasks: JoinSet<io::Result<()>>,
}

/// One stream that the other side has opened.
#[derive(Debug)]
pub struct Stream {
    /// Its id.
    pub id: u32,
    /// The headers that it was opened with.
    pub headers: Headers,
    incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Frame>,
}

/// The sending half of a stream.
#[derive(Clone, Debug)]
pub struct Sender {
    id: u32,
    outgoing: mpsc::Sender<Frame>,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct Receiver(mpsc::Receiver<Bytes>);

impl Session {
    /// Accepts streams over a connection.
    pub fn accepting<R, W>(read: R, write: W) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (opened, accepted) = mpsc::channel(STREAM_QUEUE);
        let (outgoing, frames) = mpsc::channel(WRITE_QUEUE);
        let mut tasks = JoinSet::new();
        let reader = Reader {
            opened,
            outgoing,
            streams: HashMap::new(),
        };
        tasks.spawn(reader.run(read));
        tasks.spawn(write_frames(write, frames));
        Self {
            accepted,
            _tasks: tasks,
        }
    }

    /// The next stream, already accepted; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }
}

impl Stream {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Its two halves.
    pub fn split(self) -> (Receiver, Sender) {
        (
            Receiver(self.incoming),
            Sender {
                id: self.id,
                outgoing: self.outgoing,
            },
        )
    }
}

impl Receiver {
    /// The next bytes; `None` when the other side sends nothing more.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// The connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

impl Sender {
    /// Sends bytes; waits while the connection is behind.
    pub async fn send(&self, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(PAYLOAD_MAX));
            self.put(Frame::Data {
                id: self.id,
                data: part,
                fin: false,
            })
            .await?;
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    pub async fn finish(&self) -> Result<(), Closed> {
        self.put(Frame::Data {
            id: self.id,
            data: Bytes::new(),
            fin: true,
        })
        .await
    }

    /// Breaks the stream off.
    pub async fn reset(&self) -> Result<(), Closed> {
        self.put(Frame::RstStream {
            id: self.id,
            status: CANCEL,
        })
        .await
    }

    async fn put(&self, frame: Frame) -> Result<(), Closed> {
        self.outgoing.send(frame).await.map_err(|_| Closed)
    }
}

struct Reader {
    opened: mpsc::Sender<Stream>,
    outgoing: mpsc::Sender<Frame>,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Reader {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(16 * 1024);
        loop {
            while let Some(frame) = decoder.decode(&mut buffer).map_err(io::Error::other)? {
                if self.take(frame).await.is_none() {
                    return Ok(());
                }
            }
            if read.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Acts on a frame; `None` when nobody listens any more.
    async fn take(&mut self, frame: Frame) -> Option<()> {
        match frame {
            Frame::SynStream { id, headers, fin } => self.open(id, headers, fin).await?,
            Frame::Data { id, data, fin } => {
                // A stream whose receiver is gone swallows what still comes.
                if let Some(stream) = self.streams.get(&id)
                    && !data.is_empty()
                {
                    let _ = stream.send(data).await;
                }
                if fin {
                    self.streams.remove(&id);
                }
            }
            Frame::Headers { id, fin: true, .. } | Frame::RstStream { id, .. } => {
                self.streams.remove(&id);
            }
            Frame::Ping { id } => self.outgoing.send(Frame::Ping { id }).await.ok()?,
            Frame::GoAway { .. } => {}
            Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Other => {}
        }
        Some(())
    }

    async fn open(&mut self, id: u32, headers: Headers, fin: bool) -> Option<()> {
        if self.streams.len() >= STREAMS_MAX || self.streams.contains_key(&id) {
            let refusal = Frame::RstStream {
                id,
                status: REFUSED,
            };
            return self.outgoing.send(refusal).await.ok();
        }
        let (data, incoming) = mpsc::channel(STREAM_QUEUE);
        if !fin {
            self.streams.insert(id, data);
        }
        let reply = Frame::SynReply {
            id,
            headers: Vec::new(),
            fin: false,
        };
        self.outgoing.send(reply).await.ok()?;
        let outgoing = self.outgoing.clone();
        self.opened
            .send(Stream {
                id,
                headers,
                incoming,
                outgoing,
            })
            .await
            .ok()
    }
}

async fn write_frames(
    mut write: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        encoder
            .encode(&frame, &mut buffer)
            .map_err(io::Error::other)?;
        while let Ok(frame) = frames.try_recv() {
            encoder
                .encode(&frame, &mut buffer)
                .map_err(io::Error::other)?;
        }
        write.write_all(&buffer).await?;
        write.flush().await?;
        buffer.clear();
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Client {
        io: tokio::io::DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
        buffer: BytesMut,
    }

    impl Client {
        async fn send(&mut self, frame: Frame) {
            let mut bytes = BytesMut::new();
            self.encoder.encode(&frame, &mut bytes).unwrap();
            self.io.write_all(&bytes).await.unwrap();
        }

        async fn recv(&mut self) -> Frame {
            loop {
                if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                    return frame;
                }
                assert_ne!(self.io.read_buf(&mut self.buffer).await.unwrap(), 0);
            }
        }
    }

    fn connect() -> (Client, Session) {
        let (io, server) = tokio::io::duplex(1024);
        let (read, write) = tokio::io::split(server);
        let client = Client {
            io,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
        };
        (client, Session::accepting(read, write))
    }

    #[tokio::test]
    async fn a_stream_both_ways() {
        let (mut client, mut session) = connect();
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        client
            .send(Frame::SynStream {
                id: 1,
                headers,
                fin: false,
            })
            .await;
        let stream = session.accept().await.unwrap();
        assert_eq!(stream.header("StreamType"), Some("data"));
        assert!(matches!(client.recv().await, Frame::SynReply { id: 1, .. }));

        client
            .send(Frame::Data {
                id: 1,
                data: Bytes::from_static(b"ping"),
                fin: true,
            })
            .await;
        let (mut incoming, outgoing) = stream.split();
        assert_eq!(incoming.recv().await.as_deref(), Some(&b"ping"[..]));
        assert_eq!(incoming.recv().await, None);

        outgoing.send(Bytes::from_static(b"pong")).await.unwrap();
        outgoing.finish().await.unwrap();
        let data = Bytes::from_static(b"pong");
        assert_eq!(
            client.recv().await,
            Frame::Data {
                id: 1,
                data,
                fin: false
            }
        );
        assert_eq!(
            client.recv().await,
            Frame::Data {
                id: 1,
                data: Bytes::new(),
                fin: true
            }
        );
    }

    #[tokio::test]
    async fn pings_are_answered_and_an_id_is_used_once() {
        let (mut client, mut session) = connect();
        client.send(Frame::Ping { id: 9 }).await;
        assert_eq!(client.recv().await, Frame::Ping { id: 9 });
        for _ in 0..2 {
            client
                .send(Frame::SynStream {
                    id: 3,
                    headers: Vec::new(),
                    fin: false,
                })
                .await;
        }
        let _kept = session.accept().await.unwrap();
        assert!(matches!(client.recv().await, Frame::SynReply { .. }));
        assert_eq!(
            client.recv().await,
            Frame::RstStream {
                id: 3,
                status: REFUSED
            }
        );
        drop(client);
        assert!(session.accept().await.is_none());
    }
}
