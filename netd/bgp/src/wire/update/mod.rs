//! UPDATE as octets (RFC 4271 §4.3), with the error handling of RFC 7606.
//!
//! [`attributes`] knows each attribute's form and what becomes of a malformed one, [`multiprotocol`]
//! the two attributes that hold routes themselves, [`four_octet`] how paths get past speakers with
//! two-octet AS numbers; [`encode`](self::encode()) is the way back.

mod attributes;
mod encode;
mod four_octet;
mod multiprotocol;

pub(super) use encode::encode;
pub use encode::{announce, end_of_rib, withdraw};

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::header::HEADER_LEN;
use super::reader::Reader;
use crate::types::{
    Action, Announcement, AttributeCode, Family, NextHop, NlriList, Notification,
    NotificationError, PathAttributes, Problem, Update, UpdateError,
};
use attributes::{Attribute, Four, Parsed, Seen};
use multiprotocol::Reachable;

/// Problems of the mildest kind that are recorded of one message.
const DISCARDS_MAX: usize = 16;

/// Reads an UPDATE.
pub(super) fn decode(message: &Bytes, session: &Session) -> Result<Update, Notification> {
    let mut body = Reader::new(&message[HEADER_LEN..]);
    let mut section = || {
        let len = body.u16()?;
        body.take(usize::from(len))
    };
    let (Some(withdrawn), Some(attributes)) = (section(), section()) else {
        return Err(reset(UpdateError::MalformedAttributeList, &[]));
    };
    let ipv4 = |octets| ipv4_unicast(message, octets, session);
    let (withdrawn, nlri) = (ipv4(withdrawn)?, ipv4(body.rest())?);

    let mut decoder = Decoder::new(message, session);
    decoder.attributes(attributes)?;
    if message.len() == HEADER_LEN + 4 {
        return Ok(end_of(session, Family::IPV4_UNICAST));
    }
    if let (None, None, Some(family)) = (&withdrawn, &nlri, decoder.ends_rib()) {
        return Ok(end_of(session, family));
    }
    let announces = !body.rest().is_empty() || decoder.seen.contains(AttributeCode::MpReachNlri);
    decoder.finish(announces, withdrawn, nlri)
}

/// Whether a problem makes announced routes unusable.
fn concerns_announced(problem: &Problem) -> bool {
    problem.action == Action::TreatAsWithdraw && problem.attribute != AttributeCode::MpUnreachNlri
}

/// The NOTIFICATION for what cannot be contained.
fn reset(error: UpdateError, data: &[u8]) -> Notification {
    Notification::with_data(
        NotificationError::Update(error),
        Bytes::copy_from_slice(data),
    )
}

/// The prefixes in one of the message's own two fields; `None` without any, and if the session
/// has no IPv4 routes. Unreadable ones end the session (RFC 7606 §5.3).
fn ipv4_unicast(
    message: &Bytes,
    octets: &[u8],
    session: &Session,
) -> Result<Option<NlriList>, Notification> {
    let Some(family) = session
        .family(Family::IPV4_UNICAST)
        .filter(|_| !octets.is_empty())
    else {
        return Ok(None);
    };
    NlriList::parse(
        family.family,
        family.add_path_receive,
        message.slice_ref(octets),
    )
    .map(Some)
    .map_err(|_| reset(UpdateError::InvalidNetworkField, &[]))
}

/// An End-of-RIB; empty for a family that is not part of the session.
fn end_of(session: &Session, family: Family) -> Update {
    Update {
        end_of_rib: session.family(family).map(|one| one.family),
        ..Update::default()
    }
}

/// What has been read of the attributes so far.
struct Decoder<'a> {
    message: &'a Bytes,
    session: &'a Session,
    seen: Seen,
    read: PathAttributes,
    /// The NEXT_HOP attribute. It is of the routes in the message's own field only: without such,
    /// nothing in it matters.
    next_hop: Option<Parsed<Ipv4Addr>>,
    reachable: Option<Reachable>,
    unreachable: Option<NlriList>,
    /// What speakers with two-octet AS numbers passed on.
    four: Four,
    /// The cut of the list of attributes does not fit, or an attribute makes its routes unusable.
    treat_as_withdraw: bool,
    problems: Vec<Problem>,
}

