//! The kernel's links, addresses and routes, over rtnetlink.
//!
//! [`message`] is the encoding, by hand, because half a million routes are written with it;
//! [`routes`] installs, in batches with one acknowledgement, pointing to the objects of
//! [`nexthops`]; [`links`] knows the interfaces and hears of changes; [`news`] hears what others do
//! to our routes; [`reach`] knows the ways to next hops that are on no link; [`neighbors`] has
//! link-layer addresses asked for; [`fib`] sees to it that the kernel has what it should.

pub mod fib;
pub mod links;
mod message;
pub mod neighbors;
pub mod news;
mod nexthops;
pub mod reach;
pub mod routes;

/// The routing protocol under which routes are installed (`RTPROT_BGP`).
pub const PROTOCOL_BGP: u8 = 186;
/// The main routing table.
const TABLE_MAIN: u8 = 254;
/// Metric of our routes: lower than the kernel's default for IPv6, the usual one of BGP.
const METRIC: u32 = 20;
