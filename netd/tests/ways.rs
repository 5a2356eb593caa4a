//! Pods of different nodes reach each other where no fabric carries them.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use peapod_netd::probe::route::{self, Flow};
use support::site::{Member, Site};
use support::{PATIENCE, Pod, SILENCE, eventually, nft};

/// A pod's address and port, of the family at `at`.
fn server(pod: &Pod, at: usize) -> String {
    address(pod.reply.ips[at])
}

fn address(ip: IpAddr) -> String {
    std::net::SocketAddr::new(ip, 80).to_string()
}

/// Each reaches the other, and is seen as who it is.
fn meet(a: &Pod, b: &Pod) {
    for at in [0, 1] {
        for (from, to) in [(a, b), (b, a)] {
            let (name, seen) = from.netns.ask_tcp(&server(to, at)).unwrap();
            assert_eq!(
                (name, seen),
                (to.reference.name.clone(), from.reply.ips[at])
            );
        }
    }
}

/// A node reaches another's pod, and is seen by its own address; the pod reaches the node.
fn meet_node(node: &Member, pod: &Pod) {
    for at in [0, 1] {
        let own: IpAddr = node.ips[at].parse().unwrap();
        let (_, seen) = node.here.ask_tcp(&server(pod, at)).unwrap();
        assert_eq!(seen, own);
        let (_, seen) = pod.netns.ask_tcp(&address(own)).unwrap();
        assert_eq!(seen, pod.reply.ips[at]);
    }
}

#[test]
fn nodes_on_one_link_reach_each_others_pods_directly() {
    let mut site = Site::start();
    let (a, b) = (site.node(1).pod("a"), site.node(2).pod("b"));
    meet(&a, &b);
    site.node(1).here.serve_tcp("n1", 80);
    meet_node(site.node(1), &b);
    let direct = "10.244.2.0/24 via 192.0.2.12 dev eth0 src 192.0.2.11 metric 10";
    let has = |line: &str| {
        let line = line.to_owned();
        move |ways: &[String]| ways.contains(&line)
    };
    site.node(1)
        .wait_for_ways("the route is there", has(direct));

    // Who takes a way, or puts another in its place, is put right.
    for meddling in [
        "route del 10.244.2.0/24 proto 97",
        "route replace blackhole 10.244.2.0/24 metric 10",
        "-6 route del fd00:10:244:2::/64 proto 97",
        "link set eth0 down",
    ] {
        site.node(1).here.ip(meddling);
        if meddling.contains("down") {
            site.node(1)
                .wait_for_ways("routes go with their link", |ways| {
                    !ways.contains(&direct.to_owned())
                });
            site.node(1).here.ip("link set eth0 up");
            // The kernel forgets IPv6 addresses of a link that is down.
            site.node(1)
                .here
                .ip("address add 2001:db8:a::11/64 dev eth0");
        }
        site.node(1).wait_for_ways(meddling, has(direct));
        site.node(1).wait_for_ways(meddling, |ways| {
            ways.iter()
                .any(|way| way.starts_with("fd00:10:244:2::/64 via 2001:db8:a::12"))
        });
    }
    meet(&a, &b);

    // What changed meanwhile is seen to at the next start; what did not stays as it is.
    let before = site.node(1).ways();
    site.stop(1);
    assert_eq!(site.node(1).ways(), before);
    site.api.delete("IpBlock", "/n2-v6");
    site.restart(1);
    let after = site.node(1).ways();
    assert!(
        after.iter().all(|way| !way.starts_with("fd00:10:244:2:")),
        "{after:?}"
    );
    assert!(after.contains(&direct.to_owned()), "{after:?}");

    site.api.delete("Node", "/n2");
    site.node(1)
        .wait_for_ways("nothing leads to a node that is gone", |ways| {
            !ways.iter().any(|way| way.starts_with("10.244.2."))
        });

    site.stop(1);
    let state = site.node(1).state();
    site.node(1)
        .here
        .run(|| peapod_netd::cleanup(&[], state))
        .unwrap();
    assert_eq!(site.node(1).ways(), [""; 0]);
}

/// Sends a datagram that fills the sender's MTU, both ways; and a megabyte.
fn fill(a: &Pod, b: &Pod) {
    for (from, to) in [(a, b), (b, a)] {
        for (at, headers) in [(0, 28), (1, 48)] {
            let (ip, size) = (to.reply.ips[at], from.reply.mtu as usize - headers);
            let receiver = to.netns.run(|| UdpSocket::bind((ip, 0)).unwrap());
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            let sender = from
                .netns
                .run(|| UdpSocket::bind((from.reply.ips[at], 0)).unwrap());
            let target = receiver.local_addr().unwrap();
            assert_eq!(sender.send_to(&vec![7; size], target).unwrap(), size);
            assert_eq!(receiver.recv(&mut [0; 9000]).unwrap(), size);
        }
        stream(from, to);
    }
}

