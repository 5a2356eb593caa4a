//! nftables over raw netlink: tables, chains, maps, rules, in transactions.
