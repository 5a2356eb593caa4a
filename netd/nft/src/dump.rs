//! Reading what is in the kernel.

use crate::consts::*;
use crate::error::Error;
use crate::object::{Element, Family, Hook, Policy, Table};
use crate::socket::Nft;
use crate::wire::{Attrs, Head, Writer};

/// Attempts at a dump before a ruleset that keeps changing is given up on.
const DUMP_ATTEMPTS: u32 = 16;

/// A chain as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedChain {
    /// The table it is in.
    pub table: Table,
    /// Its name.
    pub name: String,
    /// Where it is attached, for a base chain of an IP family.
    pub hook: Option<Hook>,
    /// `filter`, `nat` or `route`, for a base chain.
    pub kind: Option<String>,
    /// Policy of a base chain.
    pub policy: Option<Policy>,
}

/// A rule as the kernel lists it; its expressions are not read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// What [`crate::Transaction::delete_rule`] takes.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
}

impl Nft {
    /// The user data of a table, empty when it has none; `None` when there is no such table.
    pub fn table(&mut self, table: &Table) -> Result<Option<Vec<u8>>, Error> {
        let request = get(NFT_MSG_GETTABLE, table.family, |_| {});
        let what = || format!("list table {table}");
        let found = self.settled(&request, &what, |_, attrs| {
            let name = attrs.string(NFTA_TABLE_NAME)?;
            let data = attrs.find(NFTA_TABLE_USERDATA).unwrap_or_default();
            (name == table.name).then(|| data.to_vec())
        })?;
        Ok(found.into_iter().next())
    }

    /// All chains of a family, or of every family.
    pub fn chains(&mut self, family: Option<Family>) -> Result<Vec<ListedChain>, Error> {
        let request = get(NFT_MSG_GETCHAIN, family.unwrap_or(Family::Other(0)), |_| {});
        self.settled(&request, &|| "list chains".to_owned(), read_chain)
    }

    /// The rules of a chain, first to last.
    pub fn rules(&mut self, table: &Table, chain: &str) -> Result<Vec<ListedRule>, Error> {
        let request = get(NFT_MSG_GETRULE, table.family, |w| {
            w.string(NFTA_RULE_TABLE, &table.name);
            w.string(NFTA_RULE_CHAIN, chain);
        });
        let what = || format!("list rules of chain {table} {chain}");
        self.settled(&request, &what, |_, attrs| {
            let user = attrs.find(NFTA_RULE_USERDATA).unwrap_or_default();
            Some(ListedRule {
                handle: attrs.be64(NFTA_RULE_HANDLE)?,
                comment: read_comment(user),
            })
        })
    }

    /// The elements of a set or map.
    pub fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, Error> {
        let request = get(NFT_MSG_GETSETELEM, table.family, |w| {
            w.string(NFTA_SET_ELEM_LIST_TABLE, &table.name);
            w.string(NFTA_SET_ELEM_LIST_SET, set);
        });
        let what = || format!("list elements of set {table} {set}");
        let runs = self.settled(&request, &what, |_, attrs| {
            let elements = attrs.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
            let run: Vec<Element> = elements
                .into_iter()
                .filter_map(|(_, element)| Element::read(Attrs(element)))
                .collect();
            Some(run)
        })?;
        Ok(runs.into_iter().flatten().collect())
    }

    /// Dumps until nothing changed meanwhile.
    fn settled<T>(
        &mut self,
        request: &Writer,
        what: &dyn Fn() -> String,
        read: impl Fn(u8, Attrs<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let take = |family, attrs: Attrs<'_>| found.extend(read(family, attrs));
            if !self.dump(request, what, take)? {
                return Ok(found);
            }
        }
        Err(Error::Restless(DUMP_ATTEMPTS, what()))
    }
}

fn get(message: u16, family: Family, body: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    let head = Head {
        kind: (NFNL_SUBSYS_NFTABLES << 8) | message,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
        sequence: 1,
        family: family.number(),
        resource: 0,
    };
    writer.message(&head, body);
    writer
}

fn read_chain(family: u8, attrs: Attrs<'_>) -> Option<ListedChain> {
    let hook = attrs.nested(NFTA_CHAIN_HOOK).be32(NFTA_HOOK_HOOKNUM);
    let policy = attrs.be32(NFTA_CHAIN_POLICY).map(|policy| match policy {
        0 => Policy::Drop,
        _ => Policy::Accept,
    });
    Some(ListedChain {
        table: Table {
            family: Family::from_number(family),
            name: attrs.string(NFTA_CHAIN_TABLE)?,
        },
        name: attrs.string(NFTA_CHAIN_NAME)?,
        hook: hook.and_then(Hook::from_number),
        kind: attrs.string(NFTA_CHAIN_TYPE),
        policy,
    })
}

/// The comment among a rule's user data: a run of (type, length, value).
fn read_comment(mut user: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = user {
        let value = rest.get(..usize::from(*len))?;
        if *kind == NFTNL_UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        user = &rest[usize::from(*len)..];
    }
    None
}
