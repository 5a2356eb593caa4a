//! A BGP neighbour over a real socket that says what it is told to, well-formed or not.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use ipnet::Ipv4Net;
use peapod_bgp::types::{
    AsPath, Capability, Family, Message, NextHop, Nlri, Notification, Open, PathAttributes,
};
use peapod_bgp::wire::{self, Session};

/// The neighbour's end of a session.
#[derive(Debug)]
pub struct Neighbor {
    stream: TcpStream,
    session: Session,
    buffer: BytesMut,
    asn: u32,
}

/// What its OPEN says.
pub fn open(asn: u32, router_id: Ipv4Addr) -> Open {
    let families = [Capability::MultiProtocol(Family::IPV4_UNICAST)];
    Open::new(asn, 90, router_id, families)
}

impl Neighbor {
    /// Connects and comes up as a neighbour of this AS.
    ///
    /// # Errors
    /// If the router does not want it.
    pub fn connect(to: SocketAddr, asn: u32, router_id: Ipv4Addr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let ours = open(asn, router_id);
        let mut neighbor = Neighbor {
            stream,
            session: Session::before_open(),
            buffer: BytesMut::new(),
            asn,
        };
        neighbor.say(&Message::Open(ours.clone()))?;
        neighbor.say(&Message::Keepalive)?;
        loop {
            match neighbor.hear()? {
                Message::Open(theirs) => neighbor.session = Session::negotiate(&ours, &theirs),
                Message::Keepalive => return Ok(neighbor),
                other => return Err(io::Error::other(other.to_string())),
            }
        }
    }

    /// Says a message.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn say(&mut self, message: &Message) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(message, &self.session, &mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)
    }

    /// Says octets.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn say_octets(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// The octets of an UPDATE that announces prefixes by way of a next hop.
    pub fn announcement(&self, next_hop: Ipv4Addr, prefixes: &[Ipv4Net]) -> Vec<u8> {
        let path = AsPath::sequence([self.asn]);
        announcement(&self.session, path, next_hop, prefixes.iter().copied())
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// If the connection is gone, or what comes is no BGP.
    pub fn hear(&mut self) -> io::Result<Message> {
        loop {
            let cut = wire::split(&mut self.buffer, &self.session);
            if let Some(message) = cut.map_err(refused)? {
                return wire::decode(&message, &self.session).map_err(refused);
            }
            let mut chunk = [0; 65_536];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// A second handle of its connection.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// What was agreed on.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

fn refused(notification: Notification) -> io::Error {
    io::Error::other(notification.to_string())
}

/// The octets of UPDATEs that announce prefixes.
pub fn announcement(
    session: &Session,
    as_path: AsPath,
    next_hop: Ipv4Addr,
    prefixes: impl IntoIterator<Item = Ipv4Net>,
) -> Vec<u8> {
    let attributes = PathAttributes {
        as_path,
        next_hop: Some(NextHop::V4(next_hop)),
        ..PathAttributes::default()
    };
    let prefixes = prefixes.into_iter().map(Nlri::new);
    let mut bytes = BytesMut::new();
    let family = Family::IPV4_UNICAST;
    wire::announce(session, &attributes, family, prefixes, &mut bytes).expect("it fits");
    bytes.to_vec()
}
