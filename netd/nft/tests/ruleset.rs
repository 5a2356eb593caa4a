//! What we write is what `nft` lists: against the kernel, in a network namespace of its own.

use std::net::Ipv4Addr;
use std::process::Command;

use peapod_nft::{
    Base, BaseChain, ChainKind, CmpOp, CtKey, Data, DataType, Element, Expr, Family, FibResult,
    Hook, MetaKey, NatKind, Nft, Policy, Reg, Reject, Rule, Set, Table, Transaction, Verdict,
};

/// Puts this test's thread, and what it starts, into a network namespace of its own.
fn isolated() -> (Nft, Table) {
    // SAFETY: changes the namespace of this thread only; no memory is involved.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
    (Nft::open().unwrap(), Table::new(Family::Ip, "test"))
}

fn listed() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn key(address: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    let mut key = address.to_vec();
    key.extend([6, 0, 0, 0, port[0], port[1], 0, 0]);
    key
}

fn services() -> Set {
    Set {
        name: "services".into(),
        key: vec![
            DataType::Ipv4Addr,
            DataType::InetProto,
            DataType::InetService,
        ],
        verdicts: true,
        ..Set::default()
    }
}

fn load_key() -> [Expr; 3] {
    [
        Expr::Payload {
            base: Base::Network,
            offset: 16,
            len: 4,
            dreg: Reg::R0,
        },
        Expr::Meta {
            key: MetaKey::L4Proto,
            dreg: Reg::R0.plus(1),
        },
        Expr::Payload {
            base: Base::Transport,
            offset: 2,
            len: 2,
            dreg: Reg::R0.plus(2),
        },
    ]
}

#[test]
fn maps_and_chains_list_as_meant() {
    let (mut nft, table) = isolated();
    let mut t = Transaction::new();
    t.add_table(&table);
    t.add_set(&table, &services());
    let prerouting = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Prerouting,
        priority: -100,
        policy: Policy::Accept,
    };
    t.add_base_chain(&table, "prerouting", prerouting);
    t.add_chain(&table, "refuse");
    let mut lookup = load_key().to_vec();
    lookup.push(Expr::VerdictMap {
        map: "services".into(),
        key: Reg::R0,
    });
    t.append_rule(
        &table,
        "prerouting",
        &Rule::new(lookup).comment("one lookup"),
    );
    t.append_rule(
        &table,
        "refuse",
        &Rule::new([Expr::Reject(Reject::IcmpUnreachable(3))]),
    );
    let refuse = Data::Verdict(Verdict::Goto("refuse".into()));
    t.add_elements(
        &table,
        "services",
        &[Element::entry(key([10, 96, 0, 1], 443), refuse)],
    );
    nft.commit(t).unwrap();
    assert_eq!(
        listed(),
        r#"table ip test {
	map services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.1 . tcp . 443 : goto refuse }
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport vmap @services comment "one lookup"
	}

	chain refuse {
		reject
	}
}
"#
    );
}

#[test]
fn every_expression_is_understood() {
    let (mut nft, table) = isolated();
    let mut t = Transaction::new();
    t.add_table(&table);
    let affinity = Set {
        name: "affinity".into(),
        key: vec![DataType::Ipv4Addr, DataType::Mark],
        dynamic_timeout_ms: Some(60_000),
        size: Some(1000),
        ..Set::default()
    };
    let blocks = Set {
        name: "blocks".into(),
        key: vec![DataType::Ipv4Addr],
        interval: true,
        ..Set::default()
    };
    t.add_set(&table, &affinity);
    t.add_set(&table, &blocks);
    t.add_chain(&table, "nat");
    let postrouting = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    };
    t.add_base_chain(&table, "post", postrouting);
    let daddr = |dreg| Expr::Payload {
        base: Base::Network,
        offset: 16,
        len: 4,
        dreg,
    };
    let rules = [
        vec![
            daddr(Reg::R0),
            Expr::RandomNumber {
                modulus: 3,
                offset: 5,
                dreg: Reg::R0.plus(1),
            },
            Expr::Update {
                set: "affinity".into(),
                key: Reg::R0,
                timeout_ms: 10_000,
            },
        ],
        vec![
            daddr(Reg::R0),
            Expr::Immediate {
                data: 1u32.to_ne_bytes().to_vec(),
                dreg: Reg::R0.plus(1),
            },
            Expr::Contains {
                set: "affinity".into(),
                key: Reg::R0,
                inverted: false,
            },
        ],
        vec![
            Expr::Ct {
                key: CtKey::Status,
                dreg: Reg::R0,
            },
            Expr::Mask {
                reg: Reg::R0,
                mask: 32u32.to_ne_bytes().to_vec(),
            },
            Expr::Cmp {
                op: CmpOp::Ne,
                sreg: Reg::R0,
                data: vec![0; 4],
            },
            daddr(Reg::R0),
            Expr::Contains {
                set: "blocks".into(),
                key: Reg::R0,
                inverted: true,
            },
            Expr::Fib {
                result: FibResult::SourceType,
                dreg: Reg::R0,
            },
            Expr::Cmp {
                op: CmpOp::Ne,
                sreg: Reg::R0,
                data: 2u32.to_ne_bytes().to_vec(),
            },
            Expr::Counter,
            Expr::Masquerade,
        ],
        vec![
            Expr::Meta {
                key: MetaKey::OifName,
                dreg: Reg::R0,
            },
            Expr::Cmp {
                op: CmpOp::Eq,
                sreg: Reg::R0,
                data: b"pea".to_vec(),
            },
            Expr::Verdict(Verdict::Accept),
        ],
    ];
    for rule in rules {
        t.append_rule(&table, "post", &Rule::new(rule));
    }
    nft.commit(t).unwrap();
    let listing = listed();
    for line in [
        "update @affinity { ip daddr . numgen random mod 3 offset 5 timeout 10s }",
        "ip daddr . 0x1000000",
        "ct status dnat ip daddr != @blocks fib saddr type != local counter packets 0 bytes 0 masquerade fully-random",
        "oifname \"pea*\" accept",
        "size 1000",
        "flags dynamic,timeout",
    ] {
        assert!(listing.contains(line), "{line}\n in\n{listing}");
    }
}

