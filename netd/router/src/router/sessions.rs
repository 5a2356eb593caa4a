//! Connections with neighbours: made, taken, and what arrives by them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use peapod_bgp::config::NeighborOptions;
use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::{Endpoint, Input};
use tokio::net::TcpStream;

use super::Router;
use crate::gtsm::Rule;
use crate::kernel::routes::needs_link;
use crate::transport::{Call, Event, Ttl, demand_signature, socket_address};

impl Router {
    /// Has the kernel drop what neighbours with `ttlSecurity` send that may come from afar.
    pub(super) fn guard(&mut self) {
        let least = |options: &NeighborOptions| Ttl::of(options, true).least.unwrap_or(0);
        let ranges = self.config.ranges.iter();
        let mut rules: Vec<Rule> = ranges
            .map(|range| (range.prefix, least(&range.options)))
            .collect();
        for peer in self.speaker.peers() {
            if let Some(address) = peer.address
                && let Some(options) = self.speaker.peer_options(peer.id)
            {
                rules.push((address.into(), least(options)));
            }
        }
        self.transport.guard(&rules);
    }

    pub(super) fn connect(&mut self, peer: PeerId, address: IpAddr) {
        let Some(options) = self.speaker.peer_options(peer) else {
            return;
        };
        let interface = self.speaker.peer_interface(peer);
        let index = interface.and_then(|name| self.links.index(name));
        let call = Call {
            peer,
            to: socket_address(address, options.port, index),
            source: options.source,
            password: options.password.clone(),
            ttl: Ttl::of(options, options.external(self.config.asn)),
            on_link: index.or_else(|| self.links.reaching(address).map(|(number, _)| number)),
        };
        self.transport.connect(call);
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, from) => self.accepted(stream, from),
            Event::Connected(peer, stream) => self.connected(peer, stream),
            Event::ConnectFailed(peer, error) => {
                tracing::debug!(peer = self.speaker.peer_name(peer), %error, "cannot connect");
                self.handle(Input::ConnectFailed { peer });
            }
            Event::Received(connection, bytes) => {
                if let Some(fib) = &mut self.fib {
                    fib.heard_something();
                }
                self.handle(Input::Received { connection, bytes });
            }
            Event::Sent(connection, bytes) => self.handle(Input::Sent { connection, bytes }),
            Event::Closed(connection) => {
                self.transport.close(connection);
                self.handle(Input::Closed { connection });
            }
        }
    }

    pub(super) fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let Ok(endpoint) = self.endpoint(&stream, from) else {
            return;
        };
        let Some(options) = self.speaker.options_at(&endpoint) else {
            return;
        };
        let ttl = Ttl::of(options, options.external(self.config.asn));
        if let Some(key) = &options.password
            && let Err(error) = demand_signature(&stream, from.ip(), key)
        {
            tracing::warn!(%from, %error, "refusing a connection that cannot be signed");
            return;
        }
        if let Ok(connection) = self.transport.open(stream, ttl) {
            self.handle(Input::Accepted {
                connection,
                endpoint,
            });
        }
    }

    pub(super) fn connected(&mut self, peer: PeerId, stream: TcpStream) {
        let opened = stream.peer_addr().and_then(|to| self.endpoint(&stream, to));
        let Some(options) = self.speaker.peer_options(peer) else {
            return;
        };
        let ttl = Ttl::of(options, options.external(self.config.asn));
        let opened = opened.and_then(|endpoint| Ok((self.transport.open(stream, ttl)?, endpoint)));
        self.handle(match opened {
            Ok((connection, endpoint)) => Input::Connected {
                peer,
                connection,
                endpoint,
            },
            Err(_) => Input::ConnectFailed { peer },
        });
    }

    /// The ends of a connection, and our other addresses on its link.
    pub(super) fn endpoint(&self, stream: &TcpStream, remote: SocketAddr) -> io::Result<Endpoint> {
        let local = stream.local_addr()?;
        let by_scope = match remote {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => self.links.get(v6.scope_id()),
            _ => self.links.with_address(local.ip()),
        };
        let plain = Endpoint::between(local.ip(), remote.ip());
        Ok(match by_scope {
            None => plain,
            Some(link) => Endpoint {
                // Not of a neighbour some hops away, whose way may be another. A link-local one is here, even
                // if our own address on the link has just come and we have not heard of it.
                interface: Some(link.name.clone())
                    .filter(|_| needs_link(remote.ip()) || link.reaches(remote.ip())),
                ipv4: plain.ipv4.or(link.ipv4()),
                ipv6: plain.ipv6.or(link.ipv6()),
                link_local: plain.link_local.or(link.link_local()),
                ..plain
            },
        })
    }
}
