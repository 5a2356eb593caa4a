//! The expressions of rules, and their encoding.

use crate::consts::*;
use crate::object::{Data, Family, Verdict};
use crate::wire::Writer;

/// One of the sixteen registers of four bytes. A longer value takes the following ones, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u32);

impl Reg {
    /// The first register.
    pub const R0: Reg = Reg(0);

    /// The register `words` of four bytes behind this one.
    ///
    /// # Panics
    /// When there is no such register: rules are written by programmers, not by input.
    pub const fn plus(self, words: u32) -> Self {
        assert!(self.0 + words < 16, "there are sixteen registers");
        Reg(self.0 + words)
    }

    fn number(self) -> u32 {
        NFT_REG32_00 + self.0
    }
}

/// Where a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The network header.
    Network,
    /// The transport header.
    Transport,
}

/// Facts about a packet that are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// Name of the link it came in by, 16 bytes.
    IifName,
    /// Name of the link it leaves by, 16 bytes.
    OifName,
    /// Transport protocol, 1 byte.
    L4Proto,
    /// Network protocol (`NFPROTO_*`), 1 byte.
    NfProto,
    /// The packet's mark, 4 bytes, native order.
    Mark,
}

/// Facts about a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// `established`, `related`, ...: a mask of 4 bytes, native order.
    State,
    /// `dnat`, `snat`, ...: a mask of 4 bytes, native order (`IPS_*`).
    Status,
    /// The connection's mark, 4 bytes, native order.
    Mark,
}

/// Comparison of a register with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
}

/// Which address of the packet the routing tables are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibResult {
    /// Type of the source address (`RTN_*`), 4 bytes, native order.
    SourceType,
    /// Type of the destination address (`RTN_*`), 4 bytes, native order.
    DestinationType,
}

/// Which address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// ICMP "unreachable" with a code of the family (IPv4: 3 is port unreachable; IPv6: 4).
    IcmpUnreachable(u8),
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads `len` bytes of the packet.
    Payload {
        /// Counted from here.
        base: Base,
        /// In bytes.
        offset: u32,
        /// In bytes.
        len: u32,
        /// Into.
        dreg: Reg,
    },
    /// Loads a fact about the packet.
    Meta {
        /// Which.
        key: MetaKey,
        /// Into.
        dreg: Reg,
    },
    /// Loads a fact about the connection.
    Ct {
        /// Which.
        key: CtKey,
        /// Into.
        dreg: Reg,
    },
    /// Marks the packet with 4 bytes, native order.
    SetMark {
        /// From.
        sreg: Reg,
    },
    /// Marks the connection with 4 bytes, native order.
    SetCtMark {
        /// From.
        sreg: Reg,
    },
    /// Asks the routing tables.
    Fib {
        /// What.
        result: FibResult,
        /// Into.
        dreg: Reg,
    },
    /// Goes on only if the register compares so.
    Cmp {
        /// How.
        op: CmpOp,
        /// The register.
        sreg: Reg,
        /// The constant.
        data: Vec<u8>,
    },
    /// `reg = reg & mask`.
    Mask {
        /// The register.
        reg: Reg,
        /// The mask; its length is the value's.
        mask: Vec<u8>,
    },
    /// Goes on only if the key is in the set (or is not, inverted).
    Contains {
        /// Name of the set.
        set: String,
        /// Where the key is.
        key: Reg,
        /// Whether the key must be absent.
        inverted: bool,
    },
    /// Loads the value of a key; goes on only if there is one.
    Map {
        /// Name of the map.
        map: String,
        /// Where the key is.
        key: Reg,
        /// Into.
        dreg: Reg,
    },
    /// Takes the verdict of a key, if there is one.
    VerdictMap {
        /// Name of the map.
        map: String,
        /// Where the key is.
        key: Reg,
    },
    /// Loads a constant.
    Immediate {
        /// The constant.
        data: Vec<u8>,
        /// Into.
        dreg: Reg,
    },
    /// Adds an element to a dynamic set, or refreshes it; goes on only if there was room.
    Update {
        /// Name of the set.
        set: String,
        /// Where the key is.
        key: Reg,
        /// The element's life from now, in milliseconds.
        timeout_ms: u64,
    },
    /// A random number from `offset` to `offset + modulus - 1`, 4 bytes, native order.
    RandomNumber {
        /// How many numbers.
        modulus: u32,
        /// The first.
        offset: u32,
        /// Into.
        dreg: Reg,
    },
    /// Translates an address and a port; without a given port, the port is a random one.
    Nat {
        /// Which address.
        kind: NatKind,
        /// Family of the address.
        family: Family,
        /// Where the new address is.
        address: Reg,
        /// Where the new port is.
        port: Option<Reg>,
    },
    /// Source becomes the leaving link's address, with a random port.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// Refuses the packet.
    Reject(Reject),
    /// Decides.
    Verdict(Verdict),
}

