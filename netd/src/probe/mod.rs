//! What the way of a packet is, asked of the kernel and tried with real packets.
//!
//! Everything here works in the network namespace of the calling thread and changes nothing:
//! [`route`] asks which route a flow takes, [`send`] sends probes with growing hop limits and
//! tells who answers ([`packet`] has their bytes, [`socket`] the system calls), [`connection`]
//! where one was led. What to make of it is the caller's.

pub mod connection;
pub mod packet;
pub mod route;
pub mod send;
mod socket;
