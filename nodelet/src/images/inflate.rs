//! Decompressing a layer for containerd, as a process between its content store and its differ.
//!
//! containerd's own gzip reader is what a large pull waits for. It lets programs of its configuration
//! take a layer's bytes on standard input and give them back decompressed ([stream processors]): the
//! private daemon's names this program, whose reader takes a fraction of the time, on another core.
//!
//! [stream processors]: https://github.com/containerd/containerd/blob/main/docs/stream_processors.md

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use flate2::bufread::MultiGzDecoder;
use nix::fcntl::{FcntlArg, fcntl};

/// What the program's first argument is in this role.
pub const ROLE: &str = "inflate";
/// Bytes at a time, and in a pipe: a switch between the processes costs more than the memory.
const PIECE: usize = 1 << 20;

/// From standard input to standard output.
///
/// # Errors
/// What is wrong with the stream: containerd shows it to the one who pulls.
pub fn inflate_main() -> io::Result<()> {
    let (input, output) = (io::stdin(), io::stdout());
    for pipe in [input.as_fd(), output.as_fd()] {
        // The machine may allow less, or it is no pipe: slower, not wrong.
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIECE as i32));
    }
    // Past the buffer of standard output, which looks for the ends of lines.
    let mut output = File::from(output.as_fd().try_clone_to_owned()?);
    inflate(BufReader::with_capacity(PIECE, input.lock()), &mut output)
}

/// Every member of a gzip stream (RFC 1952), one after the other, with their check sums.
fn inflate(input: impl BufRead, output: &mut impl Write) -> io::Result<()> {
    let mut decoder = MultiGzDecoder::new(input);
    let mut piece = vec![0; PIECE];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return output.flush(),
            Ok(read) => output.write_all(&piece[..read])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut output = Vec::new();
        inflate(bytes, &mut output).map(|()| output)
    }

    #[test]
    fn every_member_of_a_stream() {
        let long = vec![7; 3 * PIECE + 1];
        let stream = [zipped(&long), zipped(b""), zipped(b"the end")].concat();
        assert_eq!(
            inflated(&stream).unwrap(),
            [long.as_slice(), b"the end"].concat()
        );
    }

    #[test]
    fn a_stream_that_breaks_off_or_is_damaged_is_an_error() {
        let mut stream = zipped(b"some bytes of a layer");
        assert!(inflated(&stream[..stream.len() - 9]).is_err());
        let sum = stream.len() - 8;
        stream[sum] ^= 1;
        assert!(inflated(&stream).is_err());
        assert!(inflated(b"no gzip at all").is_err());
    }
}
