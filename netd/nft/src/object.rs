//! The objects of a ruleset: tables, chains, rules, sets and their elements.

use crate::consts::*;
use crate::expr::Expr;
use crate::wire::{Attrs, Writer};

/// Address family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Any other (bridge, netdev, arp), by its number.
    Other(u8),
}

impl Family {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
            Family::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => Family::Inet,
            2 => Family::Ip,
            10 => Family::Ip6,
            other => Family::Other(other),
        }
    }
}

/// A table, by family and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl Table {
    /// Names a table.
    pub fn new(family: Family, name: &str) -> Self {
        Table {
            family,
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self.family {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Other(n) => return write!(f, "family-{n} {}", self.name),
        };
        write!(f, "{family} {}", self.name)
    }
}

/// What a base chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accepts and drops.
    Filter,
    /// Translates addresses; sees the first packet of a connection only.
    Nat,
}

/// Where a base chain is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing, everything that arrives.
    Prerouting,
    /// For this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// After routing, everything that leaves.
    Postrouting,
}

/// What happens to a packet that no rule of a base chain decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It passes.
    Accept,
    /// It is dropped.
    Drop,
}

/// A chain attached to a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// What it does.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// Order among the chains of the hook, lowest first (`NF_IP_PRI_*`).
    pub priority: i32,
    /// For packets that no rule decided on.
    pub policy: Policy,
}

impl ChainKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

impl Hook {
    pub(crate) fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        })
    }
}

/// A rule: expressions evaluated in order until one does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The expressions.
    pub expressions: Vec<Expr>,
    /// What `nft list` shows behind it; up to 120 bytes are kept.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule without a comment.
    pub fn new(expressions: impl IntoIterator<Item = Expr>) -> Self {
        Rule {
            expressions: expressions.into_iter().collect(),
            comment: None,
        }
    }

    /// Adds a comment.
    pub fn comment(mut self, text: &str) -> Self {
        self.comment = Some(text.to_owned());
        self
    }
}

/// Type of one part of a key or value. The number tells `nft list` how to print it; the kernel
/// cares for the length only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// 4 bytes.
    Ipv4Addr,
    /// 16 bytes.
    Ipv6Addr,
    /// IP protocol number, 1 byte.
    InetProto,
    /// Port, 2 bytes, big-endian.
    InetService,
    /// 4 bytes, native order.
    Mark,
    /// Name of a link, 16 bytes, filled up with zeros.
    IfName,
}

impl DataType {
    /// Its length in bytes where it stands alone; in a concatenation it is padded to a multiple
    /// of four.
    pub fn len(self) -> u32 {
        match self {
            DataType::Ipv4Addr | DataType::Mark => 4,
            DataType::Ipv6Addr | DataType::IfName => 16,
            DataType::InetProto => 1,
            DataType::InetService => 2,
        }
    }

    /// No type is empty.
    pub fn is_empty(self) -> bool {
        false
    }

    fn id(self) -> u32 {
        match self {
            DataType::Ipv4Addr => 7,
            DataType::Ipv6Addr => 8,
            DataType::InetProto => 12,
            DataType::InetService => 13,
            DataType::Mark => 19,
            DataType::IfName => 41,
        }
    }
}

/// The type number and length of a key or value of several parts.
pub(crate) fn concat(parts: &[DataType]) -> (u32, u32) {
    if let [only] = parts {
        return (only.id(), only.len());
    }
    parts.iter().fold((0, 0), |(id, len), part| {
        ((id << 6) | part.id(), len + part.len().div_ceil(4) * 4)
    })
}

/// A named set, or a map when it has data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in its table.
    pub name: String,
    /// Parts of the key.
    pub key: Vec<DataType>,
    /// Parts of the value; none for a set and for a verdict map.
    pub data: Vec<DataType>,
    /// Whether the value is a verdict.
    pub verdicts: bool,
    /// Whether elements are the ends of intervals.
    pub interval: bool,
    /// Whether rules may add elements; they then expire after this many milliseconds unless
    /// the rule says otherwise.
    pub dynamic_timeout_ms: Option<u64>,
    /// Most elements it may hold.
    pub size: Option<u32>,
}

