//! A connection that is closed without cutting off its last answer.
//!
//! Who closes a socket in which there is something unread resets the connection, and the reset
//! overtakes what was sent: a client in the middle of a body that is too large would see no 413.
//! So closing says first that nothing more will be sent, then reads on for a moment until the
//! client has understood and closes too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take to notice, as in Go's server.
const LINGER: Duration = Duration::from_millis(500);
/// Read at once, and thrown away.
const SCRAP: usize = 16 * 1024;

/// A stream that lingers when it is shut down.
pub struct Lingering<S> {
    stream: S,
    closing: Closing,
}

enum Closing {
    Open,
    Lingering {
        until: Pin<Box<Sleep>>,
        scrap: Box<[u8]>,
    },
}

// === impl Lingering ===

impl<S> Lingering<S> {
    /// A stream that is open.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            closing: Closing::Open,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Closing::Open = this.closing {
            std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.closing = Closing::Lingering {
                until: Box::pin(tokio::time::sleep(LINGER)),
                scrap: vec![0; SCRAP].into(),
            };
        }
        let Closing::Lingering { until, scrap } = &mut this.closing else {
            return Poll::Ready(Ok(()));
        };
        while until.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(scrap);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                // Its end, or its failure: there is nobody to wait for.
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn the_last_answer_reaches_a_client_that_is_still_sending() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let serving = async {
            let mut server = Lingering::new(server);
            server.read_exact(&mut [0; 10]).await.unwrap();
            server.write_all(b"enough").await.unwrap();
            server.shutdown().await.unwrap();
        };
        let asking = async {
            client.write_all(&vec![1; 2 << 20]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let ((), answer) = tokio::join!(serving, asking);
        assert_eq!(answer, "enough");
    }
}
