//! Rules in others' tables, so that pods' packets pass.
//!
//! Docker, firewalld and ufw let the forward chain drop what they do not know, and a verdict of
//! ours does not override theirs: every chain of a hook must accept. So rules tagged with
//! [`TAG`] are put at the head of such chains, and [`remove`] takes them away.

use peapod_nft::{
    CmpOp, Error, Expr, Family, Hook, ListedChain, MetaKey, Nft, Policy, Reg, Rule, Transaction,
    Verdict,
};

use crate::links::alias::PREFIX;
use crate::nat::TABLE;

/// How the comment of every rule of ours begins.
pub const TAG: &str = "peapod:";
/// firewalld's chains accept by policy and reject by their last rule.
const FIREWALLD: &str = "firewalld";

/// Puts rules where they are missing; tells of every chain that has some of ours.
pub fn ensure(nft: &mut Nft) -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    for chain in hostile(nft)? {
        told.push(format!(
            "a firewall drops what it does not know (nftables table {}, chain {}); rules commented \
             {TAG:?} let pods' packets pass there, and `peapod down` takes them away",
            chain.table, chain.name
        ));
        let present = nft.rules(&chain.table, &chain.name)?;
        let tagged = present.iter().filter_map(|rule| rule.comment.as_deref());
        if tagged.into_iter().any(|comment| comment.starts_with(TAG)) {
            continue;
        }
        let mut transaction = Transaction::new();
        for rule in rules(chain.hook) {
            transaction.insert_rule(&chain.table, &chain.name, &rule);
        }
        nft.commit(transaction)?;
        tracing::info!(
            table = %chain.table, chain = %chain.name,
            "this chain drops what it does not know; pods' packets are accepted there now"
        );
    }
    Ok(told)
}

/// Takes every rule of ours out of others' tables.
pub fn remove() -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for chain in filters(&mut nft)? {
        let mut transaction = Transaction::new();
        for rule in nft.rules(&chain.table, &chain.name)? {
            if rule.comment.is_some_and(|comment| comment.starts_with(TAG)) {
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

/// Pods may reach the node (its DNS, the API), and both ways through it.
fn rules(hook: Option<Hook>) -> Vec<Rule> {
    let from_pods = accept(MetaKey::IifName, "what pods send");
    match hook {
        Some(Hook::Forward) => vec![from_pods, accept(MetaKey::OifName, "what pods are sent")],
        _ => vec![from_pods],
    }
}

fn accept(link: MetaKey, why: &str) -> Rule {
    let is_pod_link = [
        Expr::Meta {
            key: link,
            dreg: Reg::R0,
        },
        // Without the NUL behind it: any name that begins so.
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: PREFIX.as_bytes().to_vec(),
        },
    ];
    let accept = [Expr::Counter, Expr::Verdict(Verdict::Accept)];
    Rule::new(is_pod_link.into_iter().chain(accept)).comment(&format!("{TAG} {why}"))
}
