//! Frames: from bytes and to bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::headers::{Deflater, Headers, Inflater};

/// Largest payload that is accepted and sent, bytes.
pub const PAYLOAD_MAX: usize = 1 << 20;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const HEAD: usize = 8;

/// Why bytes are not SPDY/3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other side speaks something else, or nonsense.
    #[error("not SPDY/3.1: {0}")]
    Malformed(&'static str),
}

/// One frame. Stream ids are 31 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The new stream; odd when the client opens it.
        id: u32,
        /// Its headers.
        headers: Headers,
        /// Whether the sender sends nothing more on it.
        fin: bool,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        id: u32,
        /// Headers.
        headers: Headers,
        /// Whether the sender sends nothing more on it.
        fin: bool,
    },
    /// Breaks a stream off.
    RstStream {
        /// The stream.
        id: u32,
        /// Why: 1 protocol error, 3 refused, 5 cancelled, ...
        status: u32,
    },
    /// Asks for an echo.
    Ping {
        /// To be sent back.
        id: u32,
    },
    /// No new streams, please.
    GoAway {
        /// The last stream that is dealt with.
        last: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        id: u32,
        /// Headers.
        headers: Headers,
        /// Whether the sender sends nothing more on it.
        fin: bool,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        id: u32,
        /// The bytes.
        data: Bytes,
        /// Whether they are the last.
        fin: bool,
    },
    /// Settings, window updates and what later versions may bring: read and not acted on.
    Other,
}

/// Turns bytes into frames. After an error the connection is lost: the compression is out of
/// step.
#[derive(Debug, Default)]
pub struct Decoder {
    inflater: Inflater,
}

impl Decoder {
    /// The next frame, if all of it is there; it is taken from the buffer.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some(head) = buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        if length > PAYLOAD_MAX {
            return Err(Error::Malformed("a frame is too large"));
        }
        if buffer.len() < HEAD + length {
            buffer.reserve(HEAD + length - buffer.len());
            return Ok(None);
        }
        let mut head = buffer.split_to(HEAD);
        let payload = buffer.split_to(length).freeze();
        let (first, fin) = (head.get_u32(), head.get_u8() & FLAG_FIN != 0);
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data {
                id: first,
                data: payload,
                fin,
            }));
        }
        if (first >> 16) & 0x7fff != u32::from(VERSION) {
            return Err(Error::Malformed("another version"));
        }
        self.control(first & 0xffff, fin, payload).map(Some)
    }

    fn control(&mut self, kind: u32, fin: bool, mut payload: Bytes) -> Result<Frame, Error> {
        let needs = match kind {
            1 => 10,
            2 | 4 | 6 | 8 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if payload.len() < needs {
            return Err(Error::Malformed("a frame is too short"));
        }
        let id = |payload: &mut Bytes| payload.get_u32() & 0x7fff_ffff;
        Ok(match kind {
            1 => {
                let id = id(&mut payload);
                // Associated stream, priority, credential slot.
                payload.advance(6);
                Frame::SynStream {
                    id,
                    headers: self.inflater.headers(&payload)?,
                    fin,
                }
            }
            2 => {
                let id = id(&mut payload);
                Frame::SynReply {
                    id,
                    headers: self.inflater.headers(&payload)?,
                    fin,
                }
            }
            3 => Frame::RstStream {
                id: id(&mut payload),
                status: payload.get_u32(),
            },
            6 => Frame::Ping {
                id: payload.get_u32(),
            },
            7 => Frame::GoAway {
                last: id(&mut payload),
            },
            8 => {
                let id = id(&mut payload);
                Frame::Headers {
                    id,
                    headers: self.inflater.headers(&payload)?,
                    fin,
                }
            }
            _ => Frame::Other,
        })
    }
}

/// Turns frames into bytes, in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends a frame.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), Error> {
        match frame {
            Frame::Data { id, data, fin } => {
                out.put_u32(id & 0x7fff_ffff);
                put_length(out, *fin, data.len())?;
                out.extend_from_slice(data);
            }
            Frame::SynStream { id, headers, fin } => {
                let block = self.deflater.block(headers)?;
                control(out, 1, *fin, 10 + block.len())?;
                out.put_u32(*id);
                out.put_bytes(0, 6);
                out.extend_from_slice(&block);
            }
            Frame::SynReply { id, headers, fin } => {
                self.with_headers(out, 2, *id, headers, *fin)?
            }
            Frame::Headers { id, headers, fin } => self.with_headers(out, 8, *id, headers, *fin)?,
            Frame::RstStream { id, status } => {
                control(out, 3, false, 8)?;
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, 6, false, 4)?;
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(out, 7, false, 8)?;
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Other => {}
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        id: u32,
        headers: &[(String, String)],
        fin: bool,
    ) -> Result<(), Error> {
        let block = self.deflater.block(headers)?;
        control(out, kind, fin, 4 + block.len())?;
        out.put_u32(id);
        out.extend_from_slice(&block);
        Ok(())
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) -> Result<(), Error> {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, fin, length)
}

