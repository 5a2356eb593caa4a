//! Writing UPDATEs: as many prefixes in each as fit.

use std::iter::Peekable;

use bytes::{BufMut, BytesMut};

use crate::types::flags::{EXTENDED_LENGTH, OPTIONAL, TRANSITIVE};
use crate::types::{
    AS_TRANS, Aggregator, AsPath, AttributeCode, Family, MessageType, NextHop, Nlri, Origin,
    PathAttributes, Segment, Update,
};
use crate::wire::header::{self, HEADER_LEN, patch_u16};
use crate::wire::{EncodeError, Session};

/// Octets of an MP_REACH_NLRI before the prefixes, without the next hop: the attribute's header,
/// AFI, SAFI, the length of the next hop, one reserved.
const REACH_HEAD: usize = 4 + 3 + 1 + 1;
/// Octets of an MP_UNREACH_NLRI before the prefixes.
const UNREACH_HEAD: usize = 4 + 3;
/// Octets of an UPDATE without attributes and prefixes: header and two lengths.
const UPDATE_HEAD: usize = HEADER_LEN + 4;
/// Numbers in a segment of an AS path: the wire counts them in one octet.
const SEGMENT_MAX: usize = 255;

/// Appends UPDATEs that announce `prefixes`, all of `family`, with the same attributes; how many
/// UPDATEs it took. Prefixes of another family are left out.
///
/// LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are written only to internal peers; AS4_PATH and
/// AS4_AGGREGATOR are made where the peer has two-octet AS numbers.
///
/// # Errors
/// If the attributes cannot be sent in this session; then nothing was appended.
pub fn announce(
    session: &Session,
    attributes: &PathAttributes,
    family: Family,
    prefixes: impl IntoIterator<Item = Nlri>,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    if !family.is_supported() {
        return Err(EncodeError::Family(family));
    }
    let next_hop = sendable_next_hop(session, attributes, family)?;
    let mut shared = BytesMut::with_capacity(256);
    put_attributes(session, attributes, &mut shared);
    let writer = Writer { session, family };
    // The head of the form used, and room for at least one prefix of the longest kind.
    let longest = 4 + 1 + 16;
    if UPDATE_HEAD + REACH_HEAD + 32 + shared.len() + longest > session.max_message_len() {
        return Err(EncodeError::AttributesTooLong { len: shared.len() });
    }
    let mut prefixes = prefixes
        .into_iter()
        .filter(|one| Family::of(&one.prefix) == family);
    let mut prefixes = prefixes.by_ref().peekable();
    let mut messages = 0;
    while prefixes.peek().is_some() {
        match next_hop {
            NextHop::V4(address) => writer.plain(address, &shared, &mut prefixes, out),
            _ => writer.reach(next_hop, &shared, &mut prefixes, out),
        }
        messages += 1;
    }
    Ok(messages)
}

/// Appends UPDATEs that withdraw `prefixes`, all of `family`; how many UPDATEs it took. Prefixes
/// of another family are left out.
///
/// # Errors
/// If routes of the family cannot be written.
pub fn withdraw(
    session: &Session,
    family: Family,
    prefixes: impl IntoIterator<Item = Nlri>,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    if !family.is_supported() {
        return Err(EncodeError::Family(family));
    }
    let writer = Writer { session, family };
    let mut prefixes = prefixes
        .into_iter()
        .filter(|one| Family::of(&one.prefix) == family);
    let mut prefixes = prefixes.by_ref().peekable();
    let mut messages = 0;
    while prefixes.peek().is_some() {
        match family {
            Family::IPV4_UNICAST => writer.withdrawn(&mut prefixes, out),
            _ => writer.unreach(&mut prefixes, out),
        }
        messages += 1;
    }
    Ok(messages)
}

/// Appends the mark that all routes of a family have been sent (RFC 4724 §2).
pub fn end_of_rib(family: Family, out: &mut BytesMut) {
    let start = out.len();
    header::begin(MessageType::Update, out);
    out.put_u16(0);
    if family == Family::IPV4_UNICAST {
        out.put_u16(0);
    } else {
        out.put_u16(6);
        out.put_slice(&[OPTIONAL, AttributeCode::MpUnreachNlri.into(), 3]);
        put_family(family, out);
    }
    header::finish(start, out);
}

/// Appends an UPDATE value, as several messages where its parts do not go together.
pub(in crate::wire) fn encode(
    update: &Update,
    session: &Session,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    for list in &update.withdrawn {
        withdraw(session, list.family(), list, out)?;
    }
    for one in &update.announced {
        announce(session, &one.attributes, one.nlri.family(), &one.nlri, out)?;
    }
    if let Some(family) = update.end_of_rib {
        end_of_rib(family, out);
    }
    Ok(())
}

/// Writes one message at a time.
struct Writer<'a> {
    session: &'a Session,
    family: Family,
}

