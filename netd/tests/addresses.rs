//! The cluster's addresses in the kernel's sets, whatever comes after whatever.

mod support;

use ipnet::IpNet;
use peapod_netd::nat::{Nat, NatConfig, Ranges};
use support::Namespace;

#[test]
fn sets_of_addresses_follow_nodes_that_come_and_go() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let config = NatConfig {
            service_cidrs: Vec::new(),
            private_ips: Vec::new(),
            source_ips: Vec::new(),
            ipv6: true,
            foreign_links: false,
        };
        let (mut nat, _) = Nat::open(&config).unwrap();
        let block: IpNet = "10.244.1.0/24".parse().unwrap();
        // Every set of four neighbours after every other: adjacent ranges merge and part.
        for first in 0u8..16 {
            for second in 0u8..16 {
                for members in [first, second] {
                    let nodes = (0..4).filter(|bit| members >> bit & 1 == 1);
                    let cluster: Vec<IpNet> = nodes
                        .flat_map(|n| {
                            [
                                format!("10.0.0.{}/32", n + 1),
                                format!("fd00::{}/128", n + 1),
                            ]
                        })
                        .map(|net| net.parse().unwrap())
                        .collect();
                    nat.set_ranges(ranges(&[block], &cluster)).unwrap();
                }
            }
        }
        drop(nat);
        // What is read back is what was written, or this would be refused.
        let (mut again, _) = Nat::open(&config).unwrap();
        again.set_ranges(ranges(&[block], &[])).unwrap();
    });
}

fn ranges<'a>(blocks: &'a [IpNet], cluster: &'a [IpNet]) -> Ranges<'a> {
    Ranges {
        blocks,
        cluster,
        masqueraded: blocks,
        ..Ranges::default()
    }
}
