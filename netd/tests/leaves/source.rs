//! The source address that what is outside of the cluster sees of a pod, and that it stays the same
//! when a leg of the node's ECMP goes.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::rack::{BEYOND_V4, BEYOND_V6, BLOCK_V4, Links, Make, Rack, Shape};
use crate::support::{NODE_V4, NODE_V6, Namespace, OUTSIDE, PATIENCE, UPLINK, eventually};

/// Connections over the leaves: each leaf has some of them but for a chance of one in 30,000.
const CONNECTIONS: usize = 16;

/// A rack with machines beyond the leaves that say by which address they are asked.
fn rack() -> Rack {
    let rack = Rack::new(Shape {
        make: Make::Frr,
        links: Links::Unnumbered,
        bfd: false,
        far: true,
    });
    rack.node.api.put(json!({
        "apiVersion": "net.peapod.dev/v1", "kind": "BgpConfig", "metadata": {"name": "default"},
        "spec": {"announce": {"podCIDRs": true, "services": true, "nodeIPs": true}},
    }));
    rack.leaf_has(1, NODE_V4);
    rack.leaf_has(2, NODE_V4);
    rack.lab
        .kernel_route("far", NODE_V4, &["10.1.1.2", "10.1.2.2"]);
    let far = Namespace::at(&rack.lab.space_file("far"));
    far.serve_tcp("far", 80);
    far.run(echo);
    rack.node.outside.serve_tcp("outside", 80);
    rack
}

/// Has pods' packets leave the cluster so.
fn nat_outgoing(rack: &Rack, wanted: Option<bool>) {
    for (name, cidr) in [("v4", "10.244.0.0/16"), ("v6", "fd00:10:244::/56")] {
        rack.node.api.put(json!({
            "apiVersion": "net.peapod.dev/v1", "kind": "IpPool", "metadata": {"name": name},
            "spec": {"cidr": cidr, "natOutgoing": wanted},
        }));
    }
}

/// Waits until those beyond the leaves, in both families, and one on another link see the pod so.
fn seen(rack: &Rack, beyond: [IpAddr; 2], outside: IpAddr) {
    let netns = &rack.pod.netns;
    let beyond_at = [format!("{BEYOND_V4}:80"), format!("[{BEYOND_V6}]:80")];
    for (at, wanted) in beyond_at.iter().zip(beyond) {
        eventually(&format!("{at} sees {wanted}"), || {
            let (name, client) = netns.ask_tcp(at).unwrap();
            assert_eq!(name, "far");
            (client == wanted).then_some(())
        });
    }
    eventually(&format!("outside sees {outside}"), || {
        let (_, client) = netns.ask_tcp(&format!("{OUTSIDE}:80")).unwrap();
        (client == outside).then_some(())
    });
}

/// Says back what it hears, on port 81.
fn echo() {
    let listener = TcpListener::bind("[::]:81").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..length]);
                }
            });
        }
    });
}

/// Connections that are open when a leg goes, and when it is back, go on.
fn connections_outlive_a_leg(rack: &Rack) {
    let connect = || TcpStream::connect((BEYOND_V4, 81)).unwrap();
    let open = || (0..CONNECTIONS).map(|_| connect()).collect::<Vec<_>>();
    let mut streams = rack.pod.netns.run(open);
    let mut say = |when: &str| {
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"?").unwrap();
            let heard = stream.read_exact(&mut [0]);
            heard.unwrap_or_else(|error| panic!("{when}: connection {number}: {error}"));
        }
    };
    say("at first");
    for leaf in 1..=2 {
        rack.lab.set_link("node", &format!("leaf{leaf}"), false);
        rack.node_uses(&[3 - leaf]);
        say(&format!("leaf{leaf} is gone"));
        rack.lab.set_link("node", &format!("leaf{leaf}"), true);
        rack.complete();
        say(&format!("leaf{leaf} is back"));
    }
}

#[test]
fn pods_keep_their_addresses_where_the_fabric_knows_them() {
    let rack = rack();
    let own = [rack.pod.v4(), rack.pod.v6()];
    let uplink: IpAddr = UPLINK.parse().unwrap();
    seen(&rack, own, uplink);
    connections_outlive_a_leg(&rack);
    nat_outgoing(&rack, Some(false));
    rack.node
        .outside
        .ip(&format!("route add {BLOCK_V4} via {UPLINK}"));
    seen(&rack, own, own[0]);
}

#[test]
fn masqueraded_connections_outlive_a_leg() {
    let rack = rack();
    nat_outgoing(&rack, Some(true));
    let node = [NODE_V4, NODE_V6].map(|ip| ip.parse().unwrap());
    seen(&rack, node, UPLINK.parse().unwrap());
    connections_outlive_a_leg(&rack);
    // Whose blocks nobody announces any more has the node's address, too.
    nat_outgoing(&rack, None);
    rack.node.api.put(json!({
        "apiVersion": "net.peapod.dev/v1", "kind": "BgpConfig", "metadata": {"name": "default"},
        "spec": {"announce": {"podCIDRs": false, "services": true, "nodeIPs": true}},
    }));
    seen(&rack, node, UPLINK.parse().unwrap());
}
