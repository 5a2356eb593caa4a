//! How many connections still go through a node that leaves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use peapod_nft::{Connection, Error, Family, Nft};

/// How often they are counted, while the node leaves and only then: the kernel says of no
/// connection that it was the last one.
pub const EVERY: Duration = Duration::from_secs(1);

const TCP: u8 = 6;
/// `TCP_CONNTRACK_SYN_SENT` to `TCP_CONNTRACK_LAST_ACK`: at least one end has more to say.
const OPEN: std::ops::RangeInclusive<u8> = 1..=6;

/// TCP connections to these addresses, of clients that have none of `inside`.
///
/// # Errors
/// If the kernel does not tell.
pub fn connections(services: &BTreeSet<IpAddr>, inside: &[IpNet]) -> Result<u32, Error> {
    let mut nft = Nft::open()?;
    let mut count = 0;
    for family in [Family::Ip, Family::Ip6] {
        let found = nft.connections(family, |one| is_open(one, services, inside))?;
        count += found.len();
    }
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// One that was handed over is another node's: where answers come from is where it was sent.
fn is_open(one: &Connection, services: &BTreeSet<IpAddr>, inside: &[IpNet]) -> bool {
    one.protocol == TCP
        && one.tcp_state.is_some_and(|state| OPEN.contains(&state))
        && services.contains(&one.destination.0)
        && one.answered_by != one.destination
        && !inside.iter().any(|range| range.contains(&one.source.0))
}
