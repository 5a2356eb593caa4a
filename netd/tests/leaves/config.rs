//! The configurations of the leaves.

use crate::rack::{BFD_MS, FAR_V4, FAR_V6, Links, NODE_AS, Shape};

/// A leaf of FRR with an unnumbered neighbour at the other end of each link, watched by BFD.
pub fn frr_of_rack(leaf: u8, links: &[String]) -> String {
    let all =
        |line: &dyn Fn(&str) -> String| -> String { links.iter().map(|on| line(on)).collect() };
    let interfaces =
        all(&|on| format!("interface {on}\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\n"));
    let neighbors = all(&|on| {
        format!(
            " neighbor {on} interface remote-as external\n neighbor {on} timers connect 1\n \
             neighbor {on} bfd profile fast\n"
        )
    });
    let active = all(&|on| format!("  neighbor {on} activate\n"));
    let families = ["ipv4", "ipv6"]
        .map(|family| format!(" address-family {family} unicast\n{active} exit-address-family\n"));
    format!(
        "hostname leaf{leaf}\nbfd\n profile fast\n  transmit-interval {BFD_MS}\n  \
         receive-interval {BFD_MS}\n{interfaces}router bgp {}\n bgp router-id 192.0.2.{leaf}\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n{neighbors}{}",
        asn(leaf),
        families.concat()
    )
}

/// The same of BIRD.
pub fn bird_of_rack(leaf: u8, links: &[String]) -> String {
    let neighbors: String = links
        .iter()
        .enumerate()
        .map(|(number, on)| {
            format!(
                "protocol bgp b{number} {{ local as {}; neighbor range fe80::/10 external; \
                 interface \"{on}\"; bfd on; error wait time 1, 2; ipv4 {{ import all; export all; extended next hop on; }}; \
                 ipv6 {{ import all; export all; }}; }}\n",
                asn(leaf)
            )
        })
        .collect();
    let kernel = ["ipv4", "ipv6"].map(|family| {
        format!("protocol kernel {{ {family} {{ export where source = RTS_BGP; }}; }}\n")
    });
    format!(
        "router id 192.0.2.{leaf};\nprotocol device {{}}\n\
         protocol radv {{ interface \"to-*\" {{ min ra interval 3; max ra interval 4; }}; }}\n\
         protocol bfd {{ interface \"to-*\" {{ interval {BFD_MS} ms; multiplier 3; }}; }}\n{neighbors}{}",
        kernel.concat()
    )
}

fn asn(leaf: u8) -> u32 {
    65_100 + u32::from(leaf)
}

/// The neighbours: the node for each family, then the router behind.
fn neighbors(leaf: u8, shape: Shape) -> Vec<(String, &'static str)> {
    let at = |net: u8| {
        [
            (format!("10.{net}.{leaf}.1"), "ipv4"),
            (format!("fd0{net}:{leaf}::1"), "ipv6"),
        ]
    };
    let mut all = Vec::new();
    if shape.links == Links::Numbered {
        all.extend(at(0));
    }
    if shape.far {
        all.extend(at(1));
    }
    all
}

