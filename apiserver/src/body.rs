//! Bodies: what responses stream, and how much of a request is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;

use crate::status::{Result, Status};

/// Largest body of a request in bytes, as kube-apiserver's.
pub const REQUEST_MAX: usize = 3 * 1024 * 1024;

/// Body of a response.
pub enum Body {
    /// Pieces that are all there: nothing, one object, or a short list.
    Pieces(VecDeque<Bytes>),
    /// Pieces that are made when they are asked for: a long list.
    Lazy(Lazy),
    /// Pieces that come over time: a watch, a proxied log.
    Stream(BoxStream<'static, Bytes>),
}

/// A body whose pieces are made one after the other, without waiting.
pub struct Lazy {
    /// Pieces that are made already.
    ahead: VecDeque<Bytes>,
    pieces: Box<dyn Iterator<Item = Result<Bytes, Cut>> + Send>,
    /// How many bytes are still to come, if that is known.
    left: Option<u64>,
}

/// A body could not be written to its end. The connection ends with it: what was sent is less
/// than was promised.
#[derive(Debug, Error)]
#[error("the response ends early: {0}")]
pub struct Cut(String);

// === impl Cut ===

impl Cut {
    /// A body that ends for this reason.
    pub fn new(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        tracing::error!(%why, "a response cannot be written to its end");
        Self(why)
    }
}

// === impl Lazy ===

impl Iterator for Lazy {
    type Item = Result<Bytes, Cut>;

    fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        let piece = match self.ahead.pop_front() {
            Some(piece) => Ok(piece),
            None => self.pieces.next()?,
        };
        if let (Some(left), Ok(piece)) = (&mut self.left, &piece) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Some(piece)
    }
}

// === impl Body ===

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::Pieces(VecDeque::new())
    }

    /// Pieces that come over time.
    pub fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Stream(Box::pin(pieces))
    }

    /// Pieces that are made when they are asked for, of so many bytes in all.
    pub fn lazy(
        pieces: impl Iterator<Item = Result<Bytes, Cut>> + Send + 'static,
        size: Option<u64>,
    ) -> Self {
        Self::Lazy(Lazy {
            ahead: VecDeque::new(),
            pieces: Box::new(pieces),
            left: size,
        })
    }

    /// The same with its first `limit` bytes made; if that is all of it, it is there as a whole.
    pub fn settle(self, limit: usize) -> Result<Self, Cut> {
        let Self::Lazy(mut lazy) = self else {
            return Ok(self);
        };
        let mut made: usize = lazy.ahead.iter().map(Bytes::len).sum();
        while made < limit {
            match lazy.pieces.next() {
                Some(piece) => {
                    let piece = piece?;
                    made += piece.len();
                    lazy.ahead.push_back(piece);
                }
                None => return Ok(Self::Pieces(lazy.ahead)),
            }
        }
        Ok(Self::Lazy(lazy))
    }

    /// Length in bytes, when it is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Pieces(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Lazy(lazy) => lazy.left,
            Self::Stream(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(piece: Bytes) -> Self {
        Self::Pieces(VecDeque::from([piece]))
    }
}

impl From<Vec<u8>> for Body {
    fn from(piece: Vec<u8>) -> Self {
        Bytes::from(piece).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let piece = match self.get_mut() {
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(Ok)),
            Self::Lazy(lazy) => Poll::Ready(lazy.next()),
            Self::Stream(stream) => stream
                .as_mut()
                .poll_next(context)
                .map(|piece| piece.map(Ok)),
        };
        piece.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Pieces(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self.size() {
            Some(len) => SizeHint::with_exact(len),
            None => SizeHint::default(),
        }
    }
}

/// Reads a request's body up to [`REQUEST_MAX`]; a longer one is refused with 413 and its rest
/// is not read.
pub async fn read<B>(body: B) -> Result<Bytes>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > REQUEST_MAX as u64 {
        return Err(Status::too_large(REQUEST_MAX));
    }
    let mut body = body;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|fault| Status::bad_request(format!("cannot read the body: {fault}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + rest.len() + data.len() > REQUEST_MAX {
            return Err(Status::too_large(REQUEST_MAX));
        }
        // Most bodies are one frame, which then is not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    fn frames(sizes: &[usize]) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin {
        let frames: Vec<_> = sizes
            .iter()
            .map(|&n| Ok(Frame::data(Bytes::from(vec![b'x'; n]))))
            .collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    #[tokio::test]
    async fn what_is_made_on_the_way_is_whole_or_cut() {
        let pieces = || (0..4u8).map(|n| Ok(Bytes::from(vec![n; 10])));
        let short = Body::lazy(pieces(), None).settle(100).unwrap();
        assert_eq!(short.size(), Some(40));
        let long = Body::lazy(pieces(), Some(40)).settle(15).unwrap();
        assert!(matches!(long, Body::Lazy(_)));
        assert_eq!(long.size(), Some(40));
        assert_eq!(long.collect().await.unwrap().to_bytes().len(), 40);
        let broken = || pieces().chain([Err(Cut::new("why"))]);
        assert!(Body::lazy(broken(), None).settle(100).is_err());
        let late = Body::lazy(broken(), None).settle(15).unwrap();
        assert!(late.collect().await.is_err());
    }

    #[tokio::test]
    async fn reads_up_to_the_limit() {
        assert_eq!(read(frames(&[3, 4])).await.unwrap().len(), 7);
        assert_eq!(
            read(frames(&[REQUEST_MAX])).await.unwrap().len(),
            REQUEST_MAX
        );
        let refused = read(frames(&[REQUEST_MAX, 1])).await.unwrap_err();
        assert_eq!(refused.code, 413);
    }
}
