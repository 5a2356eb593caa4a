//! From a request to its reply.

use std::sync::Arc;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Record;
use parking_lot::RwLock;

use super::forward::Forwarder;
use super::message::{self, Transport};
use crate::core::zone::{Answer, Zone};
use crate::metrics::Metrics;

/// Aliases followed, at most: further ones are a loop.
const ALIASES: usize = 8;

/// Answers requests: from the zone, or from upstream.
#[derive(Clone)]
pub struct Handler {
    zone: Arc<RwLock<Zone>>,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
}

/// What a request led to.
pub(super) enum Outcome {
    /// The reply's bytes.
    Reply(Vec<u8>),
    /// Upstream must be asked, which takes time: [`Handler::finish`] does.
    Wait(Box<Pending>),
    /// No reply is due.
    Nothing,
}

/// A request that waits for upstream.
pub(super) struct Pending {
    request: Message,
    reply: Message,
    query: Query,
    transport: Transport,
}

impl Handler {
    /// One that answers from these.
    pub(crate) fn new(
        zone: Arc<RwLock<Zone>>,
        forwarder: Arc<Forwarder>,
        metrics: Metrics,
    ) -> Self {
        Handler {
            zone,
            forwarder,
            metrics,
        }
    }

    /// Answers at once what needs no waiting.
    pub(super) fn start(&self, bytes: &[u8], transport: Transport) -> Outcome {
        let request = match message::read(bytes) {
            Ok(request) => request,
            Err(Some(reply)) => return Outcome::Reply(message::write(None, &reply, transport)),
            Err(None) => return Outcome::Nothing,
        };
        let query = request.queries[0].clone();
        let reply = message::reply(&request, ResponseCode::NoError);
        let mut pending = Pending {
            request,
            reply,
            query,
            transport,
        };
        if self.take_from_zone(&mut pending) || self.take_from_cache(&mut pending) {
            return Outcome::Reply(self.write(&pending));
        }
        Outcome::Wait(Box::new(pending))
    }

    /// Asks upstream for what is still open.
    pub(super) async fn finish(&self, mut pending: Pending) -> Vec<u8> {
        match self.forwarder.ask(&pending.query, pending.dnssec()).await {
            Ok(reply) => pending.take(reply),
            Err(error) => {
                tracing::warn!(name = %pending.query.name(), %error, "a name cannot be resolved");
                pending.fail();
            }
        }
        self.write(&pending)
    }

    fn write(&self, pending: &Pending) -> Vec<u8> {
        let reply = &pending.reply;
        self.metrics.dns_replied(reply.metadata.response_code);
        message::write(Some(&pending.request), reply, pending.transport)
    }

    /// Follows a name through the zone, and aliases out of it; whether that was the end.
    fn take_from_zone(&self, pending: &mut Pending) -> bool {
        let zone = self.zone.read();
        for _ in 0..ALIASES {
            match zone.answer(pending.query.name(), pending.query.query_type()) {
                Answer::Records {
                    answers,
                    additionals,
                } => {
                    pending.authoritative();
                    pending.reply.answers.extend(answers);
                    pending.reply.additionals.extend(additionals);
                    return true;
                }
                Answer::Alias { record, target } => {
                    pending.authoritative();
                    pending.reply.answers.push(*record);
                    pending.query.set_name(target);
                }
                Answer::NoData => {
                    pending.negative(ResponseCode::NoError, zone.negative());
                    return true;
                }
                Answer::NoName => {
                    pending.negative(ResponseCode::NXDomain, zone.negative());
                    return true;
                }
                Answer::NotReady => {
                    pending.fail();
                    return true;
                }
                Answer::NotOurs => return false,
            }
        }
        pending.fail();
        true
    }

    fn take_from_cache(&self, pending: &mut Pending) -> bool {
        let cached = self.forwarder.cached(&pending.query, pending.dnssec());
        cached.map(|reply| pending.take(reply)).is_some()
    }
}

impl Pending {
    fn dnssec(&self) -> bool {
        let edns = self.request.edns.as_ref();
        edns.is_some_and(|edns| edns.flags().dnssec_ok)
    }

    fn authoritative(&mut self) {
        self.reply.metadata.authoritative = true;
    }

    fn negative(&mut self, code: ResponseCode, soa: Record) {
        self.authoritative();
        self.reply.metadata.response_code = code;
        self.reply.authorities.push(soa);
    }

    fn fail(&mut self) {
        self.reply.metadata.authoritative = false;
        self.reply.metadata.response_code = ResponseCode::ServFail;
    }

    /// Takes over what upstream said.
    fn take(&mut self, upstream: Message) {
        self.reply.metadata.response_code = upstream.metadata.response_code;
        self.reply.metadata.authentic_data = upstream.metadata.authentic_data;
        self.reply.answers.extend(upstream.answers);
        self.reply.authorities = upstream.authorities;
        self.reply.additionals.extend(upstream.additionals);
    }
}
