//! Requests and replies as messages: what is wrong with a request, and what fits a reply.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::DNSClass;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// What we send and take by UDP at most: what passes every link unfragmented
/// (DNS flag day 2020).
pub(super) const UDP_BYTES: u16 = 1232;
/// What a client without EDNS takes (RFC 1035, 2.3.4).
const PLAIN_UDP_BYTES: u16 = 512;
const HEADER_BYTES: usize = 12;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream: up to 64 KiB.
    Tcp,
}

/// Reads a request. `Err` holds the reply to one that cannot be served, or nothing where no
/// reply must be given: to noise, and to what is a reply itself.
pub(super) fn read(bytes: &[u8]) -> Result<Message, Option<Box<Message>>> {
    let Ok(request) = Message::from_vec(bytes) else {
        return Err(malformed(bytes).map(Box::new));
    };
    if request.metadata.message_type != MessageType::Query {
        return Err(None);
    }
    let refuse = |code| Err(Some(Box::new(reply(&request, code))));
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [query] = &request.queries[..] else {
        return refuse(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN || query.query_type().is_zone_transfer() {
        return refuse(ResponseCode::Refused);
    }
    Ok(request)
}

trait ZoneTransfer {
    fn is_zone_transfer(&self) -> bool;
}

impl ZoneTransfer for hickory_proto::rr::RecordType {
    fn is_zone_transfer(&self) -> bool {
        matches!(self, Self::AXFR | Self::IXFR)
    }
}

/// The reply to a message that cannot be read, if it has a head at all.
fn malformed(bytes: &[u8]) -> Option<Message> {
    let head = bytes.get(..HEADER_BYTES)?;
    let is_reply = head[2] & 0x80 != 0;
    if is_reply {
        return None;
    }
    let id = u16::from_be_bytes([head[0], head[1]]);
    Some(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}

/// A reply without records.
pub(super) fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.checking_disabled = request.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries = request.queries.clone();
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        reply.edns = Some(edns);
    }
    reply
}

/// The reply's bytes; by UDP, records that do not fit are left out and the client is told to
/// ask again by TCP.
pub(super) fn write(request: Option<&Message>, reply: &Message, transport: Transport) -> Vec<u8> {
    let limit = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => request
            .and_then(|request| request.edns.as_ref())
            .map_or(PLAIN_UDP_BYTES, |edns| {
                edns.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES)
            }),
    };
    let whole = encode(reply, u16::MAX);
    match whole {
        Some(bytes) if bytes.len() <= usize::from(limit) => bytes,
        // Its question and OPT record always fit 512 bytes.
        _ => encode(&reply.truncate(), limit).unwrap_or_default(),
    }
}

fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}