/// Sends a megabyte by TCP.
fn stream(from: &Pod, to: &Pod) {
    let listener = to.netns.run(|| TcpListener::bind((to.v4(), 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap()
    });
    let mut stream = from
        .netns
        .run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    stream.write_all(&vec![7; 1 << 20]).unwrap();
    drop(stream);
    assert_eq!(reader.join().unwrap(), 1 << 20);
}

#[test]
fn a_node_behind_a_router_is_reached_by_a_tunnel() {
    let mut site = Site::start();
    let (a, b, c) = (
        site.node(1).pod("a"),
        site.node(2).pod("b"),
        site.node(3).pod("c"),
    );
    for (left, right) in [(&a, &b), (&a, &c), (&b, &c)] {
        meet(left, right);
    }
    site.node(1).here.serve_tcp("n1", 80);
    site.node(3).here.serve_tcp("n3", 80);
    meet_node(site.node(1), &c);
    meet_node(site.node(3), &a);
    // The node that shares the link is reached directly, the other by the tunnel.
    let ways = site.node(1).ways();
    let by = |way: &str| ways.iter().any(|line| line.starts_with(way));
    assert!(by("10.244.2.0/24 via 192.0.2.12 dev eth0"), "{ways:?}");
    assert!(
        by("10.244.3.0/24 via 10.244.3.0 dev vxlan-pods"),
        "{ways:?}"
    );
    let told = site.node(1).tunnels();
    let count = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    // Pods' packets to the other node's own addresses go by the tunnel too.
    assert_eq!(
        (
            count(" dst 198.51.100.13 "),
            count("lladdr"),
            count("9700:"),
            count(" dstport 8473 ")
        ),
        (1, 3, 2, 1),
        "{told:#?}"
    );

    // A trace calls the ways by their names.
    for (pod, way) in [(&b, "direct"), (&c, "vxlan")] {
        for at in [0, 1] {
            let flow = Flow {
                source: None,
                destination: pod.reply.ips[at],
                protocol: libc::IPPROTO_TCP as u8,
                source_port: 0,
                destination_port: 80,
                input: None,
            };
            let chosen = site.node(1).here.run(|| route::lookup(&flow)).unwrap();
            assert_eq!(chosen.protocol, way);
        }
    }

    // Who takes a part of it is put right.
    let (ways, forward) = (
        site.node(1).ways(),
        told.iter().find(|line| line.contains(" dst ")).unwrap(),
    );
    let forward = forward.split(' ').next().unwrap().to_owned();
    for meddling in [
        "ip route del 10.244.3.0/24 proto 97".to_owned(),
        format!("bridge fdb del {forward} dev vxlan-pods dst 198.51.100.13"),
        format!("bridge fdb replace {forward} dev vxlan-pods dst 192.0.2.99 self permanent"),
        "ip neigh del 10.244.3.0 dev vxlan-pods".to_owned(),
        "ip rule del priority 9700".to_owned(),
        "ip link set vxlan-pods down".to_owned(),
        "ip link set vxlan-pods mtu 1400".to_owned(),
        "ip link del vxlan-pods".to_owned(),
    ] {
        site.node(1).shows(&meddling);
        let numbers_aside = |lines: Vec<String>| {
            let mut lines: Vec<String> = lines
                .into_iter()
                .map(|line| {
                    line.split_once(": vxlan")
                        .map_or(line.clone(), |(_, rest)| rest.to_owned())
                })
                .collect();
            lines.sort();
            lines
        };
        let wanted = numbers_aside(told.clone());
        eventually(&meddling, || {
            let now = numbers_aside(site.node(1).tunnels());
            (now == wanted && site.node(1).ways() == ways).then_some(())
        });
    }
    meet(&a, &c);

    // A restart changes nothing; a node that is gone takes its tunnel along.
    let before = (site.node(1).tunnels(), site.node(1).ways());
    site.restart(1);
    assert_eq!((site.node(1).tunnels(), site.node(1).ways()), before);
    meet(&a, &c);
    site.api.delete("Node", "/n3");
    eventually("the tunnel goes with its node", || {
        site.node(1).tunnels().is_empty().then_some(())
    });
    meet(&a, &b);
    for number in [1, 2] {
        site.stop(number);
        let state = site.node(number).state();
        site.node(number)
            .here
            .run(|| peapod_netd::cleanup(&[], state))
            .unwrap();
        assert_eq!(
            (site.node(number).tunnels(), site.node(number).ways()),
            (vec![], vec![])
        );
    }
}

#[test]
fn the_pool_says_how_packets_get_from_node_to_node() {
    let site = Site::new();
    site.encapsulate("VXLAN");
    let site = site.with_agents();
    let (a, b, c) = (
        site.node(1).pod("a"),
        site.node(2).pod("b"),
        site.node(3).pod("c"),
    );
    assert_eq!((a.reply.mtu, c.reply.mtu), (1450, 1450));
    site.node(1).here.serve_tcp("n1", 80);
    for (left, right) in [(&a, &b), (&a, &c), (&c, &b)] {
        meet(left, right);
        fill(left, right);
    }
    meet_node(site.node(1), &b);
    let through = |ways: &[String]| ways.iter().filter(|way| way.contains("vxlan-pods")).count();
    // Blocks of two nodes, and their own addresses, of both families.
    assert_eq!(
        through(&site.node(1).ways()),
        8,
        "{:#?}",
        site.node(1).ways()
    );

    // Nothing is lost that a pod sends in full size while its packets change their way.
    site.encapsulate("VXLANCrossSubnet");
    site.node(1)
        .wait_for_ways("direct where a link is shared", |ways| through(ways) == 4);
    site.node(2)
        .wait_for_ways("direct where a link is shared", |ways| through(ways) == 4);
    for (left, right) in [(&a, &b), (&a, &c)] {
        meet(left, right);
        fill(left, right);
    }
    meet_node(site.node(1), &b);
    let cut: u64 = (1..=3).map(|number| site.node(number).fragments()).sum();
    assert_eq!(cut, 0, "packets of full size fit the tunnel");

    site.encapsulate("Direct");
    site.node(1)
        .wait_for_ways("none behind the router", |ways| {
            ways.len() == 2 && ways.iter().all(|way| way.contains(" dev eth0 "))
        });
    meet(&a, &b);
    site.encapsulate("Routed");
    site.node(1)
        .wait_for_ways("the fabric's", |ways| ways.is_empty());
    assert_eq!(site.node(1).tunnels(), [""; 0]);
}

#[test]
fn a_pod_that_was_there_before_the_tunnel_learns_what_fits() {
    let site = Site::start();
    let (a, c) = (site.node(2).pod("a"), site.node(3).pod("c"));
    // Pods that are attached now leave room for the tunnel; earlier ones have not.
    for (pod, node) in [(&a, 2), (&c, 3)] {
        let link = peapod_netd::links::alias::link_name(&pod.reference.uid);
        site.node(node)
            .here
            .ip(&format!("link set {link} mtu 1500"));
        pod.netns.ip("link set eth0 mtu 1500");
    }
    stream(&a, &c);
    stream(&c, &a);
}

#[test]
fn tunnels_run_over_ipv6_too() {
    let site = Site::v6_only();
    site.encapsulate("VXLAN");
    let site = site.with_agents();
    let (a, c) = (site.node(1).pod("a"), site.node(3).pod("c"));
    assert_eq!((a.reply.mtu, c.reply.mtu), (1430, 1430));
    meet(&a, &c);
    fill(&a, &c);
    let cut = site.node(1).fragments() + site.node(3).fragments();
    assert_eq!(cut, 0, "packets of full size fit the tunnel");
}

/// Drops what it does not know, as firewalls of distributions and of Docker do.
const FIREWALL: &str = "
table inet other {
  chain forwarding { type filter hook forward priority 0; policy drop; }
  chain incoming {
    type filter hook input priority 0; policy drop;
    ct state established accept
    tcp dport 30080 accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
}";

#[test]
fn firewalls_let_packets_between_nodes_pass() {
    let site = Site::start();
    let (a, b, c) = (
        site.node(1).pod("a"),
        site.node(2).pod("b"),
        site.node(3).pod("c"),
    );
    site.serve(&[(2, &b), (3, &c)]);
    for number in 1..=3 {
        site.node(number).here.run(|| nft(FIREWALL));
    }
    for pod in [&b, &c] {
        eventually("pods reach each other", || {
            let asked = a.netns.ask_tcp_within(&server(pod, 0), SILENCE);
            asked.is_ok().then_some(())
        });
        meet(&a, pod);
    }
    // From outside by a node port of a node that has no endpoint, to endpoints on both others.
    let mut seen = BTreeSet::new();
    eventually("each endpoint answers", || {
        let asked = site.router.ask_tcp_within("192.0.2.11:30080", SILENCE);
        let (name, from) = asked.ok()?;
        assert_eq!(from.to_string(), "192.0.2.11");
        seen.insert(name);
        (seen.len() == 2).then_some(())
    });
}

#[test]
fn a_service_leads_to_endpoints_of_other_nodes() {
    let site = Site::start();
    let (a, c) = (site.node(1).pod("a"), site.node(3).pod("c"));
    site.serve(&[(3, &c)]);
    for (at, address) in [(0, "10.96.1.1:80"), (1, "[fd00:10:96::11]:80")] {
        let asked = eventually("the service is known", || {
            a.netns.ask_tcp_within(address, SILENCE).ok()
        });
        assert_eq!(asked, ("c".to_owned(), a.reply.ips[at]));
        let (_, seen) = site.node(1).here.ask_tcp(address).unwrap();
        assert_eq!(seen.to_string(), site.node(1).ips[at]);
    }
    // A client outside is answered through the node that it asked.
    let asked = site.router.ask_tcp("192.0.2.11:30080").unwrap();
    assert_eq!(asked, ("c".to_owned(), "192.0.2.11".parse().unwrap()));
    let asked = site.router.ask_tcp("[2001:db8:a::11]:30080").unwrap();
    assert_eq!(asked, ("c".to_owned(), "2001:db8:a::11".parse().unwrap()));
}
