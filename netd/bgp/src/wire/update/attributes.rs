//! Path attributes: the form of each, and what becomes of a malformed one (RFC 7606 §3, §7).

use std::net::Ipv4Addr;

use bytes::Bytes;

use super::{Decoder, reset};
use crate::types::flags::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE};
use crate::types::{
    Action, Aggregator, AsPath, AttributeCode, Community, ExtCommunity, LargeCommunity,
    Notification, Origin, RawAttribute, Segment, UpdateError,
};
use crate::wire::reader::{Reader, exact};

/// An attribute as it stands in the list.
pub(super) struct Attribute<'a> {
    pub(super) flags: u8,
    pub(super) code: AttributeCode,
    pub(super) value: &'a [u8],
    /// All of it, as NOTIFICATIONs quote it.
    pub(super) whole: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Reads the next attribute; one that reaches past the end gives its type.
    pub(super) fn read(rest: &mut Reader<'a>) -> Result<Self, AttributeCode> {
        let start = rest.rest();
        let flags = rest.u8().unwrap_or_default();
        let code = AttributeCode::from(rest.u8().unwrap_or_default());
        let len = match flags & EXTENDED_LENGTH {
            0 => rest.u8().map(usize::from),
            _ => rest.u16().map(usize::from),
        };
        let value = len.and_then(|len| rest.take(len)).ok_or(code)?;
        let whole = &start[..start.len() - rest.rest().len()];
        Ok(Attribute {
            flags,
            code,
            value,
            whole,
        })
    }
}

/// Which types of attributes were in the list.
#[derive(Default)]
pub(super) struct Seen([u128; 2]);

impl Seen {
    fn bit(code: AttributeCode) -> (usize, u128) {
        let code = u8::from(code);
        (usize::from(code >> 7), 1 << (code & 0x7f))
    }

    /// Notes a type; whether it is new.
    fn insert(&mut self, code: AttributeCode) -> bool {
        let (word, bit) = Self::bit(code);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub(super) fn contains(&self, code: AttributeCode) -> bool {
        let (word, bit) = Self::bit(code);
        self.0[word] & bit != 0
    }

    /// Whether there was this type and no other.
    pub(super) fn only(&self, code: AttributeCode) -> bool {
        let (word, bit) = Self::bit(code);
        self.0[word] == bit && self.0[1 - word] == 0
    }
}

/// AS4_PATH and AS4_AGGREGATOR, before they are merged.
#[derive(Default)]
pub(super) struct Four {
    pub(super) path: Option<AsPath>,
    pub(super) aggregator: Option<Aggregator>,
}

/// What is known of a type of attribute.
struct Rule {
    /// Its flags.
    flags: u8,
    /// What becomes of a malformed one.
    malformed: Action,
    /// From an external peer it has no meaning and is dropped unread.
    internal: bool,
}

/// The rules of RFC 7606 §7, RFC 6793 §6, RFC 8092 §6 and RFC 9234 §5; `None` for a type that is
/// not known.
fn rule(code: AttributeCode) -> Option<Rule> {
    use AttributeCode as Code;
    const WELL_KNOWN: u8 = TRANSITIVE;
    const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
    let withdraw = |flags| Rule {
        flags,
        malformed: Action::TreatAsWithdraw,
        internal: false,
    };
    let discard = |flags| Rule {
        flags,
        malformed: Action::AttributeDiscard,
        internal: false,
    };
    let internal = |flags| Rule {
        flags,
        malformed: Action::TreatAsWithdraw,
        internal: true,
    };
    Some(match code {
        Code::Origin | Code::AsPath | Code::NextHop => withdraw(WELL_KNOWN),
        Code::LocalPref => internal(WELL_KNOWN),
        Code::AtomicAggregate => discard(WELL_KNOWN),
        Code::MultiExitDisc | Code::MpReachNlri | Code::MpUnreachNlri => withdraw(OPTIONAL),
        Code::OriginatorId | Code::ClusterList => internal(OPTIONAL),
        Code::Aggregator | Code::As4Path | Code::As4Aggregator => discard(OPTIONAL_TRANSITIVE),
        Code::Communities
        | Code::ExtendedCommunities
        | Code::LargeCommunities
        | Code::OnlyToCustomer => withdraw(OPTIONAL_TRANSITIVE),
        Code::Other(_) => return None,
    })
}

/// What is wrong with a value.
pub(super) type Parsed<T> = Result<T, &'static str>;

impl Decoder<'_> {
    /// Reads one attribute of the list.
    pub(super) fn attribute(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        use AttributeCode as Code;
        let code = attribute.code;
        if !self.seen.insert(code) {
            return self.repeated(attribute);
        }
        let Some(rule) = rule(code) else {
            return self.unknown(attribute);
        };
        if rule.internal && self.session.external {
            self.problem(
                code,
                Action::AttributeDiscard,
                "it came from an external peer",
            );
            return Ok(());
        }
        let class = attribute.flags & (OPTIONAL | TRANSITIVE);
        if class != rule.flags {
            self.problem(
                code,
                Action::TreatAsWithdraw,
                "its flags are not those of its type",
            );
        }
        match code {
            Code::MpReachNlri => self.reachable(attribute),
            Code::MpUnreachNlri => self.unreachable(attribute),
            _ if class != rule.flags => Ok(()),
            _ => {
                if let Err(what) = self.value(code, attribute.value) {
                    self.problem(code, rule.malformed, what);
                }
                Ok(())
            }
        }
    }