impl Writer<'_> {
    /// IPv4 routes with an IPv4 next hop: in the message's own field.
    fn plain(
        &self,
        next_hop: std::net::Ipv4Addr,
        shared: &[u8],
        prefixes: &mut Peekable<impl Iterator<Item = Nlri>>,
        out: &mut BytesMut,
    ) {
        let start = self.begin(out);
        let length = out.len();
        out.put_u16(0);
        put_attribute(TRANSITIVE, AttributeCode::NextHop, out, |out| {
            out.put_slice(&next_hop.octets());
        });
        out.put_slice(shared);
        patch_u16(out, length, out.len() - length - 2);
        self.fill(start, 0, prefixes, out);
        header::finish(start, out);
    }

    /// All others: in an MP_REACH_NLRI, which comes first (RFC 7606 §5.1).
    fn reach(
        &self,
        next_hop: NextHop,
        shared: &[u8],
        prefixes: &mut Peekable<impl Iterator<Item = Nlri>>,
        out: &mut BytesMut,
    ) {
        let start = self.begin(out);
        let length = out.len();
        out.put_u16(0);
        let value = begin_long(AttributeCode::MpReachNlri, out);
        put_family(self.family, out);
        put_next_hop(next_hop, out);
        out.put_u8(0);
        self.fill(start, shared.len(), prefixes, out);
        patch_u16(out, value - 2, out.len() - value);
        out.put_slice(shared);
        patch_u16(out, length, out.len() - length - 2);
        header::finish(start, out);
    }

    fn withdrawn(&self, prefixes: &mut Peekable<impl Iterator<Item = Nlri>>, out: &mut BytesMut) {
        let start = out.len();
        header::begin(MessageType::Update, out);
        let length = out.len();
        out.put_u16(0);
        self.fill(start, 2, prefixes, out);
        patch_u16(out, length, out.len() - length - 2);
        out.put_u16(0);
        header::finish(start, out);
    }

    fn unreach(&self, prefixes: &mut Peekable<impl Iterator<Item = Nlri>>, out: &mut BytesMut) {
        debug_assert!(UPDATE_HEAD + UNREACH_HEAD < self.session.max_message_len());
        let start = self.begin(out);
        let length = out.len();
        out.put_u16(0);
        let value = begin_long(AttributeCode::MpUnreachNlri, out);
        put_family(self.family, out);
        self.fill(start, 0, prefixes, out);
        patch_u16(out, value - 2, out.len() - value);
        patch_u16(out, length, out.len() - length - 2);
        header::finish(start, out);
    }

    /// The header, and no withdrawn routes.
    fn begin(&self, out: &mut BytesMut) -> usize {
        let start = out.len();
        header::begin(MessageType::Update, out);
        out.put_u16(0);
        start
    }

    /// Prefixes, as long as the message that begins at `start` has room for them and for
    /// `reserved` octets more.
    fn fill(
        &self,
        start: usize,
        reserved: usize,
        prefixes: &mut Peekable<impl Iterator<Item = Nlri>>,
        out: &mut BytesMut,
    ) {
        let add_path = self
            .session
            .family(self.family)
            .is_some_and(|one| one.add_path_send);
        let limit = start + self.session.max_message_len() - reserved;
        while let Some(nlri) =
            prefixes.next_if(|nlri| out.len() + nlri.encoded_len(add_path) <= limit)
        {
            nlri.encode(add_path, out);
        }
    }
}

/// The next hop, if routes of the family may have it in this session.
fn sendable_next_hop(
    session: &Session,
    attributes: &PathAttributes,
    family: Family,
) -> Result<NextHop, EncodeError> {
    let next_hop = attributes.next_hop.ok_or(EncodeError::NoNextHop)?;
    let extended = session
        .family(family)
        .is_some_and(|one| one.extended_next_hop);
    let ipv4_routes = family.afi == Family::AFI_IPV4;
    match next_hop {
        NextHop::V4(_) if ipv4_routes => Ok(next_hop),
        NextHop::V6(_) | NextHop::V6WithLinkLocal { .. } if !ipv4_routes || extended => {
            Ok(next_hop)
        }
        _ => Err(EncodeError::NextHop {
            family,
            next_hop: next_hop.to_string(),
        }),
    }
}

/// Appends the header of an attribute whose length has two octets; where its value begins.
fn begin_long(code: AttributeCode, out: &mut BytesMut) -> usize {
    out.put_slice(&[OPTIONAL | EXTENDED_LENGTH, code.into(), 0, 0]);
    out.len()
}

/// Appends an attribute, with the shorter form of its length if that does.
fn put_attribute(
    flags: u8,
    code: AttributeCode,
    out: &mut BytesMut,
    value: impl FnOnce(&mut BytesMut),
) {
    out.put_slice(&[flags, code.into(), 0]);
    let start = out.len();
    value(out);
    let len = out.len() - start;
    match u8::try_from(len) {
        Ok(len) => out[start - 1] = len,
        Err(_) => {
            out[start - 3] |= EXTENDED_LENGTH;
            out.put_u8(0);
            out.copy_within(start..start + len, start + 1);
            // More than two octets can say is more than a message can hold: refused by the caller.
            patch_u16(out, start - 1, len);
        }
    }
}

fn put_family(family: Family, out: &mut BytesMut) {
    out.put_u16(family.afi);
    out.put_u8(family.safi);
}

