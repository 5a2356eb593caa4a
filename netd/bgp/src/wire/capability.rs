//! Capabilities as octets (RFC 5492 §4 and the document of each).

use bytes::{BufMut, Bytes, BytesMut};

use super::EncodeError;
use super::reader::{Reader, exact};
use crate::types::{
    AddPath, Capability, ExtendedNextHop, Family, GracefulRestart, LongLivedFamily, Restartable,
    truncated,
};

/// The R bit of graceful restart.
const RESTARTING: u16 = 0x8000;
/// The N bit of graceful restart.
const NOTIFICATION: u16 = 0x4000;
/// The restart time in the same two octets.
const RESTART_TIME: u16 = 0x0fff;
/// The F bit of a family in graceful restart.
const FORWARDING: u8 = 0x80;

/// Reads one capability. A known one whose value has not the form it should have is kept as
/// unknown: it is not worth a session.
pub(super) fn decode(code: u8, value: &[u8]) -> Capability {
    known(code, value).unwrap_or_else(|| Capability::Unknown {
        code,
        value: Bytes::copy_from_slice(value),
    })
}

fn known(code: u8, value: &[u8]) -> Option<Capability> {
    Some(match code {
        1 => {
            let [a, b, _reserved, safi] = exact(value)?;
            Capability::MultiProtocol(Family {
                afi: u16::from_be_bytes([a, b]),
                safi,
            })
        }
        2 if value.is_empty() => Capability::RouteRefresh,
        5 => Capability::ExtendedNextHop(each(value, extended_next_hop)?),
        6 if value.is_empty() => Capability::ExtendedMessage,
        9 => Capability::Role(exact::<1>(value)?[0].into()),
        64 => Capability::GracefulRestart(graceful_restart(value)?),
        65 => Capability::FourOctetAs(u32::from_be_bytes(exact(value)?)),
        69 => Capability::AddPath(each(value, add_path)?),
        70 if value.is_empty() => Capability::EnhancedRouteRefresh,
        71 => Capability::LongLivedGracefulRestart(each(value, long_lived)?),
        73 => fqdn(value)?,
        _ => return None,
    })
}

/// The items of a value that is nothing but items of `N` octets.
fn each<const N: usize, T>(value: &[u8], item: impl Fn([u8; N]) -> Option<T>) -> Option<Vec<T>> {
    let (chunks, rest) = value.as_chunks::<N>();
    if !rest.is_empty() {
        return None;
    }
    chunks.iter().map(|chunk| item(*chunk)).collect()
}

fn extended_next_hop([a, b, c, safi, d, e]: [u8; 6]) -> Option<ExtendedNextHop> {
    let family = Family {
        afi: u16::from_be_bytes([a, b]),
        safi,
    };
    // The SAFI has two octets here; assigned ones have one.
    (c == 0).then_some(ExtendedNextHop {
        family,
        next_hop_afi: u16::from_be_bytes([d, e]),
    })
}

fn add_path([a, b, safi, mode]: [u8; 4]) -> Option<AddPath> {
    let family = Family {
        afi: u16::from_be_bytes([a, b]),
        safi,
    };
    let (receive, send) = (mode & 1 != 0, mode & 2 != 0);
    (1..=3).contains(&mode).then_some(AddPath {
        family,
        send,
        receive,
    })
}

fn graceful_restart(value: &[u8]) -> Option<GracefulRestart> {
    let (head, families) = value.split_first_chunk()?;
    let head = u16::from_be_bytes(*head);
    let families = each(families, |[a, b, safi, flags]| {
        let family = Family {
            afi: u16::from_be_bytes([a, b]),
            safi,
        };
        Some(Restartable {
            family,
            forwarding: flags & FORWARDING != 0,
        })
    });
    Some(GracefulRestart {
        restarting: head & RESTARTING != 0,
        notification: head & NOTIFICATION != 0,
        restart_time: head & RESTART_TIME,
        families: families?,
    })
}

fn long_lived([a, b, safi, flags, x, y, z]: [u8; 7]) -> Option<LongLivedFamily> {
    Some(LongLivedFamily {
        family: Family {
            afi: u16::from_be_bytes([a, b]),
            safi,
        },
        forwarding: flags & FORWARDING != 0,
        stale_time: u32::from_be_bytes([0, x, y, z]),
    })
}

fn fqdn(value: &[u8]) -> Option<Capability> {
    let mut value = Reader::new(value);
    let mut name = || {
        let len = value.u8()?;
        let octets = value.take(usize::from(len))?;
        String::from_utf8(octets.to_vec()).ok()
    };
    let (hostname, domain) = (name()?, name()?);
    value
        .is_empty()
        .then_some(Capability::Fqdn { hostname, domain })
}

/// Appends a capability: code, length, value.
pub(super) fn encode(capability: &Capability, out: &mut BytesMut) -> Result<(), EncodeError> {
    let code = capability.code();
    out.put_slice(&[code, 0]);
    let start = out.len();
    encode_value(capability, out);
    let len = out.len() - start;
    let octet = u8::try_from(len).map_err(|_| EncodeError::CapabilityTooLong { code, len })?;
    out[start - 1] = octet;
    Ok(())
}

fn encode_value(capability: &Capability, out: &mut BytesMut) {
    match capability {
        Capability::MultiProtocol(family) => {
            out.put_u16(family.afi);
            out.put_slice(&[0, family.safi]);
        }
        Capability::RouteRefresh
        | Capability::ExtendedMessage
        | Capability::EnhancedRouteRefresh => {}
        Capability::ExtendedNextHop(pairs) => {
            for pair in pairs {
                out.put_u16(pair.family.afi);
                out.put_u16(u16::from(pair.family.safi));
                out.put_u16(pair.next_hop_afi);
            }
        }
        Capability::Role(role) => out.put_u8((*role).into()),
        Capability::GracefulRestart(restart) => encode_graceful_restart(restart, out),
        Capability::FourOctetAs(asn) => out.put_u32(*asn),
        Capability::AddPath(families) => {
            for one in families {
                put_family(one.family, out);
                out.put_u8(u8::from(one.receive) | u8::from(one.send) << 1);
            }
        }
        Capability::LongLivedGracefulRestart(families) => {
            for one in families {
                put_family(one.family, out);
                out.put_u8(if one.forwarding { FORWARDING } else { 0 });
                out.put_uint(u64::from(one.stale_time.min(0xff_ffff)), 3);
            }
        }
        Capability::Fqdn { hostname, domain } => {
            for name in [hostname, domain] {
                let name = truncated(name, usize::from(u8::MAX)).as_bytes();
                out.put_u8(name.len() as u8);
                out.put_slice(name);
            }
        }
        Capability::Unknown { value, .. } => out.put_slice(value),
    }
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut BytesMut) {
    let flag = |set, bit| if set { bit } else { 0 };
    out.put_u16(
        flag(restart.restarting, RESTARTING)
            | flag(restart.notification, NOTIFICATION)
            | restart.restart_time.min(RESTART_TIME),
    );
    for one in &restart.families {
        put_family(one.family, out);
        out.put_u8(if one.forwarding { FORWARDING } else { 0 });
    }
}

fn put_family(family: Family, out: &mut BytesMut) {
    out.put_u16(family.afi);
    out.put_u8(family.safi);
}
