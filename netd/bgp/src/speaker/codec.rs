//! Messages of one connection, out of its bytes and into them.

use bytes::{Bytes, BytesMut};

use crate::types::{Message, Notification};
use crate::wire::{self, Session};

/// Cuts the messages out of what comes on a connection. It holds at most what was pushed and not
/// read, so the pusher's chunk and one message.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: BytesMut,
}

impl Reader {
    pub fn new() -> Self {
        Reader::default()
    }

    /// More bytes came.
    pub fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    pub fn next(&mut self, session: &Session) -> Result<Option<Message>, Notification> {
        let Some(message) = wire::split(&mut self.buffer, session)? else {
            return Ok(None);
        };
        wire::decode(&message, session).map(Some)
    }
}

/// The bytes of a message.
pub(super) fn write(message: &Message, session: &Session) -> Result<Bytes, wire::EncodeError> {
    let mut bytes = BytesMut::new();
    wire::encode(message, session, &mut bytes)?;
    Ok(bytes.freeze())
}