impl<'a> Decoder<'a> {
    fn new(message: &'a Bytes, session: &'a Session) -> Self {
        Decoder {
            message,
            session,
            seen: Seen::default(),
            read: PathAttributes::default(),
            next_hop: None,
            reachable: None,
            unreachable: None,
            four: Four::default(),
            treat_as_withdraw: false,
            problems: Vec::new(),
        }
    }

    /// Reads the list of attributes. One that reaches past the end makes the rest unreadable, but
    /// the message's other fields still stand where they stand (RFC 7606 §4).
    fn attributes(&mut self, octets: &[u8]) -> Result<(), Notification> {
        let mut rest = Reader::new(octets);
        while !rest.is_empty() {
            match Attribute::read(&mut rest) {
                Ok(attribute) => self.attribute(&attribute)?,
                // It held routes, and which cannot be known (RFC 7606 §3 j).
                Err(AttributeCode::MpReachNlri | AttributeCode::MpUnreachNlri) => {
                    return Err(reset(UpdateError::MalformedAttributeList, &[]));
                }
                Err(code) => {
                    let what = "it is longer than the list of attributes";
                    self.problem(code, Action::TreatAsWithdraw, what);
                    break;
                }
            }
        }
        Ok(())
    }

    fn problem(&mut self, attribute: AttributeCode, action: Action, what: &'static str) {
        self.treat_as_withdraw |= action == Action::TreatAsWithdraw;
        if action != Action::AttributeDiscard || self.problems.len() < DISCARDS_MAX {
            self.problems.push(Problem {
                attribute,
                action,
                what,
            });
        }
    }

    /// An empty MP_UNREACH_NLRI and nothing else ends a family's routes (RFC 4724 §2).
    fn ends_rib(&self) -> Option<Family> {
        let only = self.seen.only(AttributeCode::MpUnreachNlri) && self.problems.is_empty();
        let list = self.unreachable.as_ref().filter(|_| only)?;
        list.is_empty().then(|| list.family())
    }

    /// Puts together what was read. `announces`: there are octets that should be announced routes.
    fn finish(
        mut self,
        announces: bool,
        withdrawn: Option<NlriList>,
        nlri: Option<NlriList>,
    ) -> Result<Update, Notification> {
        if nlri.is_some() || self.reachable.is_some() {
            self.merge_four_octet();
            self.check_routes(nlri.is_some());
        } else if !announces && self.problems.iter().any(concerns_announced) {
            // There should have been routes, and they cannot be found (RFC 7606 §5.2).
            return Err(reset(UpdateError::MalformedAttributeList, &[]));
        }
        let mut update = Update {
            problems: self.problems,
            ..Update::default()
        };
        update.withdrawn.extend(withdrawn);
        update.withdrawn.extend(self.unreachable);
        let multiprotocol = self.reachable.map(|one| (one.next_hop, one.nlri));
        let next_hop = self.next_hop.and_then(Result::ok).map(NextHop::V4);
        let own = nlri.map(|nlri| (next_hop, nlri));
        let mut attributes = Arc::new(self.read);
        for (next_hop, nlri) in [own, multiprotocol].into_iter().flatten() {
            if self.treat_as_withdraw {
                update.withdrawn.push(nlri);
            } else if !nlri.is_empty() {
                // Copies the set only if the message announces routes of two kinds.
                Arc::make_mut(&mut attributes).next_hop = next_hop;
                update.announced.push(Announcement {
                    attributes: attributes.clone(),
                    nlri,
                });
            }
        }
        Ok(update)
    }

    /// Checks what only shows when all attributes are there: those that must
    /// be, NEXT_HOP, and the first AS.
    fn check_routes(&mut self, own_field: bool) {
        let mandatory = [
            (AttributeCode::Origin, true),
            (AttributeCode::AsPath, true),
            (AttributeCode::NextHop, own_field),
            (AttributeCode::LocalPref, !self.session.external),
        ];
        for (code, needed) in mandatory {
            if needed && !self.seen.contains(code) {
                self.problem(code, Action::TreatAsWithdraw, "it is missing");
            }
        }
        if let (true, Some(Err(what))) = (own_field, self.next_hop) {
            self.problem(AttributeCode::NextHop, Action::TreatAsWithdraw, what);
        }
        let first_as = self
            .session
            .enforce_first_as
            .then_some(self.session.peer_as);
        if !self.treat_as_withdraw && first_as.is_some() && self.read.as_path.first() != first_as {
            let what = "the first AS is not the peer's";
            self.problem(AttributeCode::AsPath, Action::TreatAsWithdraw, what);
        }
    }
}
