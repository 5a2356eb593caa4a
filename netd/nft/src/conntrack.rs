//! Deleting connections from the kernel's connection table.
//!
//! A UDP "connection" lives as long as packets flow, so a client that keeps sending to a service
//! would be led to an endpoint that is gone for ever; deleting its entry lets the next packet be
//! translated anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::consts::*;
use crate::error::Error;
use crate::object::Family;
use crate::socket::Nft;
use crate::wire::{Attrs, Head, Writer};

/// A connection: as its first packet was sent, and as its answers come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub protocol: u8,
    /// Where the first packet came from.
    pub source: (IpAddr, u16),
    /// Where the first packet was sent, before any translation.
    pub destination: (IpAddr, u16),
    /// Where answers come from: the destination after translation.
    pub answered_by: (IpAddr, u16),
    /// State of a TCP connection (`TCP_CONNTRACK_*`).
    pub tcp_state: Option<u8>,
    /// Its mark; 0 where it has none.
    pub mark: u32,
    original: Vec<u8>,
}

impl Nft {
    /// The connections that `wanted` selects.
    pub fn connections(
        &mut self,
        family: Family,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Connection>, Error> {
        let request = message(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP, family, |_| {});
        let mut found = Vec::new();
        self.dump(&request, &|| "list connections".to_owned(), |_, attrs| {
            found.extend(Connection::read(attrs).filter(|one| wanted(one)));
        })?;
        Ok(found)
    }

    /// Deletes the connections of a protocol that `gone` selects; how many there were.
    pub fn delete_connections(
        &mut self,
        family: Family,
        protocol: u8,
        gone: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Error> {
        let request = message(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP, family, |_| {});
        let mut selected = Vec::new();
        // An interrupted dump may miss entries that were created meanwhile: those were
        // translated by the rules as they are now, and are none of ours.
        self.dump(&request, &|| "list connections".to_owned(), |_, attrs| {
            let connection = Connection::read(attrs);
            selected.extend(connection.filter(|c| c.protocol == protocol && gone(c)));
        })?;
        let mut deleted = 0;
        for connection in selected {
            let request = message(IPCTNL_MSG_CT_DELETE, libc::NLM_F_ACK, family, |w| {
                w.attr(CTA_TUPLE_ORIG | NESTED, &connection.original);
            });
            match self.request(&request, &|| "delete a connection".to_owned()) {
                Ok(()) => deleted += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

const NESTED: u16 = 1 << 15;

fn message(kind: u16, flags: i32, family: Family, body: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    let head = Head {
        kind: (NFNL_SUBSYS_CTNETLINK << 8) | kind,
        flags: (libc::NLM_F_REQUEST | flags) as u16,
        sequence: 1,
        family: family.number(),
        resource: 0,
    };
    writer.message(&head, body);
    writer
}

impl Connection {
    fn read(attrs: Attrs<'_>) -> Option<Self> {
        let original = attrs.find(CTA_TUPLE_ORIG)?;
        let (protocol, source, destination) = read_tuple(Attrs(original))?;
        let (_, answered_by, _) = read_tuple(attrs.nested(CTA_TUPLE_REPLY))?;
        Some(Connection {
            protocol,
            source,
            destination,
            answered_by,
            tcp_state: tcp_state(attrs),
            mark: attrs.be32(CTA_MARK).unwrap_or_default(),
            original: original.to_vec(),
        })
    }
}

fn tcp_state(attrs: Attrs<'_>) -> Option<u8> {
    let tcp = attrs.nested(CTA_PROTOINFO).nested(CTA_PROTOINFO_TCP);
    tcp.find(CTA_PROTOINFO_TCP_STATE)?.first().copied()
}

type End = (IpAddr, u16);

fn read_tuple(tuple: Attrs<'_>) -> Option<(u8, End, End)> {
    let ip = tuple.nested(CTA_TUPLE_IP);
    let ports = tuple.nested(CTA_TUPLE_PROTO);
    let source = read_address(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?;
    let destination = read_address(ip, CTA_IP_V4_DST, CTA_IP_V6_DST)?;
    Some((
        *ports.find(CTA_PROTO_NUM)?.first()?,
        (source, ports.be16(CTA_PROTO_SRC_PORT).unwrap_or_default()),
        (
            destination,
            ports.be16(CTA_PROTO_DST_PORT).unwrap_or_default(),
        ),
    ))
}

fn read_address(ip: Attrs<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(bytes) = ip.find(v4) {
        let bytes: [u8; 4] = bytes.try_into().ok()?;
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes: [u8; 16] = ip.find(v6)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}
