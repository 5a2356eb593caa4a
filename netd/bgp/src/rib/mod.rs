//! The tables: what peers say (adj-RIB-in), what holds (loc-RIB), what peers are told
//! (adj-RIB-out).
//!
//! One table per family holds the first two: under each prefix stand the paths of all peers, with
//! a mark at those that were chosen. It is made for half a million prefixes: a prefix is a small
//! number ([`index`]), routes of equal attributes are one object ([`route`]), and a prefix with
//! one path takes 32 bytes beside its key ([`table`]).

mod chunked;
mod export;
mod forwarding;
mod group;
pub mod index;
mod path_ids;
pub mod paths;
pub mod pending;
pub mod route;
pub mod select;
pub mod table;

pub use export::{Egress, Local};
pub use forwarding::{NextHops, RouteChange};
pub use group::{Group, OutRoute, Target};
pub use index::{PrefixIndex, Slot};
pub use paths::{Choice, Freshness, Path, Paths};
pub use pending::Pending;
pub use route::{Gateway, PeerId, Refusal, Route, Routes, Source, SourceKind};
pub use select::{Reason, Verdict};
pub use table::Table;
