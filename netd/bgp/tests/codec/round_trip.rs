//! Whatever can be said can be written, and is read as what was said.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use ipnet::{Ipv4Net, Ipv6Net};
use peapod_bgp::types::{
    AddPath, Aggregator, AsPath, Capability, Community, ExtCommunity, ExtendedNextHop, Family,
    GracefulRestart, LargeCommunity, LongLivedFamily, Message, NextHop, Nlri, Notification,
    NotificationError, Open, Origin, PathAttributes, RawAttribute, Restartable, Role, Segment,
    Update,
};
use peapod_bgp::wire::{self, Session};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::bodies;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn opens(open in open()) {
        let message = Message::Open(open);
        prop_assert_eq!(there_and_back(&message, &Session::before_open()), [message]);
    }

    #[test]
    fn notifications(code: u8, subcode: u8, data in vec(any::<u8>(), 0..4_000)) {
        let error = NotificationError::from_codes(code, subcode);
        let message = Message::Notification(Notification::with_data(error, data));
        prop_assert_eq!(there_and_back(&message, &Session::before_open()), [message]);
    }

    #[test]
    fn announcements(
        attributes in attributes(),
        prefixes in vec(nlri(), 0..2_000),
        bits: u8,
    ) {
        // The first AS is whatever it is: bit 6 off.
        let session = bodies::session(bits & !0x40);
        for &family in &session.families {
            let of_family = |nlri: &&Nlri| Family::of(&nlri.prefix) == family.family;
            let with_id = |nlri: &Nlri| Nlri {
                path_id: if family.add_path_send { nlri.path_id } else { 0 },
                ..*nlri
            };
            let sent: Vec<Nlri> = prefixes.iter().filter(of_family).map(with_id).collect();
            let mut out = BytesMut::new();
            let count = wire::announce(
                &session, &attributes, family.family, prefixes.iter().copied(), &mut out,
            );
            let Ok(count) = count else {
                prop_assert!(out.is_empty());
                continue;
            };
            let (got, messages) = received(&mut out, &session, &attributes);
            prop_assert_eq!(messages, count);
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn withdrawals(prefixes in vec(nlri(), 0..2_000), bits: u8) {
        let session = bodies::session(bits);
        for &family in &session.families {
            let mut out = BytesMut::new();
            wire::withdraw(&session, family.family, prefixes.iter().copied(), &mut out).unwrap();
            let got: Vec<Nlri> = bodies::read_all(&mut out, &session).iter().flat_map(|message| {
                let Message::Update(update) = message else { panic!("{message}") };
                assert!(update.announced.is_empty() && update.problems.is_empty());
                update.withdrawn.iter().flatten().collect::<Vec<_>>()
            }).collect();
            let of_family = prefixes.iter().filter(|nlri| Family::of(&nlri.prefix) == family.family);
            let sent: Vec<_> = of_family.map(|nlri| nlri.prefix).collect();
            prop_assert_eq!(got.iter().map(|nlri| nlri.prefix).collect::<Vec<_>>(), sent);
        }
    }
}

fn there_and_back(message: &Message, session: &Session) -> Vec<Message> {
    let mut out = BytesMut::new();
    wire::encode(message, session, &mut out).expect("it can be written");
    bodies::read_all(&mut out, session)
}

/// The prefixes of a stream of announcements, which all must have the attributes `sent`, and the
/// number of messages.
fn received(out: &mut BytesMut, session: &Session, sent: &PathAttributes) -> (Vec<Nlri>, usize) {
    let messages = bodies::read_all(out, session);
    let mut prefixes = Vec::new();
    for message in &messages {
        let Message::Update(Update {
            withdrawn,
            announced,
            problems,
            ..
        }) = message
        else {
            panic!("{message}")
        };
        assert!(withdrawn.is_empty() && problems.is_empty(), "{message}");
        for one in announced {
            assert_eq!(*one.attributes, attributes_as_sent(sent, session));
            prefixes.extend(&one.nlri);
        }
    }
    (prefixes, messages.len())
}

/// What of a set of attributes crosses a session.
fn attributes_as_sent(attributes: &PathAttributes, session: &Session) -> PathAttributes {
    let mut sent = attributes.clone();
    if session.external {
        (sent.local_pref, sent.originator_id) = (None, None);
        sent.cluster_list.clear();
    }
    sent
}

fn nlri() -> impl Strategy<Value = Nlri> {
    let v4 = (any::<u32>(), 0..=32u8)
        .prop_map(|(bits, len)| Ipv4Net::new(Ipv4Addr::from(bits), len).unwrap().into());
    let v6 = (any::<u128>(), 0..=128u8)
        .prop_map(|(bits, len)| Ipv6Net::new(Ipv6Addr::from(bits), len).unwrap().into());
    (prop_oneof![v4, v6], any::<u32>()).prop_map(|(prefix, path_id): (ipnet::IpNet, u32)| Nlri {
        path_id,
        ..Nlri::new(prefix)
    })
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    let global = any::<u64>().prop_map(|low| Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(low)));
    let link_local = any::<u64>().prop_map(|low| Ipv6Addr::from(0xfe80 << 112 | u128::from(low)));
    prop_oneof![
        any::<u16>().prop_map(|low| NextHop::V4(Ipv4Addr::from(0x0a00_0000 | u32::from(low)))),
        global.clone().prop_map(NextHop::V6),
        link_local.clone().prop_map(NextHop::V6),
        (global, link_local)
            .prop_map(|(global, link_local)| NextHop::V6WithLinkLocal { global, link_local }),
    ]
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let asns = |most| vec(1..=u32::MAX, 1..most);
    let segment = prop_oneof![
        4 => asns(400).prop_map(Segment::Sequence),
        1 => asns(20).prop_map(Segment::Set),
    ];
    vec(segment, 0..4).prop_map(AsPath::from_segments)
}

