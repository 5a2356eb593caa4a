//! What a node does with connections that another one, which leaves the fabric, has begun.
//!
//! As soon as the leaves prefer others, they lead the packets of all its clients there. A new
//! connection begins with SYN, and is balanced as ever. What comes in the middle of a connection
//! of which this node knows nothing is the other's: it is sent on as it came, marked, by a routing
//! table of its own ([`crate::links::ways`]). The other node answers the client itself.
//!
//! ```text
//! table ip peapod-handover (and ip6 peapod-handover, alike)
//!   set addresses         addresses of services that the fabric is told of
//!   chain begin           before the service map: claims such connections, untranslated
//!   chain lead            marks their packets, for the routing table
//! ```
//!
//! The tables are there while a node leaves, and cost nothing else. UDP has no beginning that could
//! be told from its middle: its flows are balanced anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use peapod_nft::{
    Base, BaseChain, ChainKind, CmpOp, CtKey, Element, Error, Expr, Hook, MetaKey, NatKind, Nft,
    Policy, Reg, Rule, Set, Table, Transaction,
};

use super::Ip;
use super::base::{if_address_in_set, load_destination};
use super::codec::address_bytes;
use super::matches::{TCP, if_tcp};
use crate::links::alias::PREFIX;
use crate::links::sysctl;

/// Name of the tables.
const TABLE: &str = "peapod-handover";
/// Mark of packets, and of connections, that are handed over.
pub const MARK: u32 = 0x9704;
const ADDRESSES: &str = "addresses";
/// Before the service map, which has -100.
const BEFORE_SERVICES: i32 = -101;
/// Behind it, and before the routing.
const AFTER_SERVICES: i32 = -99;
const FLAGS_OFFSET: u32 = 13;
const PORT_OFFSET: u32 = 2;
const SYN: u8 = 2;

/// Hands over what is sent to these addresses in the middle of connections that nobody here
/// knows.
///
/// # Errors
/// If the kernel refuses.
pub fn begin(addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for ip in families() {
        let table = table(ip);
        let mut transaction = Transaction::new();
        // Whatever it was: the connections that are handed over already have their mark.
        transaction.add_table(&table);
        transaction.delete_table(&table);
        transaction.add_table(&table);
        write(&mut transaction, ip, &table, addresses);
        nft.commit(transaction)?;
    }
    Ok(())
}

/// Hands over nothing any more. What was handed over so far is forgotten: its clients' next packets
/// are balanced as others.
///
/// # Errors
/// If the kernel refuses.
pub fn end() -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for ip in families() {
        let table = table(ip);
        if nft.table(&table)?.is_none() {
            continue;
        }
        let mut transaction = Transaction::new();
        transaction.delete_table(&table);
        nft.commit(transaction)?;
        nft.delete_connections(ip.family(), TCP, |one| one.mark == MARK)?;
    }
    Ok(())
}

fn families() -> impl Iterator<Item = Ip> {
    [Some(Ip::V4), sysctl::has_ipv6().then_some(Ip::V6)]
        .into_iter()
        .flatten()
}

fn table(ip: Ip) -> Table {
    Table::new(ip.family(), TABLE)
}

fn write(transaction: &mut Transaction, ip: Ip, table: &Table, addresses: &BTreeSet<IpAddr>) {
    let set = Set {
        name: ADDRESSES.to_owned(),
        key: vec![ip.address_type()],
        ..Set::default()
    };
    transaction.add_set(table, &set);
    let elements: Vec<Element> = addresses
        .iter()
        .filter(|address| address.is_ipv4() == ip.v4)
        .map(|address| Element::key(address_bytes(*address)))
        .collect();
    transaction.add_elements(table, ADDRESSES, &elements);
    let chains = [
        ("begin", ChainKind::Nat, BEFORE_SERVICES, claim(ip)),
        ("lead", ChainKind::Filter, AFTER_SERVICES, lead()),
    ];
    for (name, kind, priority, rule) in chains {
        let base = BaseChain {
            kind,
            hook: Hook::Prerouting,
            priority,
            policy: Policy::Accept,
        };
        transaction.add_base_chain(table, name, base);
        transaction.append_rule(table, name, &rule);
    }
}

/// Claims a connection by translating its destination to what it is: then nobody else does.
fn claim(ip: Ip) -> Rule {
    let mut exprs = vec![
        Expr::Meta {
            key: MetaKey::IifName,
            dreg: Reg::R0,
        },
        Expr::Cmp {
            op: CmpOp::Ne,
            sreg: Reg::R0,
            data: PREFIX.as_bytes().to_vec(),
        },
    ];
    exprs.extend(if_tcp());
    exprs.extend([
        transport(FLAGS_OFFSET, 1, Reg::R0),
        Expr::Mask {
            reg: Reg::R0,
            mask: vec![SYN],
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: vec![0],
        },
    ]);
    exprs.extend(if_address_in_set(
        load_destination(ip, Reg::R0),
        ADDRESSES,
        false,
    ));
    let port = ip.behind(Reg::R0);
    let mark = port.plus(1);
    exprs.extend([
        Expr::Immediate {
            data: MARK.to_ne_bytes().to_vec(),
            dreg: mark,
        },
        Expr::SetCtMark { sreg: mark },
        transport(PORT_OFFSET, 2, port),
        Expr::Nat {
            kind: NatKind::Destination,
            family: ip.family(),
            address: Reg::R0,
            port: Some(port),
        },
    ]);
    Rule::new(exprs).comment("in the middle of a connection of a node that leaves")
}

fn lead() -> Rule {
    let rule = Rule::new([
        Expr::Ct {
            key: CtKey::Mark,
            dreg: Reg::R0,
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: MARK.to_ne_bytes().to_vec(),
        },
        Expr::SetMark { sreg: Reg::R0 },
    ]);
    rule.comment("to the node that leaves")
}

fn transport(offset: u32, len: u32, dreg: Reg) -> Expr {
    Expr::Payload {
        base: Base::Transport,
        offset,
        len,
        dreg,
    }
}