    /// Only the first of a type counts; which routes two lists mean nobody can tell
    /// (RFC 7606 §3 g).
    fn repeated(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        match attribute.code {
            AttributeCode::MpReachNlri | AttributeCode::MpUnreachNlri => {
                Err(reset(UpdateError::MalformedAttributeList, &[]))
            }
            code => {
                self.problem(code, Action::AttributeDiscard, "it is there more than once");
                Ok(())
            }
        }
    }

    /// Transitive ones are passed on with the Partial bit, others are dropped (RFC 4271 §5).
    fn unknown(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        if attribute.flags & OPTIONAL == 0 {
            return Err(reset(UpdateError::UnrecognizedWellKnown, attribute.whole));
        }
        if attribute.flags & TRANSITIVE != 0 {
            let code = u8::from(attribute.code);
            let place = self.read.unknown.partition_point(|one| one.code < code);
            // A copy, because these outlive the buffer that the message came in.
            let value = Bytes::copy_from_slice(attribute.value);
            let flags = OPTIONAL | TRANSITIVE | PARTIAL;
            self.read
                .unknown
                .insert(place, RawAttribute { flags, code, value });
        }
        Ok(())
    }

    /// Reads a value that is not routes.
    fn value(&mut self, code: AttributeCode, value: &[u8]) -> Parsed<()> {
        use AttributeCode as Code;
        let read = &mut self.read;
        match code {
            Code::Origin => read.origin = origin(value)?,
            Code::AsPath => read.as_path = as_path(value, self.session.four_octet_as)?,
            Code::NextHop => self.next_hop = Some(next_hop(value)),
            Code::MultiExitDisc => read.med = Some(number(value)?),
            Code::LocalPref => read.local_pref = Some(number(value)?),
            Code::AtomicAggregate if value.is_empty() => read.atomic_aggregate = true,
            Code::AtomicAggregate => return Err("it has a value"),
            Code::Aggregator => {
                read.aggregator = Some(aggregator(value, self.session.four_octet_as)?);
            }
            Code::Communities => {
                read.communities = set(value, |one| Community(u32::from_be_bytes(one)))?;
            }
            Code::ExtendedCommunities => read.ext_communities = set(value, ExtCommunity)?,
            Code::LargeCommunities => read.large_communities = set(value, large_community)?,
            Code::OriginatorId => read.originator_id = Some(number(value)?.into()),
            Code::ClusterList => {
                read.cluster_list = list(value, <Ipv4Addr as From<[u8; 4]>>::from)?
            }
            Code::OnlyToCustomer => read.only_to_customer = Some(number(value)?),
            Code::As4Path | Code::As4Aggregator if self.session.four_octet_as => {
                return Err("it came from a speaker with four-octet AS numbers");
            }
            Code::As4Path => self.four.path = Some(as_path(value, true)?),
            Code::As4Aggregator => self.four.aggregator = Some(aggregator(value, true)?),
            Code::MpReachNlri | Code::MpUnreachNlri | Code::Other(_) => {}
        }
        Ok(())
    }
}

