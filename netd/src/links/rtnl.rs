//! The rtnetlink socket, and the messages that the rest of `links` is made of: what is read
//! ([`list`]) and what is changed ([`change`], [`tunnel`], [`ways`]).
//!
//! The one module that knows `netlink-packet-route`, which changes often. Requests go out in
//! batches: one system call for all steps of connecting a pod.

mod change;
mod list;
pub mod tunnel;
pub mod ways;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use self::change::{
    NewRoute, add_address, add_link_local_address, add_veth, delete_address, delete_link,
    delete_route, replace_route, set_alias, set_up,
};
pub use self::list::{Link, Route};
use super::Error;

const RECEIVE_BYTES: usize = 64 * 1024;

/// A request and what it is for.
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
    /// An error number that means it is already as asked.
    tolerated: Option<i32>,
}

/// A connection to rtnetlink in the network namespace of the thread that opened it.
pub struct Rtnl {
    socket: Socket,
    port: u32,
    sequence: u32,
}

impl Rtnl {
    /// Opens one.
    pub fn open() -> Result<Self, Error> {
        let connect = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let own = socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok((socket, own.port_number()))
        };
        let (socket, port) = connect().map_err(Error::Open)?;
        Ok(Rtnl {
            socket,
            port,
            sequence: 0,
        })
    }

    /// The netlink port that requests come from.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests as one message and waits for all answers. All are tried; the first
    /// error is returned.
    pub fn run(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        for request in &requests {
            self.append(
                &mut bytes,
                request.message.clone(),
                request.flags | NLM_F_ACK,
            );
        }
        let what = || {
            requests
                .first()
                .map_or_else(String::new, |r| r.what.clone())
        };
        self.send(&bytes, &what)?;
        let mut outcome = Ok(());
        let mut answered = 0;
        while answered < requests.len() {
            for answer in self.receive(&what)? {
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                answered += 1;
                let at = answer.header.sequence_number.wrapping_sub(first) as usize;
                let Some(request) = requests.get(at) else {
                    continue;
                };
                let errno = error.code.map_or(0, |code| -code.get());
                if errno != 0 && request.tolerated != Some(errno) && outcome.is_ok() {
                    outcome = Err(refused(&request.what, errno));
                }
            }
        }
        outcome
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.ask(message, NLM_F_DUMP, what)
    }

    /// Sends one request and gathers its answers, to the end of the dump or the first error.
    pub(crate) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        let what = || what.to_owned();
        self.send(&bytes, &what)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive(&what)? {
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(found),
                        Some(code) => return Err(refused(&what(), -code.get())),
                    },
                    _ => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], what: &dyn Fn() -> String) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0);
        sent.map(|_| ()).map_err(|source| Error::Refused {
            what: what(),
            source,
        })
    }

    fn receive(
        &self,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket
            .recv(&mut buffer, 0)
            .map_err(|source| Error::Refused {
                what: what(),
                source,
            })?;
        let mut messages = Vec::new();
        let mut rest = &buffer[..];
        while rest.len() >= 16 {
            let message = NetlinkMessage::deserialize(rest).map_err(|error| Error::Malformed {
                what: what(),
                detail: error.to_string(),
            })?;
            let length = (message.header.length as usize).next_multiple_of(4);
            messages.push(message);
            rest = rest.get(length.max(16)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

// === impl Request ===

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16, what: String) -> Self {
        Request {
            message,
            flags,
            what,
            tolerated: None,
        }
    }

    /// Makes this error number a success.
    fn tolerating(mut self, errno: i32) -> Self {
        self.tolerated = Some(errno);
        self
    }
}

fn refused(what: &str, errno: i32) -> Error {
    Error::Refused {
        what: what.to_owned(),
        source: io::Error::from_raw_os_error(errno),
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}
