//! Messages of rtnetlink as the kernel gets and sends them.

use ipnet::IpNet;

use super::*;
use crate::kernel::nexthops::Command;

#[test]
fn a_link_is_up_when_packets_pass() {
    let body = |flags: libc::c_int| {
        let mut body = vec![0; 16];
        body[4] = 7;
        body[8..12].copy_from_slice(&(flags as u32).to_ne_bytes());
        body.extend([9, 0, 3, 0]);
        body.extend(b"eth1\0\0\0\0");
        body
    };
    let carrier = libc::IFF_UP | libc::IFF_LOWER_UP;
    let running = carrier | libc::IFF_RUNNING;
    for (flags, up) in [(running, true), (carrier, false), (libc::IFF_UP, false)] {
        assert_eq!(
            link(&body(flags)),
            Some((7, "eth1".to_owned(), up)),
            "{flags:x}"
        );
    }
}

#[test]
fn routes_read_as_they_were_written() {
    let hop = |gateway: &str, link| Hop {
        gateway: gateway.parse().unwrap(),
        link,
    };
    let cases = [
        ("10.1.0.0/16", vec![hop("10.0.0.2", None)]),
        ("0.0.0.0/0", vec![hop("fe80::2", Some(3))]),
        (
            "10.1.0.0/16",
            vec![hop("10.0.0.2", Some(2)), hop("10.0.0.6", Some(3))],
        ),
        (
            "10.1.1.1/32",
            vec![hop("fe80::1", Some(2)), hop("fe80::1", Some(3))],
        ),
        ("fd00:1::/64", vec![hop("fd00::2", None)]),
        (
            "fd00:1::/64",
            vec![hop("fe80::1", Some(2)), hop("fe80::2", Some(3))],
        ),
    ];
    for (prefix, hops) in cases {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut bytes = Vec::new();
        put_route(&mut bytes, 7, &prefix, Way::Hops(&hops), None);
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.sequence), (RTM_NEWROUTE, 7));
        assert_eq!(bytes.len() % 4, 0);
        let object = None;
        let same = KernelRoute {
            prefix,
            hops,
            object,
        };
        assert_eq!(route(message.body), Some(same));
    }
}

#[test]
fn objects_read_as_they_were_written() {
    let hop = Hop {
        gateway: "fe80::1".parse().unwrap(),
        link: Some(3),
    };
    let members = vec![6, 7];
    for (command, expected) in [
        (Command::Single { id: 9, hop }, (9, vec![])),
        (
            Command::Group {
                id: 8,
                members: members.clone(),
            },
            (8, members),
        ),
    ] {
        let mut bytes = Vec::new();
        put_nexthop(&mut bytes, 1, &command);
        let message = messages(&bytes).next().unwrap();
        assert_eq!(message.kind, RTM_NEWNEXTHOP);
        assert_eq!(nexthop(message.body), Some(expected));
    }
    let (prefix, mut bytes) = ("10.0.0.0/8".parse().unwrap(), Vec::new());
    put_route(&mut bytes, 1, &prefix, Way::Object(8), None);
    let message = messages(&bytes).next().unwrap();
    assert_eq!(route(message.body).unwrap().object, Some(8));
}
