//! SPDY/3.1, as far as Kubernetes' clients still speak it: streams over one connection, for
//! port-forwarding and older exec.
//!
//! [`frame`] turns bytes into frames and back, [`headers`] the compressed header blocks in them,
//! [`dictionary`] is the text that both sides of the compression know; all three are pure.
//! [`session`] runs the accepting side over any byte stream.
//!
//! Priorities, push, settings and flow-control windows are read and not acted on: the peers
//! (`moby/spdystream`) do not use them. What bounds memory here is the queue of each stream,
//! behind which the whole connection waits.
//!
//! The crate must not know Kubernetes.
//! <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>

pub mod dictionary;
pub mod frame;
pub mod headers;
pub mod session;

pub use frame::{Decoder, Encoder, Error, Frame};
pub use headers::Headers;
pub use session::{Session, Stream};