fn sorted<T: Ord + std::fmt::Debug>(
    item: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<T>> {
    btree_set(item, 0..20).prop_map(|set| set.into_iter().collect())
}

fn attributes() -> impl Strategy<Value = PathAttributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let address = any::<u32>().prop_map(Ipv4Addr::from);
    // 23456 alone stands for another number: its meaning is in AS4_AGGREGATOR.
    let aggregator = (60_000..=u32::MAX, address.clone())
        .prop_map(|(asn, router_id)| Aggregator { asn, router_id });
    let large = any::<(u32, u32, u32)>().prop_map(|(global, local1, local2)| LargeCommunity {
        global,
        local1,
        local2,
    });
    let unknown = (40..=254u8, vec(any::<u8>(), 0..300));
    let unknown = proptest::collection::btree_map(unknown.0, unknown.1, 0..3).prop_map(|raw| {
        let raw = raw.into_iter();
        raw.map(|(code, value)| RawAttribute {
            flags: 0xe0,
            code,
            value: value.into(),
        })
        .collect()
    });
    let plain = (
        origin,
        as_path(),
        next_hop(),
        any::<Option<u32>>(),
        0..1_000u32,
        any::<bool>(),
    );
    let lists = (
        sorted(any::<u32>().prop_map(Community)),
        sorted(any::<[u8; 8]>().prop_map(ExtCommunity)),
        sorted(large),
    );
    let rest = (
        option::of(aggregator),
        option::of(address.clone()),
        vec(address, 0..5),
        any::<Option<u32>>(),
        unknown,
    );
    (plain, lists, rest).prop_map(|(plain, lists, rest)| PathAttributes {
        origin: plain.0,
        as_path: plain.1,
        next_hop: Some(plain.2),
        med: plain.3,
        // Always there, as towards internal peers it must be.
        local_pref: Some(plain.4),
        atomic_aggregate: plain.5,
        communities: lists.0,
        ext_communities: lists.1,
        large_communities: lists.2,
        aggregator: rest.0,
        originator_id: rest.1,
        cluster_list: rest.2,
        only_to_customer: rest.3,
        unknown: rest.4,
    })
}

fn family() -> impl Strategy<Value = Family> {
    (1..4u16, 1..200u8).prop_map(|(afi, safi)| Family { afi, safi })
}

fn capability() -> impl Strategy<Value = Capability> {
    let extended = (family(), 1..3u16).prop_map(|(family, next_hop_afi)| ExtendedNextHop {
        family,
        next_hop_afi,
    });
    let restartable = (family(), any::<bool>())
        .prop_map(|(family, forwarding)| Restartable { family, forwarding });
    let restart = (
        any::<bool>(),
        any::<bool>(),
        0..4096u16,
        vec(restartable, 0..4),
    )
        .prop_map(|(restarting, notification, restart_time, families)| {
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time,
                families,
            })
        });
    let paths = (family(), 1..=3u8).prop_map(|(family, mode)| AddPath {
        family,
        send: mode & 2 != 0,
        receive: mode & 1 != 0,
    });
    let long_lived =
        (family(), any::<bool>(), 0..0x100_0000u32).prop_map(|(family, forwarding, stale_time)| {
            LongLivedFamily {
                family,
                forwarding,
                stale_time,
            }
        });
    prop_oneof![
        family().prop_map(Capability::MultiProtocol),
        Just(Capability::RouteRefresh),
        vec(extended, 0..4).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        restart,
        (1..=u32::MAX).prop_map(Capability::FourOctetAs),
        vec(paths, 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        vec(long_lived, 0..4).prop_map(Capability::LongLivedGracefulRestart),
        ("[a-zé]{0,60}", "[a-z.]{0,60}")
            .prop_map(|(hostname, domain)| Capability::Fqdn { hostname, domain }),
        (100..=255u8, vec(any::<u8>(), 0..256)).prop_map(|(code, value)| Capability::Unknown {
            code,
            value: Bytes::from(value)
        }),
    ]
}

fn open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0), 3..=u16::MAX];
    let role = option::of((0..6u8).prop_map(|role| Capability::Role(Role::from(role))));
    let fixed = (1..=u32::MAX, hold_time, 1..=u32::MAX, role);
    (fixed, vec(capability(), 0..12)).prop_map(|((asn, hold_time, id, role), capabilities)| {
        Open::new(
            asn,
            hold_time,
            Ipv4Addr::from(id),
            capabilities.into_iter().chain(role),
        )
    })
}
