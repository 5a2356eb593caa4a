//! Our router in network namespaces, with real sockets and a real kernel: with other daemons, with
//! links that fail, with neighbours that misbehave.

mod bad_peers;
mod flaps;
mod gtsm;
mod interop;
mod next_hops;
mod reconfigured;