impl Set {
    pub(crate) fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.verdicts || !self.data.is_empty() {
            flags |= NFT_SET_MAP;
        }
        if self.interval {
            flags |= NFT_SET_INTERVAL;
        }
        if self.dynamic_timeout_ms.is_some() {
            flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
        }
        flags
    }
}

/// What a rule or an element of a verdict map decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The packet passes this base chain.
    Accept,
    /// The packet is gone.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Into a chain, and back here when it ends.
    Jump(String),
    /// Into a chain; its end is the end of the calling one.
    Goto(String),
}

/// The value of an element, or a constant in a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// Bytes in the order of the packet.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The key's bytes, each part of a concatenation padded to a multiple of four.
    pub key: Vec<u8>,
    /// The first key behind an interval, not one within it.
    pub interval_end: bool,
    /// The value; none in a set.
    pub data: Option<Data>,
}

impl Element {
    /// An element of a set.
    pub fn key(key: Vec<u8>) -> Self {
        Element {
            key,
            interval_end: false,
            data: None,
        }
    }

    /// An element of a map.
    pub fn entry(key: Vec<u8>, data: Data) -> Self {
        Element {
            key,
            interval_end: false,
            data: Some(data),
        }
    }
}

// === impl Verdict, Data, Element on the wire ===

impl Verdict {
    fn parts(&self) -> (i32, Option<&str>) {
        match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        }
    }

    fn write(&self, w: &mut Writer) {
        let (code, chain) = self.parts();
        w.nested(NFTA_DATA_VERDICT, |w| {
            w.be32(NFTA_VERDICT_CODE, code as u32);
            if let Some(chain) = chain {
                w.string(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }

    fn read(attrs: Attrs<'_>) -> Option<Self> {
        let chain = attrs.string(NFTA_VERDICT_CHAIN);
        Some(match attrs.be32(NFTA_VERDICT_CODE)? as i32 {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -3 => Verdict::Jump(chain?),
            -4 => Verdict::Goto(chain?),
            -5 => Verdict::Return,
            _ => return None,
        })
    }
}

impl Data {
    pub(crate) fn write(&self, w: &mut Writer, kind: u16) {
        w.nested(kind, |w| match self {
            Data::Value(bytes) => w.attr(NFTA_DATA_VALUE, bytes),
            Data::Verdict(verdict) => verdict.write(w),
        });
    }

    fn read(attrs: Attrs<'_>) -> Option<Self> {
        if let Some(bytes) = attrs.find(NFTA_DATA_VALUE) {
            return Some(Data::Value(bytes.to_vec()));
        }
        Verdict::read(attrs.nested(NFTA_DATA_VERDICT)).map(Data::Verdict)
    }
}

impl Element {
    /// `with_data` is false where elements are deleted: the key alone names them.
    pub(crate) fn write(&self, w: &mut Writer, with_data: bool) {
        w.nested(NFTA_LIST_ELEM, |w| {
            if self.interval_end {
                w.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
            }
            w.nested(NFTA_SET_ELEM_KEY, |w| w.attr(NFTA_DATA_VALUE, &self.key));
            if let Some(data) = self.data.as_ref().filter(|_| with_data) {
                data.write(w, NFTA_SET_ELEM_DATA);
            }
        });
    }

    pub(crate) fn read(attrs: Attrs<'_>) -> Option<Self> {
        let key = attrs.nested(NFTA_SET_ELEM_KEY).find(NFTA_DATA_VALUE)?;
        let flags = attrs.be32(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
        Some(Element {
            key: key.to_vec(),
            interval_end: flags & NFT_SET_ELEM_INTERVAL_END != 0,
            data: Data::read(attrs.nested(NFTA_SET_ELEM_DATA)),
        })
    }
}
