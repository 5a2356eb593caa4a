//! Frames: checksummed pieces of a file that is only ever appended to.
//!
//! ```text
//! length u32 | crc32 of the payload u32 | payload
//! ```
//!
//! A reader stops at the first frame that does not check, because nothing after it can be told
//! from garbage: what comes before is whole.

use std::io::{self, Read};

/// The largest payload: a transaction of the largest values, with room for keys.
const MAX_FRAME_BYTES: usize = 256 << 20;

/// Appends a frame to `out` whose payload `fill` writes.
pub(crate) fn push(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    fill(out);
    let payload = &out[start + 8..];
    let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The next frame's payload; `None` at the end of the file, and where it ceases to be sound.
///
/// # Errors
/// Only what the file system says: that the bytes are not sound is no error here.
pub(crate) fn next(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    if !read_whole(input, &mut head)? {
        return Ok(None);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len == 0 || len > MAX_FRAME_BYTES {
        return Ok(None);
    }
    // Read as it comes, so that a damaged length costs no more memory than the file has bytes.
    let mut payload = Vec::new();
    input.take(len as u64).read_to_end(&mut payload)?;
    let sound =
        payload.len() == len && crc32fast::hash(&payload) == u32::from_le_bytes([c0, c1, c2, c3]);
    Ok(sound.then_some(payload))
}

fn read_whole(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<u8> {
        let mut file = Vec::new();
        push(&mut file, |out| out.extend_from_slice(b"first"));
        push(&mut file, |out| out.extend_from_slice(b"second"));
        file
    }

    fn all(mut file: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| next(&mut file).unwrap()).collect()
    }

    #[test]
    fn frames_come_back_in_order() {
        assert_eq!(all(&two()), [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn what_precedes_damage_is_whole_and_nothing_else_is_returned() {
        let file = two();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 0x40;
            let whole = usize::from(at >= 13); // the first frame has 8 + 5 bytes
            assert_eq!(all(&flipped).len(), whole, "flipped at {at}");
            assert_eq!(all(&file[..at]).len(), whole, "cut at {at}");
        }
    }
}
