//! What rules of several chains ask of a packet.

use peapod_nft::{CmpOp, CtKey, Expr, MetaKey, Reg};

/// TCP's number among the protocols over IP.
pub(super) const TCP: u8 = 6;

/// Whether it is of TCP.
pub(super) fn if_tcp() -> [Expr; 2] {
    [
        Expr::Meta {
            key: MetaKey::L4Proto,
            dreg: Reg::R0,
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: vec![TCP],
        },
    ]
}

/// Whether its connection has some of these bits.
pub(super) fn if_connection_has(key: CtKey, bits: u32) -> [Expr; 3] {
    connection_bits(key, bits, CmpOp::Ne)
}

/// Whether its connection has none of these bits.
pub(super) fn if_connection_lacks(key: CtKey, bits: u32) -> [Expr; 3] {
    connection_bits(key, bits, CmpOp::Eq)
}

fn connection_bits(key: CtKey, bits: u32, op: CmpOp) -> [Expr; 3] {
    [
        Expr::Ct { key, dreg: Reg::R0 },
        Expr::Mask {
            reg: Reg::R0,
            mask: bits.to_ne_bytes().to_vec(),
        },
        Expr::Cmp {
            op,
            sreg: Reg::R0,
            data: vec![0; 4],
        },
    ]
}