impl Expr {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.nested(NFTA_LIST_ELEM, |w| {
            w.string(NFTA_EXPR_NAME, self.name());
            w.nested(NFTA_EXPR_DATA, |w| self.write_body(w));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expr::Payload { .. } => "payload",
            Expr::Meta { .. } | Expr::SetMark { .. } => "meta",
            Expr::Ct { .. } | Expr::SetCtMark { .. } => "ct",
            Expr::Fib { .. } => "fib",
            Expr::Cmp { .. } => "cmp",
            Expr::Mask { .. } => "bitwise",
            Expr::Contains { .. } | Expr::Map { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Update { .. } => "dynset",
            Expr::RandomNumber { .. } => "numgen",
            Expr::Nat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Counter => "counter",
            Expr::Reject(_) => "reject",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        }
    }

    fn write_body(&self, w: &mut Writer) {
        match self {
            Expr::Payload {
                base,
                offset,
                len,
                dreg,
            } => {
                w.be32(NFTA_PAYLOAD_DREG, dreg.number());
                w.be32(NFTA_PAYLOAD_BASE, base.number());
                w.be32(NFTA_PAYLOAD_OFFSET, *offset);
                w.be32(NFTA_PAYLOAD_LEN, *len);
            }
            Expr::Meta { key, dreg } => {
                w.be32(NFTA_META_DREG, dreg.number());
                w.be32(NFTA_META_KEY, key.number());
            }
            Expr::Ct { key, dreg } => {
                w.be32(NFTA_CT_DREG, dreg.number());
                w.be32(NFTA_CT_KEY, key.number());
            }
            Expr::SetMark { sreg } => {
                w.be32(NFTA_META_KEY, MetaKey::Mark.number());
                w.be32(NFTA_META_SREG, sreg.number());
            }
            Expr::SetCtMark { sreg } => {
                w.be32(NFTA_CT_KEY, CtKey::Mark.number());
                w.be32(NFTA_CT_SREG, sreg.number());
            }
            Expr::Fib { result, dreg } => write_fib(w, *result, *dreg),
            Expr::Cmp { op, sreg, data } => {
                w.be32(NFTA_CMP_SREG, sreg.number());
                w.be32(NFTA_CMP_OP, u32::from(*op == CmpOp::Ne));
                w.nested(NFTA_CMP_DATA, |w| w.attr(NFTA_DATA_VALUE, data));
            }
            Expr::Mask { reg, mask } => write_mask(w, *reg, mask),
            Expr::Contains { set, key, inverted } => {
                w.string(NFTA_LOOKUP_SET, set);
                w.be32(NFTA_LOOKUP_SREG, key.number());
                w.be32(NFTA_LOOKUP_FLAGS, u32::from(*inverted));
            }
            Expr::Map { map, key, dreg } => write_lookup(w, map, *key, dreg.number()),
            Expr::VerdictMap { map, key } => write_lookup(w, map, *key, NFT_REG_VERDICT),
            Expr::Update {
                set,
                key,
                timeout_ms,
            } => {
                w.string(NFTA_DYNSET_SET_NAME, set);
                w.be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
                w.be32(NFTA_DYNSET_SREG_KEY, key.number());
                w.be64(NFTA_DYNSET_TIMEOUT, *timeout_ms);
            }
            Expr::RandomNumber {
                modulus,
                offset,
                dreg,
            } => {
                w.be32(NFTA_NG_DREG, dreg.number());
                w.be32(NFTA_NG_MODULUS, *modulus);
                w.be32(NFTA_NG_TYPE, NFT_NG_RANDOM);
                w.be32(NFTA_NG_OFFSET, *offset);
            }
            Expr::Nat {
                kind,
                family,
                address,
                port,
            } => {
                w.be32(NFTA_NAT_TYPE, u32::from(*kind == NatKind::Destination));
                w.be32(NFTA_NAT_FAMILY, u32::from(family.number()));
                w.be32(NFTA_NAT_REG_ADDR_MIN, address.number());
                match port {
                    Some(port) => w.be32(NFTA_NAT_REG_PROTO_MIN, port.number()),
                    None => w.be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
                }
            }
            Expr::Masquerade => w.be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            Expr::Counter => {}
            Expr::Reject(reject) => write_reject(w, *reject),
            Expr::Immediate { data, dreg } => {
                w.be32(NFTA_IMMEDIATE_DREG, dreg.number());
                w.nested(NFTA_IMMEDIATE_DATA, |w| w.attr(NFTA_DATA_VALUE, data));
            }
            Expr::Verdict(verdict) => {
                w.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
                Data::Verdict(verdict.clone()).write(w, NFTA_IMMEDIATE_DATA);
            }
        }
    }
}

fn write_fib(w: &mut Writer, result: FibResult, dreg: Reg) {
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    w.be32(NFTA_FIB_DREG, dreg.number());
    w.be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    let address = match result {
        FibResult::SourceType => NFTA_FIB_F_SADDR,
        FibResult::DestinationType => NFTA_FIB_F_DADDR,
    };
    w.be32(NFTA_FIB_FLAGS, address);
}

fn write_mask(w: &mut Writer, reg: Reg, mask: &[u8]) {
    w.be32(NFTA_BITWISE_SREG, reg.number());
    w.be32(NFTA_BITWISE_DREG, reg.number());
    w.be32(NFTA_BITWISE_LEN, mask.len() as u32);
    w.nested(NFTA_BITWISE_MASK, |w| w.attr(NFTA_DATA_VALUE, mask));
    w.nested(NFTA_BITWISE_XOR, |w| {
        w.attr(NFTA_DATA_VALUE, &vec![0; mask.len()])
    });
}

fn write_lookup(w: &mut Writer, map: &str, key: Reg, dreg: u32) {
    w.string(NFTA_LOOKUP_SET, map);
    w.be32(NFTA_LOOKUP_SREG, key.number());
    w.be32(NFTA_LOOKUP_DREG, dreg);
}

fn write_reject(w: &mut Writer, reject: Reject) {
    let (kind, code) = match reject {
        Reject::IcmpUnreachable(code) => (0, code),
        Reject::TcpReset => (1, 0),
    };
    w.be32(NFTA_REJECT_TYPE, kind);
    w.attr(NFTA_REJECT_ICMP_CODE, &[code]);
}

impl Base {
    fn number(self) -> u32 {
        match self {
            Base::Network => 1,
            Base::Transport => 2,
        }
    }
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            MetaKey::IifName => 6,
            MetaKey::OifName => 7,
            MetaKey::L4Proto => 16,
            MetaKey::NfProto => 15,
            MetaKey::Mark => 3,
        }
    }
}

impl CtKey {
    fn number(self) -> u32 {
        match self {
            CtKey::State => 0,
            CtKey::Status => 2,
            CtKey::Mark => 3,
        }
    }
}
