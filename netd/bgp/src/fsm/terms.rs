//! What we offer in OPEN, what we accept in the peer's, and what follows from both.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;

use crate::config::RemoteAs;
use crate::types::{
    Capability, GracefulRestart, LongLivedFamily, Notification, NotificationError, Open, OpenError,
    Role,
};
use crate::wire::Session;

/// What a session with a peer is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The AS that we are towards the peer.
    pub local_as: u32,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Who the peer must be.
    pub remote_as: RemoteAs,
    /// Hold time to propose, in seconds.
    pub hold_seconds: u16,
    /// Time between keepalives, if not a third of the hold time.
    pub keepalive: Option<Duration>,
    /// Time between attempts to connect.
    pub connect_retry: Duration,
    /// Wait for the peer's OPEN before sending ours.
    pub delay_open: Duration,
    /// Never connect to the peer.
    pub passive: bool,
    /// Capabilities to offer, except those of graceful restart.
    pub capabilities: Vec<Capability>,
    /// Our graceful restart, as it is now.
    pub graceful_restart: Option<GracefulRestart>,
    /// Our long-lived graceful restart, as it is now.
    pub long_lived: Vec<LongLivedFamily>,
    /// Our role.
    pub role: Option<Role>,
    /// The peer must tell its role.
    pub strict_role: bool,
}

/// What the two ends of a session agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// How messages are read and written.
    pub session: Session,
    /// The peer's OPEN.
    pub theirs: Open,
    /// Seconds of silence that end the session; 0 is never.
    pub hold_seconds: u16,
    /// The peer's graceful restart, if both ends have it.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer's long-lived graceful restart.
    pub long_lived: Vec<LongLivedFamily>,
}

// === impl Terms ===

impl Terms {
    /// Our OPEN.
    pub fn open(&self) -> Open {
        let mut capabilities = self.capabilities.clone();
        if let Some(restart) = &self.graceful_restart {
            capabilities.push(Capability::GracefulRestart(restart.clone()));
        }
        if !self.long_lived.is_empty() {
            capabilities.push(Capability::LongLivedGracefulRestart(
                self.long_lived.clone(),
            ));
        }
        if let Some(role) = self.role {
            capabilities.push(Capability::Role(role));
        }
        Open::new(
            self.local_as,
            self.hold_seconds,
            self.router_id,
            capabilities,
        )
    }

    /// What follows from the peer's OPEN, or what to tell it (RFC 4271 section 6.2).
    pub fn agree(&self, theirs: &Open) -> Result<Agreement, Notification> {
        let refuse = |error| Notification::new(NotificationError::Open(error));
        if !self.remote_as.accepts(theirs.asn(), self.local_as) {
            return Err(refuse(OpenError::BadPeerAs));
        }
        let internal = theirs.asn() == self.local_as;
        if theirs.router_id.is_unspecified() || (internal && theirs.router_id == self.router_id) {
            return Err(refuse(OpenError::BadIdentifier));
        }
        if matches!(theirs.hold_time, 1 | 2) {
            return Err(refuse(OpenError::UnacceptableHoldTime));
        }
        if !self.fits_role(theirs.role()) {
            return Err(refuse(OpenError::RoleMismatch));
        }
        let session = Session::negotiate(&self.open(), theirs);
        if session.families.is_empty() {
            return Err(Notification::with_data(
                NotificationError::Open(OpenError::UnsupportedCapability),
                self.families_as_data(),
            ));
        }
        let restart = find(theirs, |capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
        let long_lived = find(theirs, |capability| match capability {
            Capability::LongLivedGracefulRestart(families) => Some(families.clone()),
            _ => None,
        });
        Ok(Agreement {
            session,
            theirs: theirs.clone(),
            hold_seconds: self.hold_seconds.min(theirs.hold_time),
            long_lived: long_lived
                .filter(|_| !self.long_lived.is_empty())
                .unwrap_or_default(),
            graceful_restart: restart.filter(|_| self.graceful_restart.is_some()),
        })
    }

    /// RFC 9234 section 4.2.
    fn fits_role(&self, theirs: Option<Role>) -> bool {
        match (self.role, theirs) {
            (Some(ours), Some(theirs)) => ours.matches(theirs),
            (Some(_), None) => !self.strict_role,
            (None, _) => true,
        }
    }

    /// The multiprotocol capabilities that we would need, as they stand in an OPEN (RFC 5492).
    fn families_as_data(&self) -> Bytes {
        let wanted = self
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::MultiProtocol(family) => Some(*family),
                _ => None,
            });
        wanted
            .flat_map(|family| {
                let [high, low] = family.afi.to_be_bytes();
                [1, 4, high, low, 0, family.safi]
            })
            .collect::<Vec<u8>>()
            .into()
    }

    /// Time between keepalives, for an agreed hold time (RFC 4271 section 4.4).
    pub(super) fn keepalive(&self, hold_seconds: u16) -> Option<Duration> {
        let third = Duration::from_secs(hold_seconds.into()) / 3;
        (hold_seconds > 0).then(|| self.keepalive.map_or(third, |ours| ours.min(third)))
    }
}

fn find<T>(open: &Open, pick: impl Fn(&Capability) -> Option<T>) -> Option<T> {
    open.capabilities.iter().rev().find_map(pick)
}