fn origin(value: &[u8]) -> Parsed<Origin> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err("its value is none of 0, 1, 2"),
        _ => Err("its length is not 1"),
    }
}

fn number(value: &[u8]) -> Parsed<u32> {
    exact(value)
        .map(u32::from_be_bytes)
        .ok_or("its length is not 4")
}

fn next_hop(value: &[u8]) -> Parsed<Ipv4Addr> {
    let address = Ipv4Addr::from(number(value)?);
    match crate::types::NextHop::V4(address).is_usable() {
        true => Ok(address),
        false => Err("packets cannot be sent to that address"),
    }
}

/// Segments of AS numbers, each number of two or four octets. AS 0 belongs to nobody (RFC 7607).
fn as_path(value: &[u8], four_octet: bool) -> Parsed<AsPath> {
    let mut rest = Reader::new(value);
    let mut segments = Vec::with_capacity(1);
    while let Some(kind) = rest.u8() {
        let count = usize::from(rest.u8().ok_or("a segment is cut off")?);
        let octets = if four_octet { 4 * count } else { 2 * count };
        let numbers = rest.take(octets).ok_or("a segment is cut off")?;
        let asns = asns(numbers, four_octet);
        if asns.is_empty() {
            return Err("a segment is empty");
        }
        if asns.contains(&0) {
            return Err("AS 0 is in it");
        }
        segments.push(match kind {
            1 => Segment::Set(asns),
            2 => Segment::Sequence(asns),
            3 | 4 => return Err("a confederation's segment is in it"),
            _ => return Err("the type of a segment is unknown"),
        });
    }
    Ok(AsPath::from_segments(segments))
}

fn asns(octets: &[u8], four_octet: bool) -> Vec<u32> {
    if four_octet {
        octets
            .as_chunks()
            .0
            .iter()
            .map(|one| u32::from_be_bytes(*one))
            .collect()
    } else {
        octets
            .as_chunks()
            .0
            .iter()
            .map(|one| u16::from_be_bytes(*one).into())
            .collect()
    }
}

fn aggregator(value: &[u8], four_octet: bool) -> Parsed<Aggregator> {
    let (asn, router_id) = match (four_octet, value) {
        (true, &[a, b, c, d, ref id @ ..]) => (u32::from_be_bytes([a, b, c, d]), id),
        (false, &[a, b, ref id @ ..]) => (u16::from_be_bytes([a, b]).into(), id),
        _ => return Err("its length is wrong"),
    };
    let router_id = Ipv4Addr::from(exact(router_id).ok_or("its length is wrong")?);
    match asn {
        0 => Err("AS 0 is in it"),
        asn => Ok(Aggregator { asn, router_id }),
    }
}

fn large_community(octets: [u8; 12]) -> LargeCommunity {
    let number = |at: usize| {
        u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    LargeCommunity {
        global: number(0),
        local1: number(4),
        local2: number(8),
    }
}

/// At least one item of `N` octets.
fn list<const N: usize, T>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Parsed<Vec<T>> {
    match value.as_chunks::<N>() {
        ([], []) => Err("it is empty"),
        (items, []) => Ok(items.iter().map(|one| item(*one)).collect()),
        _ => Err("its length is not a multiple of an item's"),
    }
}

/// At least one item, sorted and without duplicates: the order has no meaning, and so equal sets
/// are equal.
fn set<const N: usize, T: Ord>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Parsed<Vec<T>> {
    let mut items = list(value, item)?;
    items.sort_unstable();
    items.dedup();
    Ok(items)
}