fn put_length(out: &mut BytesMut, fin: bool, length: usize) -> Result<(), Error> {
    if length > PAYLOAD_MAX {
        return Err(Error::Malformed("a frame to send is too large"));
    }
    out.put_u8(if fin { FLAG_FIN } else { 0 });
    out.put_uint(length as u64, 3);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any frame that is sent.
    fn frame() -> impl Strategy<Value = Frame> {
        let id = 0..0x8000_0000u32;
        let headers = proptest::collection::vec(("[a-z:-]{1,12}", "[ -~]{0,40}"), 0..4);
        let fin = any::<bool>();
        prop_oneof![
            (id.clone(), headers.clone(), fin).prop_map(|(id, headers, fin)| Frame::SynStream {
                id,
                headers,
                fin
            }),
            (id.clone(), headers, fin).prop_map(|(id, headers, fin)| Frame::Headers {
                id,
                headers,
                fin
            }),
            (
                id.clone(),
                proptest::collection::vec(any::<u8>(), 0..300),
                fin
            )
                .prop_map(|(id, data, fin)| Frame::Data {
                    id,
                    data: data.into(),
                    fin,
                }),
            (id, any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
        ]
    }

    /// Reads until there is nothing whole left, or a fault.
    fn read(wire: &[u8]) -> (Vec<Frame>, Result<(), Error>) {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(wire));
        let mut found = Vec::new();
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => return (found, Ok(())),
                Err(fault) => return (found, Err(fault)),
            }
        }
    }

    proptest! {
        #[test]
        fn any_frames_come_back(frames in proptest::collection::vec(frame(), 0..8)) {
            prop_assert_eq!(round(&frames), frames);
        }

        #[test]
        fn what_is_damaged_is_refused_or_read_and_never_more_than_was_sent(
            frames in proptest::collection::vec(frame(), 1..8),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut wire).unwrap();
            }
            for (at, octet) in changes {
                let at = at.index(wire.len());
                wire[at] ^= octet;
            }
            wire.truncate(cut.index(wire.len() + 1));
            let (found, _) = read(&wire);
            prop_assert!(found.len() * HEAD <= wire.len());
        }

        #[test]
        fn no_octets_panic(wire in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&wire);
            // The same as a frame of each kind.
            for kind in 0..10u8 {
                let length = u16::try_from(wire.len()).unwrap().to_be_bytes();
                let head = [0x80, 3, 0, kind, 0, 0, length[0], length[1]];
                let _ = read(&[&head[..], &wire].concat());
            }
        }
    }

    fn round(frames: &[Frame]) -> Vec<Frame> {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut wire = BytesMut::new();
        for frame in frames {
            encoder.encode(frame, &mut wire).unwrap();
        }
        // Byte by byte: a frame is whole or not there.
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.put_u8(byte);
            found.extend(decoder.decode(&mut buffer).unwrap());
        }
        found
    }

    #[test]
    fn every_frame_comes_back() {
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        let frames = [
            Frame::SynStream {
                id: 1,
                headers: headers.clone(),
                fin: false,
            },
            Frame::SynReply {
                id: 1,
                headers: Vec::new(),
                fin: false,
            },
            Frame::Data {
                id: 1,
                data: Bytes::from_static(b"hello"),
                fin: false,
            },
            Frame::Headers {
                id: 1,
                headers,
                fin: true,
            },
            Frame::Data {
                id: 1,
                data: Bytes::new(),
                fin: true,
            },
            Frame::RstStream { id: 1, status: 5 },
            Frame::Ping { id: 7 },
            Frame::GoAway { last: 1 },
        ];
        assert_eq!(round(&frames), frames);
    }

    #[test]
    fn the_bits_are_where_they_belong() {
        let mut out = BytesMut::new();
        let data = Frame::Data {
            id: 5,
            data: Bytes::from_static(b"ab"),
            fin: true,
        };
        Encoder::default().encode(&data, &mut out).unwrap();
        assert_eq!(&out[..], b"\0\0\0\x05\x01\0\0\x02ab");
        out.clear();
        Encoder::default()
            .encode(&Frame::Ping { id: 1 }, &mut out)
            .unwrap();
        assert_eq!(&out[..], b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x01");
    }

    #[test]
    fn nonsense_is_refused() {
        let decode = |bytes: &[u8]| Decoder::default().decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(b"\x80"), Ok(None));
        assert!(decode(b"\x80\x02\0\x06\0\0\0\0").is_err(), "version 2");
        assert!(
            decode(b"\x80\x03\0\x06\0\0\0\0").is_err(),
            "a ping without an id"
        );
        assert!(
            decode(b"\x80\x03\0\x01\0\xff\xff\xff").is_err(),
            "too large"
        );
        assert!(decode(b"GET / HT").is_err() || decode(b"GET / HT").unwrap().is_none());
        assert_eq!(
            decode(b"\x80\x03\0\x04\0\0\0\0"),
            Err(Error::Malformed("a frame is too short"))
        );
    }
}
