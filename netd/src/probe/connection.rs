//! The kernel's memory of a connection: where it was led by the service map.

use std::net::SocketAddr;

use peapod_nft::{Error, Family, Nft};
use serde::{Deserialize, Serialize};

/// A connection, as its first packet was sent and as its answers come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracked {
    /// Where the first packet came from.
    pub source: SocketAddr,
    /// Where it was sent, before any translation.
    pub destination: SocketAddr,
    /// Where answers come from.
    pub answered_by: SocketAddr,
}

/// The connection with these ends; ICMP has none.
///
/// # Errors
/// If the kernel does not tell.
pub fn find(source: SocketAddr, destination: SocketAddr) -> Result<Option<Tracked>, Error> {
    let family = match source {
        SocketAddr::V4(_) => Family::Ip,
        SocketAddr::V6(_) => Family::Ip6,
    };
    let end = |(ip, port)| SocketAddr::new(ip, port);
    let found = Nft::open()?.connections(family, |one| {
        end(one.source) == source && end(one.destination) == destination
    })?;
    Ok(found.first().map(|one| Tracked {
        source,
        destination,
        answered_by: end(one.answered_by),
    }))
}
