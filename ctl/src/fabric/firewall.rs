//! The rules of the machine's own namespace for nodes in namespaces: what leaves the machine is
//! masqueraded, and nothing outside reaches the nodes. In tables of our own; the user's stay as
//! they are, but for rules that let the nodes' packets pass where a firewall drops what it does not
//! know: what a bridge carries may be shown to it as well (`br_netfilter`).

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::IpNet;
use peapod_netd::host_firewall::{self, Passage};
use peapod_nft::{
    Base, BaseChain, ChainKind, CmpOp, Expr, Family, Hook, MetaKey, Nft, Policy, Reg, Rule, Table,
    Transaction, Verdict,
};

/// Before connection tracking, so before any translation.
const RAW: i32 = -300;
const SOURCE_NAT: i32 = 100;

/// Writes the tables anew, in one transaction each.
pub fn ensure(table: &str, bridge: &str, networks: &[IpNet]) -> Result<()> {
    let mut nft = Nft::open().context("cannot speak to nftables")?;
    for network in networks {
        let table = Table::new(family(network), table);
        let mut transaction = Transaction::new();
        // Added first, so that there is one to delete.
        transaction.add_table(&table);
        transaction.delete_table(&table);
        write(&mut transaction, &table, bridge, network);
        nft.commit(transaction)
            .with_context(|| format!("cannot write the nftables table {table}"))?;
    }
    let passage = Passage {
        tag: tag(table),
        links: vec![(bridge.to_owned(), "nodes")],
        ..Passage::default()
    };
    host_firewall::ensure(&mut nft, &passage)
        .context("cannot let the nodes' packets pass the firewall of this machine")?;
    Ok(())
}

/// How the comments of rules in others' tables begin.
fn tag(table: &str) -> String {
    format!("{table}:")
}

/// Removes the tables, and the rules in others'.
pub fn remove(table: &str) -> Result<()> {
    host_firewall::remove(&tag(table))
        .context("cannot take the nodes' rules out of the firewall of this machine")?;
    let mut nft = Nft::open().context("cannot speak to nftables")?;
    for family in [Family::Ip, Family::Ip6] {
        let table = Table::new(family, table);
        let mut transaction = Transaction::new();
        transaction.add_table(&table);
        transaction.delete_table(&table);
        nft.commit(transaction)
            .with_context(|| format!("cannot remove the nftables table {table}"))?;
    }
    Ok(())
}

fn family(network: &IpNet) -> Family {
    match network {
        IpNet::V4(_) => Family::Ip,
        IpNet::V6(_) => Family::Ip6,
    }
}

fn write(transaction: &mut Transaction, table: &Table, bridge: &str, network: &IpNet) {
    transaction.add_table(table);
    let chain = |kind, hook, priority| BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    };
    let guard = chain(ChainKind::Filter, Hook::Prerouting, RAW);
    transaction.add_base_chain(table, "guard", guard);
    let mut outside = not_by(MetaKey::IifName, bridge);
    outside.extend(not_by(MetaKey::IifName, "lo"));
    outside.extend(within(network, false));
    outside.extend([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
    let outside = Rule::new(outside).comment("only this machine and its pods may reach its nodes");
    transaction.append_rule(table, "guard", &outside);

    let leave = chain(ChainKind::Nat, Hook::Postrouting, SOURCE_NAT);
    transaction.add_base_chain(table, "leave", leave);
    let mut outwards = not_by(MetaKey::OifName, bridge);
    outwards.extend(within(network, true));
    outwards.push(Expr::Masquerade);
    let outwards = Rule::new(outwards).comment("a node reaches out of the machine");
    transaction.append_rule(table, "leave", &outwards);
}

fn not_by(key: MetaKey, link: &str) -> Vec<Expr> {
    // With the NUL behind it: this very name.
    let mut name = link.as_bytes().to_vec();
    name.resize(libc::IFNAMSIZ, 0);
    vec![
        Expr::Meta { key, dreg: Reg::R0 },
        Expr::Cmp {
            op: CmpOp::Ne,
            sreg: Reg::R0,
            data: name,
        },
    ]
}

/// Whether a packet's source or destination lies within a network.
fn within(network: &IpNet, source: bool) -> [Expr; 3] {
    let (offset, len) = match (network, source) {
        (IpNet::V4(_), true) => (12, 4),
        (IpNet::V4(_), false) => (16, 4),
        (IpNet::V6(_), true) => (8, 16),
        (IpNet::V6(_), false) => (24, 16),
    };
    [
        Expr::Payload {
            base: Base::Network,
            offset,
            len,
            dreg: Reg::R0,
        },
        Expr::Mask {
            reg: Reg::R0,
            mask: bytes(network.netmask()),
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: bytes(network.network()),
        },
    ]
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn nft(command: &str) -> String {
        let output = Command::new("nft").arg(command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_firewall_that_drops_lets_nodes_pass_until_they_are_gone() {
        let alone = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own =
                "table inet own { chain f { type filter hook forward priority 0; policy drop; }; }";
            nft(own);
            let before = nft("list ruleset");
            ensure(
                "peapod-nodes-0a",
                "pd0abr",
                &["10.9.0.0/24".parse().unwrap()],
            )
            .unwrap();
            let with = nft("list table inet own");
            for rule in [r#"iifname "pd0abr*""#, r#"oifname "pd0abr*""#] {
                assert!(with.contains(rule), "{with}");
            }
            remove("peapod-nodes-0a").unwrap();
            assert_eq!(nft("list ruleset"), before);
        };
        std::thread::spawn(alone).join().unwrap();
    }
}
