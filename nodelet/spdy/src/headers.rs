//! Header blocks: names and values behind their lengths, through one zlib stream for each
//! direction of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary;
use crate::frame::Error;

/// Names (in lower case) and values, in order. Several values of a name are joined by a zero
/// byte.
pub type Headers = Vec<(String, String)>;

/// Largest header block, inflated, bytes: a small one can be a bomb.
const BLOCK_MAX: usize = 64 * 1024;
/// Most headers in a block.
const HEADERS_MAX: usize = 256;

/// Inflates and parses the blocks of one direction.
#[derive(Debug)]
pub struct Inflater(Decompress);

/// Writes and deflates the blocks of one direction.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// The headers of the next block.
    pub fn headers(&mut self, block: &[u8]) -> Result<Headers, Error> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= BLOCK_MAX {
                    return Err(Error::Malformed("a header block is too large"));
                }
                out.reserve(out.len().max(1024));
            }
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let step = self
                .0
                .decompress_vec(block, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.0.total_in() - read).unwrap_or(block.len());
            block = &block[consumed..];
            match step {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(dictionary::bytes());
                    set.map_err(|_| Error::Malformed("another dictionary is needed"))?;
                }
                Err(_) => return Err(Error::Malformed("a header block does not inflate")),
                Ok(Status::StreamEnd) => return Ok(out),
                Ok(Status::Ok | Status::BufError) => {
                    let idle = consumed == 0 && self.0.total_out() == written;
                    let room = out.len() < out.capacity();
                    if room && (block.is_empty() || idle) {
                        return Ok(out);
                    }
                }
            }
        }
    }
}

impl Default for Deflater {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // It fails only once compression has begun.
        let _ = compress.set_dictionary(dictionary::bytes());
        Self(compress)
    }
}

impl Deflater {
    /// The next block.
    pub fn block(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>, Error> {
        let plain = render(headers);
        let mut rest = plain.as_slice();
        let mut out = Vec::with_capacity(plain.len() + 64);
        loop {
            let before = self.0.total_in();
            let step = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            step.map_err(|_| Error::Malformed("headers do not deflate"))?;
            let consumed = usize::try_from(self.0.total_in() - before).unwrap_or(rest.len());
            rest = &rest[consumed..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Error> {
    let cut = bytes.split_at_checked(length);
    let (head, rest) = cut.ok_or(Error::Malformed("a header block is cut off"))?;
    *bytes = rest;
    Ok(head)
}

fn take_u32(bytes: &mut &[u8]) -> Result<usize, Error> {
    let four = take(bytes, 4)?;
    let number = four
        .iter()
        .fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
    usize::try_from(number).map_err(|_| Error::Malformed("a header is too long"))
}

fn take_text(bytes: &mut &[u8]) -> Result<String, Error> {
    let length = take_u32(bytes)?;
    let text = take(bytes, length)?.to_vec();
    String::from_utf8(text).map_err(|_| Error::Malformed("a header is not UTF-8"))
}

/// Parses an inflated block.
fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    let count = take_u32(&mut block)?;
    if count > HEADERS_MAX {
        return Err(Error::Malformed("too many headers"));
    }
    (0..count)
        .map(|_| Ok((take_text(&mut block)?, take_text(&mut block)?)))
        .collect()
}

fn render(headers: &[(String, String)]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut block = u32::try_from(headers.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    for (name, value) in headers {
        for text in [name, value] {
            block.extend_from_slice(&length(text));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn blocks_of_one_stream() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let long = "x".repeat(5000);
        for set in [
            headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            headers(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            headers(&[]),
            headers(&[("a", &long), ("b", "")]),
        ] {
            let block = deflater.block(&set).unwrap();
            assert_eq!(inflater.headers(&block).unwrap(), set);
        }
    }

    #[test]
    fn a_stream_begins_with_the_dictionarys_checksum() {
        let block = Deflater::default().block(&headers(&[("a", "b")])).unwrap();
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn bombs_and_garbage_are_refused() {
        let bomb = headers(&[("a", &"0".repeat(1 << 20))]);
        let block = Deflater::default().block(&bomb).unwrap();
        assert!(block.len() < BLOCK_MAX);
        assert!(Inflater::default().headers(&block).is_err());
        assert!(Inflater::default().headers(b"nonsense").is_err());
        assert!(parse(&[0, 0, 0, 9]).is_err());
        assert!(parse(&[0xff; 8]).is_err());
    }
}
