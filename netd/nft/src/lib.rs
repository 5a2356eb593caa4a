//! nftables over raw netlink: tables, chains, sets, maps and rules, changed in transactions.
//!
//! The crate owns the netlink encoding of `nf_tables` (and the small part of `ctnetlink` that a
//! service map needs, [`conntrack`]): typed objects and expressions go in, one batch that the
//! kernel applies as a whole or not at all comes out. No `nft` process, no JSON, no reload.
//!
//! It must not know what the rules are for: no Kubernetes, no services, no pods. It is
//! synchronous, because the kernel answers a netlink request while it is being sent; only
//! [`Watch`] waits.
//!
//! ```no_run
//! use peapod_nft::{Expr, Family, Nft, Rule, Table, Transaction, Verdict};
//!
//! let table = Table::new(Family::Ip, "example");
//! let mut transaction = Transaction::new();
//! transaction.add_table(&table);
//! transaction.add_chain(&table, "refuse");
//! transaction.append_rule(&table, "refuse", &Rule::new([Expr::Verdict(Verdict::Drop)]));
//! Nft::open()?.commit(transaction)?;
//! # Ok::<(), peapod_nft::Error>(())
//! ```

pub mod conntrack;
mod consts;
mod dump;
mod error;
mod expr;
mod object;
mod socket;
mod sys;
mod transaction;
mod wire;

pub use conntrack::Connection;
pub use dump::{ListedChain, ListedRule};
pub use error::Error;
pub use expr::{Base, CmpOp, CtKey, Expr, FibResult, MetaKey, NatKind, Reg, Reject};
pub use object::{
    BaseChain, ChainKind, Data, DataType, Element, Family, Hook, Policy, Rule, Set, Table, Verdict,
};
pub use socket::{Nft, Watch};
pub use transaction::Transaction;