pub fn frr(leaf: u8, shape: Shape) -> String {
    let mut all = neighbors(leaf, shape);
    if shape.links == Links::Unnumbered {
        all.push(("to-node".to_owned(), "ipv4"));
        all.push(("to-node".to_owned(), "ipv6"));
    }
    let mut peers = String::new();
    for (at, _) in &all {
        let interface = if at == "to-node" { "interface " } else { "" };
        peers += &format!(" neighbor {at} {interface}remote-as external\n");
        peers += &format!(" neighbor {at} timers connect 1\n");
        if shape.bfd {
            // The second line: what BFD says does not end a graceful restart, unless the other
            // end says that its BFD and its forwarding share a fate.
            peers += &format!(" neighbor {at} bfd profile fast\n");
            peers += &format!(" neighbor {at} bfd check-control-plane-failure\n");
        }
    }
    let family = |family: &str, network: &str| {
        let members = all.iter().filter(|(_, of)| *of == family);
        let active: String = members
            .map(|(at, _)| format!("  neighbor {at} activate\n"))
            .collect();
        let network = if shape.far {
            String::new()
        } else {
            format!("  network {network}\n")
        };
        format!(" address-family {family} unicast\n{active}{network} exit-address-family\n")
    };
    let bfd = match shape.bfd {
        true => format!(
            "bfd\n profile fast\n  transmit-interval {BFD_MS}\n  receive-interval {BFD_MS}\n"
        ),
        false => String::new(),
    };
    format!(
        "hostname leaf{leaf}\n{bfd}interface to-node\n ipv6 nd ra-interval 1\n \
         no ipv6 nd suppress-ra\nrouter bgp {}\n bgp router-id 192.0.2.{leaf}\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n{peers}{}{}",
        asn(leaf),
        family("ipv4", FAR_V4),
        family("ipv6", FAR_V6)
    )
}

pub fn bird(leaf: u8, shape: Shape) -> String {
    let bfd = match shape.bfd {
        // What BFD says begins a graceful restart, if one was agreed on.
        true => "bfd graceful;",
        false => "",
    };
    let common = format!(
        "local as {}; connect retry time 1; connect delay time 1; {bfd}",
        asn(leaf)
    );
    let channel = |family: &str, more: &str| {
        format!("{family} {{ import all; export where source ~ [RTS_STATIC, RTS_BGP]; {more} }};")
    };
    let numbered = |(number, (at, family)): (usize, (String, &str))| {
        format!(
            "protocol bgp b{number} {{ {common} neighbor {at} external; {} }}\n",
            channel(family, "")
        )
    };
    let all = neighbors(leaf, shape).into_iter().enumerate();
    let mut text = format!("router id 192.0.2.{leaf};\nprotocol device {{}}\n");
    text.extend(all.map(numbered));
    if shape.links == Links::Unnumbered {
        text += &format!(
            "protocol radv {{ interface \"to-node\" {{ min ra interval 3; max ra interval 4; }}; }}\n\
             protocol bgp node {{ {common} neighbor range fe80::/10 external; \
             interface \"to-node\"; {} {} }}\n",
            channel("ipv4", "extended next hop on;"),
            channel("ipv6", "")
        );
    }
    if shape.bfd {
        text += &format!(
            "protocol bfd {{ interface \"to-*\" {{ interval {BFD_MS} ms; multiplier 3; }}; }}\n"
        );
    }
    for (family, network) in [("ipv4", FAR_V4), ("ipv6", FAR_V6)] {
        text += &format!("protocol kernel {{ {family} {{ export where source = RTS_BGP; }}; }}\n");
        if !shape.far {
            text += &format!("protocol static {{ {family}; route {network} blackhole; }}\n");
        }
    }
    text
}

pub fn gobgp(leaf: u8, shape: Shape) -> String {
    let neighbor = |at: String, families: &[&str]| {
        let families = families.iter().map(|family| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                 afi-safi-name = \"{family}-unicast\"\n"
            )
        });
        format!(
            "[[neighbors]]\n[neighbors.config]\n{at}\npeer-as = {NODE_AS}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n{}",
            families.collect::<String>()
        )
    };
    let numbered = |(at, family)| neighbor(format!("neighbor-address = \"{at}\""), &[family]);
    let mut all: String = neighbors(leaf, shape).into_iter().map(numbered).collect();
    if shape.links == Links::Unnumbered {
        let at = "neighbor-interface = \"to-node\"".to_owned();
        all += &neighbor(at, &["ipv4", "ipv6"]);
    }
    format!(
        "[global.config]\nas = {}\nrouter-id = \"192.0.2.{leaf}\"\n{all}",
        asn(leaf)
    )
}
