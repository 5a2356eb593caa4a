//! A transaction: operations that the kernel applies as a whole or not at all.

use std::collections::BTreeMap;

use crate::consts::*;
use crate::object::{BaseChain, Element, Family, Policy, Rule, Set, Table, concat};
use crate::wire::{Head, Writer};

/// Elements per message: with keys and values of at most 64 bytes each, and their attribute
/// heads, a message stays below the 64 KiB that a nested attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 300;

/// Operations to commit together, in order.
pub struct Transaction {
    pub(crate) writer: Writer,
    /// What each sequence number does, for errors.
    pub(crate) operations: BTreeMap<u32, String>,
    pub(crate) last_message: usize,
    pub(crate) sequence: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// An empty one.
    pub fn new() -> Self {
        let mut transaction = Transaction {
            writer: Writer::default(),
            operations: BTreeMap::new(),
            last_message: 0,
            sequence: 0,
        };
        transaction.edge(NFNL_MSG_BATCH_BEGIN);
        transaction
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Adds a table; nothing happens when it exists.
    pub fn add_table(&mut self, table: &Table) {
        self.create(NFT_MSG_NEWTABLE, table, "add table", "", |w| {
            w.string(NFTA_TABLE_NAME, &table.name);
        });
    }

    /// Adds a table with user data of its own (up to 256 bytes), which [`crate::Nft::table`]
    /// reads back.
    pub fn add_table_with_data(&mut self, table: &Table, data: &[u8]) {
        self.create(NFT_MSG_NEWTABLE, table, "add table", "", |w| {
            w.string(NFTA_TABLE_NAME, &table.name);
            w.attr(NFTA_TABLE_USERDATA, data);
        });
    }

    /// Deletes a table and all that is in it; it must exist.
    pub fn delete_table(&mut self, table: &Table) {
        self.operation(NFT_MSG_DELTABLE, 0, table, "delete table", "", |w| {
            w.string(NFTA_TABLE_NAME, &table.name);
        });
    }

    /// Adds a regular chain; nothing happens when it exists.
    pub fn add_chain(&mut self, table: &Table, name: &str) {
        self.create(NFT_MSG_NEWCHAIN, table, "add chain", name, |w| {
            w.string(NFTA_CHAIN_TABLE, &table.name);
            w.string(NFTA_CHAIN_NAME, name);
        });
    }

    /// Adds a base chain; nothing happens when it exists.
    pub fn add_base_chain(&mut self, table: &Table, name: &str, base: BaseChain) {
        self.create(NFT_MSG_NEWCHAIN, table, "add base chain", name, |w| {
            w.string(NFTA_CHAIN_TABLE, &table.name);
            w.string(NFTA_CHAIN_NAME, name);
            w.nested(NFTA_CHAIN_HOOK, |w| {
                w.be32(NFTA_HOOK_HOOKNUM, base.hook.number());
                w.be32(NFTA_HOOK_PRIORITY, base.priority as u32);
            });
            w.be32(NFTA_CHAIN_POLICY, u32::from(base.policy == Policy::Accept));
            w.string(NFTA_CHAIN_TYPE, base.kind.name());
        });
    }

    /// Deletes a chain; it must be without rules and unused.
    pub fn delete_chain(&mut self, table: &Table, name: &str) {
        self.operation(NFT_MSG_DELCHAIN, 0, table, "delete chain", name, |w| {
            w.string(NFTA_CHAIN_TABLE, &table.name);
            w.string(NFTA_CHAIN_NAME, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &Table, name: &str) {
        self.operation(NFT_MSG_DELRULE, 0, table, "flush chain", name, |w| {
            w.string(NFTA_RULE_TABLE, &table.name);
            w.string(NFTA_RULE_CHAIN, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn append_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        self.add_rule(table, chain, rule, libc::NLM_F_APPEND as u16);
    }

    /// Adds a rule at the head of a chain.
    pub fn insert_rule(&mut self, table: &Table, chain: &str, rule: &Rule) {
        self.add_rule(table, chain, rule, 0);
    }

    fn add_rule(&mut self, table: &Table, chain: &str, rule: &Rule, flags: u16) {
        let flags = flags | libc::NLM_F_CREATE as u16;
        let what = "add rule to chain";
        self.operation(NFT_MSG_NEWRULE, flags, table, what, chain, |w| {
            w.string(NFTA_RULE_TABLE, &table.name);
            w.string(NFTA_RULE_CHAIN, chain);
            w.nested(NFTA_RULE_EXPRESSIONS, |w| {
                rule.expressions.iter().for_each(|expr| expr.write(w));
            });
            if let Some(comment) = &rule.comment {
                w.attr(NFTA_RULE_USERDATA, &comment_data(comment));
            }
        });
    }

    /// Deletes a rule by its handle.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) {
        let what = "delete rule of chain";
        self.operation(NFT_MSG_DELRULE, 0, table, what, chain, |w| {
            w.string(NFTA_RULE_TABLE, &table.name);
            w.string(NFTA_RULE_CHAIN, chain);
            w.be64(NFTA_RULE_HANDLE, handle);
        });
    }

    /// Adds a set or map; nothing happens when an equal one exists.
    pub fn add_set(&mut self, table: &Table, set: &Set) {
        let id = self.sequence + 1;
        self.create(NFT_MSG_NEWSET, table, "add set", &set.name, |w| {
            let (key_type, key_len) = concat(&set.key);
            w.string(NFTA_SET_TABLE, &table.name);
            w.string(NFTA_SET_NAME, &set.name);
            w.be32(NFTA_SET_ID, id);
            w.be32(NFTA_SET_FLAGS, set.flags());
            w.be32(NFTA_SET_KEY_TYPE, key_type);
            w.be32(NFTA_SET_KEY_LEN, key_len);
            write_data_type(w, set);
            if let Some(timeout) = set.dynamic_timeout_ms {
                w.be64(NFTA_SET_TIMEOUT, timeout);
            }
            if let Some(size) = set.size {
                w.nested(NFTA_SET_DESC, |w| w.be32(NFTA_SET_DESC_SIZE, size));
            }
        });
    }

    /// Adds elements. One that exists with the same value is left alone; with another value the
    /// transaction fails: delete it first.
    pub fn add_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        let flags = libc::NLM_F_CREATE as u16;
        self.elements(NFT_MSG_NEWSETELEM, flags, table, set, elements);
    }

    /// Deletes elements, which must exist.
    pub fn delete_elements(&mut self, table: &Table, set: &str, elements: &[Element]) {
        self.elements(NFT_MSG_DELSETELEM, 0, table, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, table: &Table, set: &str, all: &[Element]) {
        let adds = kind == NFT_MSG_NEWSETELEM;
        let what = if adds {
            "add elements to set"
        } else {
            "delete elements of set"
        };
        for some in all.chunks(ELEMENTS_PER_MESSAGE) {
            self.operation(kind, flags, table, what, set, |w| {
                w.string(NFTA_SET_ELEM_LIST_TABLE, &table.name);
                w.string(NFTA_SET_ELEM_LIST_SET, set);
                w.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                    some.iter().for_each(|element| element.write(w, adds));
                });
            });
        }
    }

    fn create(
        &mut self,
        kind: u16,
        table: &Table,
        what: &str,
        name: &str,
        body: impl FnOnce(&mut Writer),
    ) {
        let flags = libc::NLM_F_CREATE as u16;
        self.operation(kind, flags, table, what, name, body);
    }

    fn operation(
        &mut self,
        kind: u16,
        flags: u16,
        table: &Table,
        what: &str,
        name: &str,
        body: impl FnOnce(&mut Writer),
    ) {
        self.sequence += 1;
        self.last_message = self.writer.len();
        let head = Head {
            kind: (NFNL_SUBSYS_NFTABLES << 8) | kind,
            flags: libc::NLM_F_REQUEST as u16 | flags,
            sequence: self.sequence,
            family: table.family.number(),
            resource: 0,
        };
        self.writer.message(&head, body);
        let space = if name.is_empty() { "" } else { " " };
        self.operations
            .insert(self.sequence, format!("{what} {table}{space}{name}"));
    }

    /// Ends the batch, asking for an answer to its last operation.
    pub(crate) fn finish(&mut self) {
        self.writer
            .add_flags(self.last_message, libc::NLM_F_ACK as u16);
        self.edge(NFNL_MSG_BATCH_END);
    }

    /// The first or last message of the batch. Both carry a sequence number of their own, so
    /// that an error of the commit itself is told from one of an operation.
    fn edge(&mut self, kind: u16) {
        let head = Head {
            kind,
            flags: libc::NLM_F_REQUEST as u16,
            sequence: if kind == NFNL_MSG_BATCH_BEGIN {
                0
            } else {
                self.sequence + 1
            },
            family: Family::Other(0).number(),
            resource: NFNL_SUBSYS_NFTABLES,
        };
        self.writer.message(&head, |_| {});
    }
}

fn write_data_type(w: &mut Writer, set: &Set) {
    if set.verdicts {
        w.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        // The kernel takes a verdict's length from the type; the attribute must be there.
        w.be32(NFTA_SET_DATA_LEN, 0);
    } else if !set.data.is_empty() {
        let (kind, len) = concat(&set.data);
        w.be32(NFTA_SET_DATA_TYPE, kind);
        w.be32(NFTA_SET_DATA_LEN, len);
    }
}

/// A comment as `nft` keeps it in a rule's user data: type, length, text, NUL.
fn comment_data(comment: &str) -> Vec<u8> {
    const LONGEST: usize = 120;
    let text: String = comment
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= LONGEST)
        .map(|(_, c)| c)
        .collect();
    let mut data = vec![NFTNL_UDATA_COMMENT, text.len() as u8 + 1];
    data.extend_from_slice(text.as_bytes());
    data.push(0);
    data
}