#[test]
fn dumps_read_back_what_was_written() {
    let (mut nft, table) = isolated();
    let elements: Vec<Element> = (0..5000u32)
        .map(|n| {
            let address = Ipv4Addr::from(0x0a60_0000 + n).octets();
            Element::entry(key(address, 80), Data::Verdict(Verdict::Accept))
        })
        .collect();
    let mut t = Transaction::new();
    t.add_table_with_data(&table, b"made by a test");
    t.add_set(&table, &services());
    t.add_elements(&table, "services", &elements);
    t.add_chain(&table, "one");
    t.append_rule(&table, "one", &Rule::new([Expr::Counter]).comment("first"));
    t.append_rule(&table, "one", &Rule::new([Expr::Counter]));
    nft.commit(t).unwrap();

    // The kernel makes room for a set's elements after they are there; a dump of that moment may
    // miss some or have them twice.
    let mut read = nft.elements(&table, "services").unwrap();
    for _ in 0..100 {
        read.sort();
        if read == elements {
            break;
        }
        read = nft.elements(&table, "services").unwrap();
    }
    assert_eq!(read, elements);
    assert_eq!(nft.table(&table).unwrap().unwrap(), b"made by a test");
    assert_eq!(nft.table(&Table::new(Family::Ip, "no")).unwrap(), None);
    let rules = nft.rules(&table, "one").unwrap();
    assert_eq!(rules[0].comment.as_deref(), Some("first"));

    let mut t = Transaction::new();
    t.delete_elements(&table, "services", &elements[1..]);
    t.delete_rule(&table, "one", rules[0].handle);
    nft.commit(t).unwrap();
    assert_eq!(nft.elements(&table, "services").unwrap(), elements[..1]);
    assert_eq!(nft.rules(&table, "one").unwrap().len(), 1);
    assert_eq!(nft.chains(Some(Family::Ip)).unwrap()[0].name, "one");
}

#[test]
fn a_refused_operation_is_named_and_nothing_is_applied() {
    let (mut nft, table) = isolated();
    let mut t = Transaction::new();
    t.add_table(&table);
    t.add_set(&table, &services());
    let missing = Data::Verdict(Verdict::Goto("missing".into()));
    t.add_elements(
        &table,
        "services",
        &[Element::entry(key([1, 2, 3, 4], 5), missing)],
    );
    let error = nft.commit(t).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(
        error
            .to_string()
            .contains("add elements to set ip test services"),
        "{error}"
    );
    assert_eq!(listed(), "");
}

#[test]
fn nat_rules_translate() {
    let (mut nft, table) = isolated();
    let mut t = Transaction::new();
    t.add_table(&table);
    let endpoints = Set {
        name: "endpoints".into(),
        key: services().key,
        data: vec![DataType::Ipv4Addr, DataType::InetService],
        ..Set::default()
    };
    t.add_set(&table, &endpoints);
    t.add_chain(&table, "n1");
    let mut rule = load_key().to_vec();
    rule.push(Expr::Map {
        map: "endpoints".into(),
        key: Reg::R0,
        dreg: Reg::R0,
    });
    rule.push(Expr::Nat {
        kind: NatKind::Destination,
        family: Family::Ip,
        address: Reg::R0,
        port: Some(Reg::R0.plus(1)),
    });
    t.append_rule(&table, "n1", &Rule::new(rule));
    nft.commit(t).unwrap();
    let wanted = "dnat ip to ip daddr . meta l4proto . th dport map @endpoints";
    assert!(listed().contains(wanted), "{}", listed());
}
