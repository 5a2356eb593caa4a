//! GTSM (RFC 5082) from the first packet of a connection on: a filter of the listening sockets drops
//! what a neighbour sends that may have come from afar.
//!
//! What a connection itself demands of its packets counts only from when it was accepted: what came
//! before would be heard.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::sys::Filter;

/// Rules of a family, at most: as many as fit what the kernel lets a socket have (`optmem_max`).
const RULES: usize = 128;

/// The least TTL of packets from some addresses; 0 is any.
pub(crate) type Rule = (IpNet, u8);

/// The filter for sockets of a family, of several rules the narrowest; `None` if all is let through.
pub(crate) fn program(rules: &[Rule], ipv6: bool) -> Option<Vec<Filter>> {
    let mut rules: Vec<&Rule> = rules
        .iter()
        .filter(|(peers, _)| peers.addr().is_ipv6() == ipv6)
        .collect();
    rules.sort_by_key(|(peers, _)| std::cmp::Reverse(peers.prefix_len()));
    let demanding: Vec<&IpNet> = rules
        .iter()
        .filter(|(_, least)| *least > 0)
        .map(|(peers, _)| peers)
        .collect();
    // An exception is needed only where there is a rule.
    let needed = |(peers, least): &&&Rule| {
        *least > 0 || demanding.iter().any(|others| others.contains(peers))
    };
    let needed: Vec<&&Rule> = rules.iter().filter(needed).collect();
    if needed.len() > RULES {
        tracing::warn!(
            rules = needed.len(),
            "too many neighbours with ttlSecurity: that of some counts only from when they are accepted"
        );
    }
    let program: Vec<Filter> = needed
        .into_iter()
        .take(RULES)
        .flat_map(|(peers, least)| rule(peers, *least))
        .collect();
    (!program.is_empty()).then(|| [program, vec![Filter::take(u32::MAX)]].concat())
}

/// One rule: packets of others go on behind it.
fn rule(peers: &IpNet, least: u8) -> Vec<Filter> {
    let (source, ttl) = match peers {
        IpNet::V4(_) => (12, 8),
        IpNet::V6(_) => (8, 7),
    };
    let words = words(peers);
    // For each word three instructions, then four for the TTL.
    let behind = words.len() * 3 + 4;
    let mut program = Vec::with_capacity(behind);
    for (at, (value, mask)) in words.into_iter().enumerate() {
        let offset = source + u32::try_from(at * 4).unwrap_or(0);
        let skip = u8::try_from(behind - at * 3 - 3).unwrap_or(0);
        program.extend([
            Filter::network_word(offset),
            Filter::and(mask),
            Filter::if_equal(value, 0, skip),
        ]);
    }
    program.extend([
        Filter::network_octet(ttl),
        Filter::if_at_least(least.into(), 1, 0),
        Filter::take(0),
        Filter::take(u32::MAX),
    ]);
    program
}

/// The words of a prefix that count, each with its mask.
fn words(peers: &IpNet) -> Vec<(u32, u32)> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let word = |four: &[u8]| {
        four.iter()
            .fold(0, |word, octet| word << 8 | u32::from(*octet))
    };
    let values = octets(peers.network());
    let masks = octets(peers.netmask());
    let all = values.chunks(4).zip(masks.chunks(4));
    all.map(|(value, mask)| (word(value), word(mask)))
        .filter(|(_, mask)| *mask != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a filter makes of a packet, of whose network header these are the octets.
    fn passes(program: &[Filter], header: &[u8]) -> bool {
        let (mut at, mut held) = (0, 0u32);
        loop {
            let (code, yes, no, k) = program[at].parts();
            at += 1;
            let network = k.wrapping_sub(libc::SKF_NET_OFF as u32) as usize;
            let jump = |holds: bool| usize::from(if holds { yes } else { no });
            match u32::from(code) & 0x67 {
                // BPF_LD
                0x00 => {
                    held = header[network..network + 4]
                        .iter()
                        .fold(0, |a, b| a << 8 | u32::from(*b))
                }
                0x20 if u32::from(code) & 0x18 == 0x10 => held = header[network].into(),
                0x20 => {
                    held = header[network..network + 4]
                        .iter()
                        .fold(0, |a, b| a << 8 | u32::from(*b))
                }
                // BPF_ALU | BPF_AND
                0x04 => held &= k,
                0x44 => held &= k,
                // BPF_RET
                0x06 => return k != 0,
                _ if u32::from(code) == libc::BPF_JMP | libc::BPF_JEQ => at += jump(held == k),
                _ => at += jump(held >= k),
            }
        }
    }

    fn packet(from: &str, ttl: u8) -> Vec<u8> {
        let mut header = vec![0; 40];
        match from.parse().unwrap() {
            IpAddr::V4(from) => {
                header[8] = ttl;
                header[12..16].copy_from_slice(&from.octets());
            }
            IpAddr::V6(from) => {
                header[7] = ttl;
                header[8..24].copy_from_slice(&from.octets());
            }
        }
        header
    }

    #[test]
    fn the_narrowest_rule_decides() {
        let rules: Vec<Rule> = [
            ("10.0.0.0/24", 255),
            ("10.0.0.9/32", 0),
            ("10.1.0.1/32", 254),
            ("10.2.0.1/32", 0),
            ("fe80::1/128", 255),
            ("fd00:1::/30", 250),
        ]
        .map(|(peers, least)| (peers.parse().unwrap(), least))
        .into();
        for (from, ttl, heard) in [
            ("10.0.0.1", 255, true),
            ("10.0.0.1", 254, false),
            ("10.0.0.9", 1, true),
            ("10.1.0.1", 253, false),
            ("10.1.0.1", 254, true),
            ("10.2.0.1", 1, true),
            ("192.0.2.1", 1, true),
            ("fe80::1", 254, false),
            ("fe80::1", 255, true),
            ("fe80::2", 1, true),
            ("fd00:2::1", 1, false),
            ("fd00:5::1", 1, true),
        ] {
            let program = program(&rules, from.contains(':')).unwrap();
            assert_eq!(passes(&program, &packet(from, ttl)), heard, "{from} {ttl}");
        }
        assert!(program(&rules[3..4], false).is_none());
    }
}
