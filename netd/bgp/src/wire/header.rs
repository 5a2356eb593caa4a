//! The header that all messages share, and cutting a stream into messages (RFC 4271 §4.1, §6.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::Session;
use crate::types::{HeaderError, MessageType, Notification, NotificationError};

/// Octets of the header: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// Octets of the longest message (RFC 4271).
pub const MESSAGE_MAX: usize = 4_096;
/// Octets of the longest message where both ends have extended messages (RFC 8654).
pub const MESSAGE_MAX_EXTENDED: usize = 65_535;

const MARKER: [u8; 16] = [0xff; 16];

/// Takes the next whole message off a stream; `None` if there is none yet. The header is checked
/// as soon as it is there, so no more than one longest message ever needs to be buffered.
///
/// The message shares the buffer's memory: what is to be kept for long should be copied.
///
/// # Errors
/// With the NOTIFICATION to send when the stream cannot be read on.
pub fn split(buffer: &mut BytesMut, session: &Session) -> Result<Option<Bytes>, Notification> {
    if buffer.len() < HEADER_LEN {
        return Ok(None);
    }
    let (_, len) = parse(buffer, session)?;
    Ok((buffer.len() >= len).then(|| buffer.split_to(len).freeze()))
}

/// Checks the header of a whole message, and that it is whole.
pub(super) fn check(message: &[u8], session: &Session) -> Result<MessageType, Notification> {
    if message.len() < HEADER_LEN {
        return Err(error(HeaderError::BadLength, &[]));
    }
    let (kind, len) = parse(message, session)?;
    if len != message.len() {
        return Err(error(HeaderError::BadLength, &message[16..18]));
    }
    Ok(kind)
}

/// Type and length from a header, checked against each other. `octets` hold at least a header.
fn parse(octets: &[u8], session: &Session) -> Result<(MessageType, usize), Notification> {
    if octets[..16] != MARKER {
        return Err(error(HeaderError::NotSynchronized, &[]));
    }
    let len = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
    let kind = MessageType::from(octets[18]);
    let longest = session.max_message_len();
    let bounds = match kind {
        MessageType::Open => 29..=MESSAGE_MAX,
        MessageType::Update => 23..=longest,
        MessageType::Notification => 21..=longest,
        MessageType::Keepalive => 19..=19,
        MessageType::RouteRefresh => 22..=longest,
        MessageType::Other(_) => HEADER_LEN..=longest,
    };
    if !bounds.contains(&len) {
        return Err(error(HeaderError::BadLength, &octets[16..18]));
    }
    if let MessageType::Other(_) = kind {
        return Err(error(HeaderError::BadType, &octets[18..19]));
    }
    Ok((kind, len))
}

pub(super) fn error(error: HeaderError, data: &[u8]) -> Notification {
    Notification::with_data(
        NotificationError::Header(error),
        Bytes::copy_from_slice(data),
    )
}

/// Appends a header; [`finish`] puts its length in.
pub(super) fn begin(kind: MessageType, out: &mut BytesMut) {
    out.put_slice(&MARKER);
    out.put_u16(0);
    out.put_u8(kind.into());
}

/// Puts the length into the header of the message that begins at `start`.
pub(super) fn finish(start: usize, out: &mut BytesMut) {
    patch_u16(out, start + 16, out.len() - start);
}

/// Overwrites two octets with a length. One that does not fit cannot come here: whoever writes a
/// message bounds it first.
pub(super) fn patch_u16(out: &mut BytesMut, at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Message;

    fn keepalive() -> Vec<u8> {
        let mut octets = MARKER.to_vec();
        octets.extend([0, 19, 4]);
        octets
    }

    #[test]
    fn a_stream_is_cut_wherever_it_was_cut_before() {
        let session = Session::before_open();
        let stream: Vec<u8> = keepalive().repeat(3);
        for chunk in 1..stream.len() {
            let mut buffer = BytesMut::new();
            let mut messages = 0;
            for part in stream.chunks(chunk) {
                buffer.extend_from_slice(part);
                while let Some(message) = split(&mut buffer, &session).unwrap() {
                    assert_eq!(
                        super::super::decode(&message, &session),
                        Ok(Message::Keepalive)
                    );
                    messages += 1;
                }
            }
            assert_eq!((messages, buffer.len()), (3, 0), "in chunks of {chunk}");
        }
    }

    #[test]
    fn a_bad_header_is_answered_before_the_body_is_here() {
        let cases: [(usize, u8, HeaderError, &[u8]); 7] = [
            (0, 0, HeaderError::NotSynchronized, &[]),
            (17, 18, HeaderError::BadLength, &[0, 18]),
            (17, 20, HeaderError::BadLength, &[0, 20]),
            (16, 0x20, HeaderError::BadLength, &[0x20, 19]),
            (18, 1, HeaderError::BadLength, &[0, 19]),
            (18, 0, HeaderError::BadType, &[0]),
            (18, 6, HeaderError::BadType, &[6]),
        ];
        for (at, octet, expected, data) in cases {
            let mut header = keepalive();
            header[at] = octet;
            let answer = split(&mut BytesMut::from(&header[..]), &Session::before_open());
            assert_eq!(answer, Err(error(expected, data)), "octet {at} = {octet}");
        }
    }

    #[test]
    fn extended_messages_are_long_but_not_the_open() {
        let mut session = Session::before_open();
        let header = |kind| [&MARKER[..], &[0xff, 0xff, kind]].concat();
        let split = |kind, session: &Session| split(&mut BytesMut::from(&*header(kind)), session);
        assert!(split(2, &session).is_err());
        session.extended_message = true;
        assert_eq!(split(2, &session), Ok(None));
        assert!(split(1, &session).is_err());
    }
}
