//! Messages as octets.
//!
//! Reading takes two steps: [`split`] cuts the next whole message off a stream, [`decode`] reads
//! it. Both answer what cannot be borne with the NOTIFICATION to send; what can be borne (RFC 7606)
//! is already applied to the [`Update`](crate::types::Update) and listed in its `problems`.
//!
//! Writing: [`encode`] for any message; [`announce`] and [`withdraw`] write any number of routes
//! in as few UPDATEs as they fit.
//!
//! Nothing here allocates per prefix: see [`NlriList`](crate::types::NlriList).

mod capability;
mod header;
mod open;
mod reader;
mod session;
mod update;

pub use header::{HEADER_LEN, MESSAGE_MAX, MESSAGE_MAX_EXTENDED, split};
pub use session::{FamilySession, Session};
pub use update::{announce, end_of_rib, withdraw};

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{
    Family, HeaderError, Message, MessageType, Notification, NotificationError, RefreshError,
    RefreshSubtype, RouteRefresh,
};
use reader::Reader;

/// Why something cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for a prefix.
    #[error("the attributes take {len} octets, which leaves no room for a prefix in a message")]
    AttributesTooLong {
        /// Their length.
        len: usize,
    },
    /// Routes are announced without a next hop.
    #[error("the attributes have no next hop; set the session's own address first")]
    NoNextHop,
    /// The next hop is of a family in which these routes cannot have it.
    #[error("{family} routes cannot have the next hop {next_hop} in this session")]
    NextHop {
        /// The routes' family.
        family: Family,
        /// The next hop.
        next_hop: String,
    },
    /// The family's routes cannot be written.
    #[error("{0} is not a family whose routes can be sent")]
    Family(Family),
    /// The value of a capability is longer than its length can say.
    #[error("capability {code} has {len} octets; 255 is the most")]
    CapabilityTooLong {
        /// Its code.
        code: u8,
        /// Its length.
        len: usize,
    },
    /// Too many capabilities for one OPEN.
    #[error("the capabilities take {len} octets, which is more than an OPEN can hold")]
    OpenTooLong {
        /// Their length.
        len: usize,
    },
}

/// Reads one whole message, as [`split`] gives it.
///
/// # Errors
/// With the NOTIFICATION that ends the session.
pub fn decode(message: &Bytes, session: &Session) -> Result<Message, Notification> {
    let kind = header::check(message, session)?;
    let body = &message[HEADER_LEN..];
    match kind {
        MessageType::Open => open::decode(body).map(Message::Open),
        MessageType::Update => update::decode(message, session).map(Message::Update),
        MessageType::Notification => {
            // Two octets are there: the header check knows the least length of each type.
            let (error, data) = body.split_at(2);
            let error = NotificationError::from_codes(error[0], error[1]);
            Ok(Message::Notification(Notification::with_data(
                error,
                Bytes::copy_from_slice(data),
            )))
        }
        MessageType::Keepalive => Ok(Message::Keepalive),
        MessageType::RouteRefresh => decode_refresh(message).map(Message::RouteRefresh),
        MessageType::Other(_) => Err(header::error(HeaderError::BadType, &message[18..19])),
    }
}

/// Appends a message; an UPDATE becomes as many as its routes need.
///
/// # Errors
/// If it cannot be written; then nothing was appended.
pub fn encode(message: &Message, session: &Session, out: &mut BytesMut) -> Result<(), EncodeError> {
    let start = out.len();
    match message {
        Message::Open(open) => {
            header::begin(MessageType::Open, out);
            open::encode(open, out).inspect_err(|_| out.truncate(start))?;
        }
        Message::Update(update) => {
            return update::encode(update, session, out).inspect_err(|_| out.truncate(start));
        }
        Message::Notification(notification) => {
            header::begin(MessageType::Notification, out);
            let (code, subcode) = notification.error.codes();
            out.put_slice(&[code, subcode]);
            let room = session.max_message_len() - (out.len() - start);
            out.put_slice(&notification.data[..notification.data.len().min(room)]);
        }
        Message::Keepalive => header::begin(MessageType::Keepalive, out),
        Message::RouteRefresh(refresh) => {
            header::begin(MessageType::RouteRefresh, out);
            out.put_u16(refresh.family.afi);
            out.put_u8(refresh.subtype.into());
            out.put_u8(refresh.family.safi);
        }
    }
    header::finish(start, out);
    Ok(())
}

/// RFC 2918 §3, with the octet that RFC 7313 made the subtype.
fn decode_refresh(message: &Bytes) -> Result<RouteRefresh, Notification> {
    let mut body = Reader::new(&message[HEADER_LEN..]);
    let (afi, subtype, safi) = (body.u16(), body.u8(), body.u8());
    let subtype = subtype.map(RefreshSubtype::from);
    match (afi, subtype, safi) {
        (Some(afi), Some(subtype), Some(safi)) if body.is_empty() => Ok(RouteRefresh {
            family: Family { afi, safi },
            subtype,
        }),
        (_, Some(RefreshSubtype::Begin | RefreshSubtype::End), _) => {
            let error = NotificationError::Refresh(RefreshError::InvalidLength);
            Err(Notification::with_data(error, message.clone()))
        }
        _ => Err(header::error(HeaderError::BadLength, &message[16..18])),
    }
}
