//! Bodies: what responses stream, and how much of a request is read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::status::{Result, Status};

/// Largest body of a request in bytes, as kube-apiserver's.
pub const REQUEST_MAX: usize = 3 * 1024 * 1024;

/// Body of a response.
pub enum Body {
    /// Pieces that are all there: nothing, one object, or a list of stored objects.
    Pieces(VecDeque<Bytes>),
    /// Pieces that come over time: a watch, a proxied log.
    Stream(BoxStream<'static, Bytes>),
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

    /// Length in bytes, when all pieces are there.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Pieces(pieces) => Some(pieces.iter().map(Bytes::len).sum()),
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
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front()),
            Self::Stream(stream) => stream.as_mut().poll_next(context),
        };
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Pieces(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self.size() {
            Some(len) => SizeHint::with_exact(len as u64),
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

    fn frames(sizes: &[usize]) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin {
        let frames: Vec<_> = sizes
            .iter()
            .map(|&n| Ok(Frame::data(Bytes::from(vec![b'x'; n]))))
            .collect();
        StreamBody::new(futures::stream::iter(frames))
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
