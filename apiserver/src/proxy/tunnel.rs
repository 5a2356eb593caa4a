//! Two connections made one: what comes from either is passed on to the other.
//!
//! Each direction ends by itself. A node that has said its last word and closes must not cut short what
//! is still on the way to a slow client, and what the client types too late must not either: copying both
//! ways in one (`tokio::io::copy_bidirectional`) gives up both directions at the first fault of one, with what it
//! has read and not written yet.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a client has to close once the other end has closed and all of it was passed on. A connection
/// that ends with something unread is reset, and what is on the way is lost.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes that are passed on at once.
const CHUNK: usize = 16 * 1024;

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its source has no more; all that came is passed on.
    Source,
    /// Its source broke off; all that came is passed on.
    Broken,
    /// Its target takes no more.
    Target,
}

/// Passes on both ways until the client (`near`) is gone, or the other end (`far`) is and the client
/// has all that came from it.
pub async fn run<N, F>(near: N, far: F)
where
    N: AsyncRead + AsyncWrite,
    F: AsyncRead + AsyncWrite,
{
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let up = async {
        let ended = pass_on(&mut from_near, &mut to_far).await;
        match ended {
            Ended::Source => close(&mut to_far).await,
            // Nobody listens; that the client goes is still to be seen.
            Ended::Target => drop(tokio::io::copy(&mut from_near, &mut tokio::io::sink()).await),
            Ended::Broken => {}
        }
        ended
    };
    let down = async {
        let ended = pass_on(&mut from_far, &mut to_near).await;
        if ended != Ended::Target {
            close(&mut to_near).await;
        }
        ended
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => if ended != Ended::Target {
            let _ = tokio::time::timeout(LINGER, up).await;
        },
        ended = &mut up => if ended != Ended::Broken {
            down.await;
        },
    }
}

/// Passes on what comes until either side is done.
async fn pass_on(
    source: &mut (impl AsyncRead + Unpin),
    target: &mut (impl AsyncWrite + Unpin),
) -> Ended {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match source.read(&mut chunk).await {
            Ok(0) => return Ended::Source,
            Ok(count) => count,
            Err(fault) => {
                tracing::debug!(%fault, "one end of a tunnel broke off");
                return Ended::Broken;
            }
        };
        let written = async {
            target.write_all(&chunk[..count]).await?;
            target.flush().await
        };
        if let Err(fault) = written.await {
            tracing::debug!(%fault, "one end of a tunnel takes no more");
            return Ended::Target;
        }
    }
}

/// Says that no more comes; who is gone need not hear it.
async fn close(target: &mut (impl AsyncWrite + Unpin)) {
    let _ = target.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// What a scripted source does next.
    enum Read {
        Says(&'static str),
        /// Lets the others work first.
        Later,
        Fault(io::ErrorKind),
    }

    /// Follows a script, then is at its end.
    struct Source(VecDeque<Read>);

    impl Source {
        fn new(script: impl IntoIterator<Item = Read>) -> Self {
            Self(script.into_iter().collect())
        }
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.0.pop_front() {
                Some(Read::Says(text)) => into.put_slice(text.as_bytes()),
                Some(Read::Fault(kind)) => return Poll::Ready(Err(kind.into())),
                Some(Read::Later) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Keeps what it gets; as many writes as it `hesitates` have to be tried again.
    #[derive(Clone, Default)]
    struct Target {
        got: Arc<Mutex<Vec<u8>>>,
        hesitates: u32,
        broken: bool,
        closed: Arc<Mutex<bool>>,
    }

    impl AsyncWrite for Target {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.hesitates > 0 {
                self.hesitates -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.got.lock().unwrap().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            *self.closed.lock().unwrap() = true;
            Poll::Ready(Ok(()))
        }
    }

    impl Target {
        fn text(&self) -> String {
            String::from_utf8(self.got.lock().unwrap().clone()).unwrap()
        }

        fn is_closed(&self) -> bool {
            *self.closed.lock().unwrap()
        }
    }

    fn waits(rounds: usize) -> impl Iterator<Item = Read> {
        (0..rounds).map(|_| Read::Later)
    }

    #[tokio::test]
    async fn a_slow_client_gets_the_last_word_of_a_node_that_breaks_off() {
        let client = Target {
            hesitates: 3,
            ..Target::default()
        };
        // A node ends its connection without the farewell of TLS.
        let node = [
            Read::Says("status"),
            Read::Fault(io::ErrorKind::UnexpectedEof),
        ];
        let near = tokio::io::join(Source::new(waits(50)), client.clone());
        run(near, tokio::io::join(Source::new(node), Target::default())).await;
        assert_eq!(client.text(), "status");
        assert!(client.is_closed());
    }

    #[tokio::test]
    async fn what_is_typed_too_late_cuts_nothing_short() {
        let client = Target::default();
        let closed = Target {
            broken: true,
            ..Target::default()
        };
        let typed = [Read::Says("ls\n")].into_iter().chain(waits(50));
        let said = waits(5).chain([Read::Says("sta"), Read::Later, Read::Says("tus")]);
        let near = tokio::io::join(Source::new(typed), client.clone());
        run(near, tokio::io::join(Source::new(said), closed)).await;
        assert_eq!(client.text(), "status");
    }

    #[tokio::test]
    async fn a_node_hears_that_its_client_has_no_more_and_may_still_answer() {
        let (client, node) = (Target::default(), Target::default());
        let said = waits(5).chain([Read::Says("bye")]);
        let near = tokio::io::join(Source::new([Read::Says("exit\n")]), client.clone());
        run(near, tokio::io::join(Source::new(said), node.clone())).await;
        assert_eq!(
            (node.text().as_str(), client.text().as_str()),
            ("exit\n", "bye")
        );
        assert!(node.is_closed());
    }

    #[tokio::test]
    async fn with_a_client_that_is_gone_all_ends() {
        let endless = waits(1_000_000);
        let gone = [Read::Fault(io::ErrorKind::ConnectionReset)];
        let near = tokio::io::join(Source::new(gone), Target::default());
        run(
            near,
            tokio::io::join(Source::new(endless), Target::default()),
        )
        .await;
        let deaf = Target {
            broken: true,
            ..Target::default()
        };
        let near = tokio::io::join(Source::new(waits(1_000_000)), deaf);
        let far = tokio::io::join(Source::new([Read::Says("x")]), Target::default());
        run(near, far).await;
    }
}
