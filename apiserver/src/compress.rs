//! gzip for large responses, when the client takes it and is not on this machine.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};

use crate::body::{Body, Cut};

/// Smaller bodies are not worth it.
const SMALLEST: usize = 128 * 1024;

/// Compresses a response that is large and has an end.
pub fn response(response: Response<Body>, wanted: bool) -> Response<Body> {
    if !wanted || matches!(response.body(), Body::Stream(_)) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match body.settle(SMALLEST) {
        Ok(body) => body,
        Err(cut) => Body::lazy(std::iter::once(Err(cut)), None),
    };
    let pieces: Box<dyn Iterator<Item = Result<Bytes, Cut>> + Send> = match body {
        Body::Pieces(pieces) if large(&pieces) => Box::new(pieces.into_iter().map(Ok)),
        Body::Lazy(lazy) => Box::new(lazy),
        body => return Response::from_parts(parts, body),
    };
    let encoding = HeaderValue::from_static("gzip");
    parts.headers.insert(CONTENT_ENCODING, encoding);
    parts
        .headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::lazy(compressed(pieces), None))
}

fn large(pieces: &VecDeque<Bytes>) -> bool {
    pieces.iter().map(Bytes::len).sum::<usize>() >= SMALLEST
}

/// Compresses piece by piece, as they are asked for, so that no second copy of the body stands
/// in memory.
fn compressed(
    pieces: impl Iterator<Item = Result<Bytes, Cut>>,
) -> impl Iterator<Item = Result<Bytes, Cut>> {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::new(1)));
    let mut pieces = pieces;
    std::iter::from_fn(move || {
        loop {
            let live = encoder.as_mut()?;
            let Some(piece) = pieces.next() else {
                // Writing to a Vec does not fail.
                let rest = encoder.take()?.finish().unwrap_or_default();
                return Some(Ok(rest.into()));
            };
            let piece = match piece {
                Ok(piece) => piece,
                Err(cut) => {
                    encoder = None;
                    return Some(Err(cut));
                }
            };
            live.write_all(&piece).ok()?;
            if live.get_ref().len() >= 64 * 1024 {
                return Some(Ok(std::mem::take(live.get_mut()).into()));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_compressed_reads_back() {
        let pieces: Vec<Bytes> = (0..1000u32)
            .map(|i| Bytes::from(i.to_le_bytes().repeat(500)))
            .collect();
        let packed: Vec<u8> = compressed(pieces.clone().into_iter().map(Ok))
            .flat_map(Result::unwrap)
            .collect();
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, pieces.concat());
    }
}