fn put_next_hop(next_hop: NextHop, out: &mut BytesMut) {
    match next_hop {
        NextHop::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        NextHop::V6(address) => {
            out.put_u8(16);
            out.put_slice(&address.octets());
        }
        NextHop::V6WithLinkLocal { global, link_local } => {
            out.put_u8(32);
            out.put_slice(&global.octets());
            out.put_slice(&link_local.octets());
        }
    }
}

/// Appends all attributes but the next hop and the routes.
fn put_attributes(session: &Session, attributes: &PathAttributes, out: &mut BytesMut) {
    use AttributeCode as Code;
    const BOTH: u8 = OPTIONAL | TRANSITIVE;
    put_attribute(TRANSITIVE, Code::Origin, out, |out| {
        out.put_u8(match attributes.origin {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        });
    });
    let wide = session.four_octet_as;
    put_attribute(TRANSITIVE, Code::AsPath, out, |out| {
        put_path(&attributes.as_path, wide, out)
    });
    put_number(OPTIONAL, Code::MultiExitDisc, attributes.med, out);
    if !session.external {
        put_number(TRANSITIVE, Code::LocalPref, attributes.local_pref, out);
    }
    if attributes.atomic_aggregate {
        put_attribute(TRANSITIVE, Code::AtomicAggregate, out, |_| {});
    }
    if let Some(aggregator) = attributes.aggregator {
        put_attribute(BOTH, Code::Aggregator, out, |out| {
            put_aggregator(aggregator, wide, out)
        });
    }
    put_list(
        BOTH,
        Code::Communities,
        &attributes.communities,
        out,
        |one| one.0.to_be_bytes(),
    );
    if !session.external {
        let originator = attributes.originator_id.map(u32::from);
        put_number(OPTIONAL, Code::OriginatorId, originator, out);
        let clusters = &attributes.cluster_list;
        put_list(OPTIONAL, Code::ClusterList, clusters, out, |one| {
            one.octets()
        });
    }
    put_list(
        BOTH,
        Code::ExtendedCommunities,
        &attributes.ext_communities,
        out,
        |one| one.0,
    );
    if !wide {
        put_four_octet(attributes, out);
    }
    put_list(
        BOTH,
        Code::LargeCommunities,
        &attributes.large_communities,
        out,
        |one| {
            let mut octets = [0; 12];
            octets[..4].copy_from_slice(&one.global.to_be_bytes());
            octets[4..8].copy_from_slice(&one.local1.to_be_bytes());
            octets[8..].copy_from_slice(&one.local2.to_be_bytes());
            octets
        },
    );
    put_number(BOTH, Code::OnlyToCustomer, attributes.only_to_customer, out);
    for raw in &attributes.unknown {
        put_attribute(raw.flags & !EXTENDED_LENGTH, raw.code.into(), out, |out| {
            out.put_slice(&raw.value);
        });
    }
}

fn put_number(flags: u8, code: AttributeCode, value: Option<u32>, out: &mut BytesMut) {
    if let Some(value) = value {
        put_attribute(flags, code, out, |out| out.put_u32(value));
    }
}

/// An attribute of items; none without any.
fn put_list<T, const N: usize>(
    flags: u8,
    code: AttributeCode,
    items: &[T],
    out: &mut BytesMut,
    octets: impl Fn(&T) -> [u8; N],
) {
    if !items.is_empty() {
        put_attribute(flags, code, out, |out| {
            items.iter().for_each(|item| out.put_slice(&octets(item)));
        });
    }
}

fn put_path(path: &AsPath, four_octet: bool, out: &mut BytesMut) {
    for segment in path.segments() {
        let kind = match segment {
            Segment::Set(_) => 1,
            Segment::Sequence(_) => 2,
        };
        for asns in segment.asns().chunks(SEGMENT_MAX) {
            out.put_slice(&[kind, asns.len() as u8]);
            asns.iter().for_each(|asn| put_asn(*asn, four_octet, out));
        }
    }
}

fn put_asn(asn: u32, four_octet: bool, out: &mut BytesMut) {
    match four_octet {
        true => out.put_u32(asn),
        false => out.put_u16(u16::try_from(asn).unwrap_or(AS_TRANS as u16)),
    }
}

fn put_aggregator(aggregator: Aggregator, four_octet: bool, out: &mut BytesMut) {
    put_asn(aggregator.asn, four_octet, out);
    out.put_slice(&aggregator.router_id.octets());
}

/// What does not fit two octets, for those beyond the peer (RFC 6793 §4.2.2).
fn put_four_octet(attributes: &PathAttributes, out: &mut BytesMut) {
    const BOTH: u8 = OPTIONAL | TRANSITIVE;
    let narrow = u32::from(u16::MAX);
    if attributes.as_path.asns().any(|asn| asn > narrow) {
        put_attribute(BOTH, AttributeCode::As4Path, out, |out| {
            put_path(&attributes.as_path, true, out);
        });
    }
    if let Some(aggregator) = attributes.aggregator.filter(|one| one.asn > narrow) {
        put_attribute(BOTH, AttributeCode::As4Aggregator, out, |out| {
            put_aggregator(aggregator, true, out);
        });
    }
}
