//! Rules in others' tables, so that packets of pods and between nodes pass.
//!
//! Docker, firewalld and ufw let the forward chain drop what they do not know, and a verdict of
//! ours does not override theirs: every chain of a hook must accept. So rules tagged with
//! [`TAG`] are put at the head of such chains, and [`remove`] takes them away.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_nft::{
    Base, CmpOp, Error, Expr, Family, Hook, ListedChain, MetaKey, Nft, Policy, Reg, Rule,
    Transaction, Verdict,
};

use crate::nat::TABLE;

/// How the comment of every rule of the agent begins.
pub const TAG: &str = "peapod:";
/// What must pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// How the comments of its rules begin, which no other's do: [`TAG`], or one like it.
    pub tag: String,
    /// How the names of links begin whose packets pass, with what they are.
    pub links: Vec<(String, &'static str)>,
    /// Ranges of pods' addresses: what this node passes on to pods of another, and their answers.
    pub ranges: Vec<IpNet>,
    /// UDP port of tunnels to other nodes.
    pub tunnels: Option<u16>,
}

/// firewalld's chains accept by policy and reject by their last rule.
const FIREWALLD: &str = "firewalld";

/// Puts rules where they are missing; tells of every chain that has some of ours.
pub fn ensure(nft: &mut Nft, passage: &Passage) -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    for chain in hostile(nft)? {
        told.push(format!(
            "a firewall drops what it does not know (nftables table {}, chain {}); rules commented \
             {:?} let pods' packets pass there, and `peapod down` takes them away",
            chain.table, chain.name, passage.tag
        ));
        let mut present = nft.rules(&chain.table, &chain.name)?;
        present.retain(|rule| is_tagged(rule.comment.as_deref(), &passage.tag));
        let wanted = passage.rules(&chain);
        let have: BTreeSet<_> = present.iter().map(|rule| rule.comment.clone()).collect();
        if have == wanted.iter().map(|rule| rule.comment.clone()).collect() {
            continue;
        }
        let mut transaction = Transaction::new();
        for rule in &present {
            transaction.delete_rule(&chain.table, &chain.name, rule.handle);
        }
        for rule in &wanted {
            transaction.insert_rule(&chain.table, &chain.name, rule);
        }
        nft.commit(transaction)?;
        tracing::info!(
            table = %chain.table, chain = %chain.name,
            "this chain drops what it does not know; pods' packets are accepted there now"
        );
    }
    Ok(told)
}

fn is_tagged(comment: Option<&str>, tag: &str) -> bool {
    comment.is_some_and(|comment| comment.starts_with(tag))
}

/// Takes every rule of a tag out of others' tables.
pub fn remove(tag: &str) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for chain in filters(&mut nft)? {
        let mut transaction = Transaction::new();
        for rule in nft.rules(&chain.table, &chain.name)? {
            if is_tagged(rule.comment.as_deref(), tag) {
                transaction.delete_rule(&chain.table, &chain.name, rule.handle);
            }
        }
        nft.commit(transaction)?;
    }
    Ok(())
}

/// Others' filter chains that see packets of pods.
fn filters(nft: &mut Nft) -> Result<Vec<ListedChain>, Error> {
    let mut chains = nft.chains(None)?;
    chains.retain(|chain| {
        let ip = matches!(chain.table.family, Family::Ip | Family::Ip6 | Family::Inet);
        let seen = matches!(chain.hook, Some(Hook::Forward | Hook::Input));
        let filter = chain.kind.as_deref() == Some("filter");
        ip && seen && filter && chain.table.name != TABLE
    });
    Ok(chains)
}

fn hostile(nft: &mut Nft) -> Result<Vec<ListedChain>, Error> {
    let mut chains = filters(nft)?;
    chains.retain(|chain| {
        chain.policy == Some(Policy::Drop) || chain.table.name.as_str() == FIREWALLD
    });
    Ok(chains)
}

// === impl Passage ===

impl Passage {
    /// Pods may reach the node (its DNS, the API), and both ways through it.
    fn rules(&self, chain: &ListedChain) -> Vec<Rule> {
        let forward = chain.hook == Some(Hook::Forward);
        let mut rules = Vec::new();
        for (link, what) in &self.links {
            let by = |key| by_link(key, link);
            rules.push(self.accept(by(MetaKey::IifName), &format!("from {what}")));
            if forward {
                rules.push(self.accept(by(MetaKey::OifName), &format!("to {what}")));
            }
        }
        if !forward {
            let why = "tunnels of other nodes";
            let port = self.tunnels.map(to_udp_port);
            rules.extend(port.map(|exprs| self.accept(exprs, why)));
            return rules;
        }
        let seen = |range: &&IpNet| match chain.table.family {
            Family::Ip => range.addr().is_ipv4(),
            Family::Ip6 => range.addr().is_ipv6(),
            _ => true,
        };
        for range in self.ranges.iter().filter(seen) {
            for (source, direction) in [(true, "from"), (false, "to")] {
                let why = format!("{direction} pods of {}", range.trunc());
                rules.push(self.accept(within(*range, source), &why));
            }
        }
        rules
    }

    fn accept(&self, exprs: Vec<Expr>, why: &str) -> Rule {
        let accept = [Expr::Counter, Expr::Verdict(Verdict::Accept)];
        let comment = format!("{} {why}", self.tag);
        Rule::new(exprs.into_iter().chain(accept)).comment(&comment)
    }
}

fn compare(load: Expr, data: Vec<u8>) -> [Expr; 2] {
    let equal = Expr::Cmp {
        op: CmpOp::Eq,
        sreg: Reg::R0,
        data,
    };
    [load, equal]
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, dreg: Reg::R0 }
}

/// Without the NUL behind it: any name that begins so.
fn by_link(key: MetaKey, prefix: &str) -> Vec<Expr> {
    compare(meta(key), prefix.as_bytes().to_vec()).to_vec()
}

fn to_udp_port(port: u16) -> Vec<Expr> {
    let mut exprs = compare(meta(MetaKey::L4Proto), vec![libc::IPPROTO_UDP as u8]).to_vec();
    let load = Expr::Payload {
        base: Base::Transport,
        offset: 2,
        len: 2,
        dreg: Reg::R0,
    };
    exprs.extend(compare(load, port.to_be_bytes().to_vec()));
    exprs
}

fn within(range: IpNet, source: bool) -> Vec<Expr> {
    let (protocol, offset, len) = match (range, source) {
        (IpNet::V4(_), true) => (libc::NFPROTO_IPV4, 12, 4),
        (IpNet::V4(_), false) => (libc::NFPROTO_IPV4, 16, 4),
        (IpNet::V6(_), true) => (libc::NFPROTO_IPV6, 8, 16),
        (IpNet::V6(_), false) => (libc::NFPROTO_IPV6, 24, 16),
    };
    let mut exprs = compare(meta(MetaKey::NfProto), vec![protocol as u8]).to_vec();
    exprs.push(Expr::Payload {
        base: Base::Network,
        offset,
        len,
        dreg: Reg::R0,
    });
    exprs.push(Expr::Mask {
        reg: Reg::R0,
        mask: octets(range.netmask()),
    });
    exprs.push(Expr::Cmp {
        op: CmpOp::Eq,
        sreg: Reg::R0,
        data: octets(range.network()),
    });
    exprs
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
