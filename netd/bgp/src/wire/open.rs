//! OPEN as octets (RFC 4271 §4.2, §6.2; RFC 5492; RFC 9072).

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{HEADER_LEN, MESSAGE_MAX};
use super::reader::Reader;
use super::{EncodeError, capability};
use crate::types::{Capability, Notification, NotificationError, Open, OpenError, Role, VERSION};

/// The optional parameter that holds capabilities.
const CAPABILITIES: u8 = 2;
/// As the first parameter's type: the parameters have lengths of two octets (RFC 9072).
const EXTENDED: u8 = 255;
/// The shortest hold time but 0, in seconds.
const HOLD_TIME_MIN: u16 = 3;

/// Reads the body of an OPEN and checks what does not depend on who was expected.
pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let mut body = Reader::new(body);
    let fixed = (body.u8(), body.u16(), body.u16(), body.array::<4>());
    let (Some(version), Some(my_as), Some(hold_time), Some(router_id)) = fixed else {
        return Err(error(OpenError::Unspecific));
    };
    if version != VERSION {
        let ours = Bytes::from_static(&[0, VERSION]);
        let error = NotificationError::Open(OpenError::UnsupportedVersion);
        return Err(Notification::with_data(error, ours));
    }
    let capabilities = parameters(&mut body)?;
    let open = Open {
        my_as,
        hold_time,
        router_id: Ipv4Addr::from(router_id),
        capabilities,
    };
    // AS 0 belongs to nobody (RFC 7607).
    if open.my_as == 0 || open.asn() == 0 {
        return Err(error(OpenError::BadPeerAs));
    }
    if (1..HOLD_TIME_MIN).contains(&hold_time) {
        return Err(error(OpenError::UnacceptableHoldTime));
    }
    if open.router_id.is_unspecified() {
        return Err(error(OpenError::BadIdentifier));
    }
    if contradicting_roles(&open.capabilities) {
        return Err(error(OpenError::RoleMismatch));
    }
    Ok(open)
}

fn error(error: OpenError) -> Notification {
    Notification::new(NotificationError::Open(error))
}

/// Several roles are an error, the same one several times is not (RFC 9234 §4.2).
fn contradicting_roles(capabilities: &[Capability]) -> bool {
    let mut roles = capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        });
    let first: Option<Role> = roles.next();
    roles.any(|role| Some(role) != first)
}

/// Reads the optional parameters, in whichever of the two forms they are.
fn parameters(body: &mut Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let malformed = || error(OpenError::Unspecific);
    let len = body.u8().ok_or_else(malformed)?;
    let extended = len != 0 && body.rest().first() == Some(&EXTENDED);
    let len = if extended {
        body.u8();
        body.u16().ok_or_else(malformed)?
    } else {
        u16::from(len)
    };
    let mut parameters = Reader::new(body.take(usize::from(len)).ok_or_else(malformed)?);
    if !body.is_empty() {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while let Some(kind) = parameters.u8() {
        let len = match extended {
            true => parameters.u16().map(usize::from),
            false => parameters.u8().map(usize::from),
        };
        let value = len
            .and_then(|len| parameters.take(len))
            .ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(error(OpenError::UnsupportedParameter));
        }
        read_capabilities(value, &mut capabilities).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

fn read_capabilities(value: &[u8], capabilities: &mut Vec<Capability>) -> Option<()> {
    let mut value = Reader::new(value);
    while let Some(code) = value.u8() {
        let len = value.u8()?;
        capabilities.push(capability::decode(code, value.take(usize::from(len))?));
    }
    Some(())
}

/// Appends the body of an OPEN: all capabilities in one parameter, in the extended form only if
/// they do not fit the plain one.
pub(super) fn encode(open: &Open, out: &mut BytesMut) -> Result<(), EncodeError> {
    out.put_u8(VERSION);
    out.put_u16(open.my_as);
    out.put_u16(open.hold_time);
    out.put_slice(&open.router_id.octets());
    let mut capabilities = BytesMut::new();
    for one in &open.capabilities {
        capability::encode(one, &mut capabilities)?;
    }
    let len = capabilities.len();
    // Version, AS, hold time, router id; then the longer of the two parameter heads.
    if HEADER_LEN + 9 + 7 + len > MESSAGE_MAX {
        return Err(EncodeError::OpenTooLong { len });
    }
    match u8::try_from(len + 2) {
        _ if len == 0 => out.put_u8(0),
        Ok(parameter) => out.put_slice(&[parameter, CAPABILITIES, len as u8]),
        Err(_) => {
            out.put_slice(&[EXTENDED, EXTENDED]);
            out.put_u16(len as u16 + 3);
            out.put_u8(CAPABILITIES);
            out.put_u16(len as u16);
        }
    }
    out.put_slice(&capabilities);
    Ok(())
}
