//! NOTIFICATION: why a session ends (RFC 4271 §4.5 and the registries of its codes).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::codes::codes;

/// Octets of text in a shutdown communication: the length is one octet (RFC 9003 §2).
const COMMUNICATION_MAX: usize = 255;

/// The last message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Code and subcode.
    pub error: NotificationError,
    /// What the code says should follow: the offending attribute, a shutdown communication.
    pub data: Bytes,
}

/// Code and subcode of a NOTIFICATION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotificationError {
    /// The header of a message is wrong.
    Header(HeaderError),
    /// An OPEN is wrong or not acceptable.
    Open(OpenError),
    /// An UPDATE is wrong beyond what can be contained.
    Update(UpdateError),
    /// Nothing was heard for the hold time.
    HoldTimerExpired,
    /// A message came that has no place in the session's state.
    Fsm(FsmError),
    /// The session ends although nothing is wrong with it.
    Cease(CeaseError),
    /// A ROUTE-REFRESH is wrong.
    Refresh(RefreshError),
    /// A code that is not registered.
    Other {
        /// The code.
        code: u8,
        /// The subcode.
        subcode: u8,
    },
}

codes! {
    /// The code of a NOTIFICATION.
    pub enum ErrorCode {
        /// Message Header Error.
        Header = 1 "message header error",
        /// OPEN Message Error.
        Open = 2 "OPEN message error",
        /// UPDATE Message Error.
        Update = 3 "UPDATE message error",
        /// Hold Timer Expired.
        HoldTimerExpired = 4 "hold timer expired",
        /// Finite State Machine Error.
        Fsm = 5 "finite state machine error",
        /// Cease.
        Cease = 6 "cease",
        /// ROUTE-REFRESH Message Error (RFC 7313).
        Refresh = 7 "ROUTE-REFRESH message error",
    }
}

codes! {
    /// What is wrong with a message header (RFC 4271 §6.1).
    pub enum HeaderError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// The marker is not all ones.
        NotSynchronized = 1 "connection not synchronized",
        /// The length is out of bounds for the type. Data: the length.
        BadLength = 2 "bad message length",
        /// The type is unknown. Data: the type.
        BadType = 3 "bad message type",
    }
}

codes! {
    /// What is wrong with an OPEN (RFC 4271 §6.2).
    pub enum OpenError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// Data: the version that this speaker has.
        UnsupportedVersion = 1 "unsupported version number",
        /// Not the AS that was expected.
        BadPeerAs = 2 "bad peer AS",
        /// Not a possible router id, or one's own.
        BadIdentifier = 3 "bad BGP identifier",
        /// An optional parameter that is not capabilities.
        UnsupportedParameter = 4 "unsupported optional parameter",
        /// One or two seconds.
        UnacceptableHoldTime = 6 "unacceptable hold time",
        /// RFC 5492: a capability that this speaker insists on is missing. Data: that capability.
        UnsupportedCapability = 7 "unsupported capability",
        /// RFC 9234: the roles of the two ends do not fit.
        RoleMismatch = 11 "role mismatch",
    }
}

codes! {
    /// What is wrong with an UPDATE (RFC 4271 §6.3).
    pub enum UpdateError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// The lengths in the message do not fit it.
        MalformedAttributeList = 1 "malformed attribute list",
        /// Data: the attribute.
        UnrecognizedWellKnown = 2 "unrecognized well-known attribute",
        /// Data: the type of the attribute.
        MissingWellKnown = 3 "missing well-known attribute",
        /// Data: the attribute.
        AttributeFlags = 4 "attribute flags error",
        /// Data: the attribute.
        AttributeLength = 5 "attribute length error",
        /// Data: the attribute.
        InvalidOrigin = 6 "invalid ORIGIN attribute",
        /// Data: the attribute.
        InvalidNextHop = 8 "invalid NEXT_HOP attribute",
        /// Data: the attribute.
        OptionalAttribute = 9 "optional attribute error",
        /// A prefix cannot be read.
        InvalidNetworkField = 10 "invalid network field",
        /// The AS path cannot be read.
        MalformedAsPath = 11 "malformed AS_PATH",
    }
}

codes! {
    /// In which state a message had no place (RFC 6608).
    pub enum FsmError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// Data: the type of the message.
        InOpenSent = 1 "unexpected message in OpenSent",
        /// Data: the type of the message.
        InOpenConfirm = 2 "unexpected message in OpenConfirm",
        /// Data: the type of the message.
        InEstablished = 3 "unexpected message in Established",
    }
}

codes! {
    /// Why a session ends although nothing is wrong with it (RFC 4486).
    pub enum CeaseError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// More prefixes than configured. Data: AFI, SAFI, limit; all optional.
        MaximumPrefixes = 1 "maximum number of prefixes reached",
        /// Data: a shutdown communication.
        AdministrativeShutdown = 2 "administrative shutdown",
        /// The peer is no longer configured.
        PeerDeconfigured = 3 "peer de-configured",
        /// Data: a shutdown communication.
        AdministrativeReset = 4 "administrative reset",
        /// Not now, or not from there.
        ConnectionRejected = 5 "connection rejected",
        /// Another change of configuration.
        ConfigurationChange = 6 "other configuration change",
        /// Another connection to the same peer was kept (RFC 4271 §6.8).
        CollisionResolution = 7 "connection collision resolution",
        /// Out of memory, or the like.
        OutOfResources = 8 "out of resources",
        /// RFC 8538: no graceful restart, whatever was agreed. Data: the true code, subcode and data.
        HardReset = 9 "hard reset",
        /// RFC 9384: BFD says that the peer is gone.
        BfdDown = 10 "BFD down",
    }
}

codes! {
    /// What is wrong with a ROUTE-REFRESH (RFC 7313 §5).
    pub enum RefreshError {
        /// No subcode.
        Unspecific = 0 "unspecific",
        /// Its length is not 4. Data: the message.
        InvalidLength = 1 "invalid message length",
    }
}

/// The beginning of a text, of `max` octets at most, cut at a character.
pub(crate) fn truncated(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Notification {
    /// One without data.
    pub fn new(error: NotificationError) -> Notification {
        Notification {
            error,
            data: Bytes::new(),
        }
    }

    /// One with data.
    pub fn with_data(error: NotificationError, data: impl Into<Bytes>) -> Notification {
        Notification {
            error,
            data: data.into(),
        }
    }

    /// A Cease without data.
    pub fn cease(reason: CeaseError) -> Notification {
        Notification::new(NotificationError::Cease(reason))
    }

    /// A Cease with a text for the people at the other end (RFC 9003). Text that is too long is
    /// cut at a character; without text there is no data.
    pub fn cease_with_communication(reason: CeaseError, text: &str) -> Notification {
        let text = truncated(text, COMMUNICATION_MAX);
        if text.is_empty() {
            return Notification::cease(reason);
        }
        let mut data = BytesMut::with_capacity(text.len() + 1);
        data.put_u8(text.len() as u8);
        data.put_slice(text.as_bytes());
        Notification::with_data(NotificationError::Cease(reason), data)
    }

    /// The text of a shutdown communication, if there is a readable one.
    pub fn communication(&self) -> Option<&str> {
        let shutdown = CeaseError::AdministrativeShutdown;
        let reset = CeaseError::AdministrativeReset;
        match self.error {
            NotificationError::Cease(reason) if reason == shutdown || reason == reset => {}
            _ => return None,
        }
        let (&length, rest) = self.data.split_first()?;
        let text = std::str::from_utf8(rest.get(..usize::from(length))?).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// This one inside a Hard Reset (RFC 8538 §3.1), so that the peer does not keep the routes.
    #[must_use]
    pub fn into_hard_reset(self) -> Notification {
        let (code, subcode) = self.error.codes();
        let mut data = BytesMut::with_capacity(self.data.len() + 2);
        data.put_u8(code);
        data.put_u8(subcode);
        data.put_slice(&self.data);
        Notification::with_data(NotificationError::Cease(CeaseError::HardReset), data)
    }

    /// The one inside a Hard Reset, if this is such and has one.
    pub fn hard_reset_reason(&self) -> Option<Notification> {
        match (self.error, self.data.as_ref()) {
            (NotificationError::Cease(CeaseError::HardReset), &[code, subcode, ..]) => {
                let error = NotificationError::from_codes(code, subcode);
                Some(Notification::with_data(error, self.data.slice(2..)))
            }
            _ => None,
        }
    }
}

impl NotificationError {
    /// From code and subcode.
    pub fn from_codes(code: u8, subcode: u8) -> NotificationError {
        match ErrorCode::from(code) {
            ErrorCode::Header => NotificationError::Header(subcode.into()),
            ErrorCode::Open => NotificationError::Open(subcode.into()),
            ErrorCode::Update => NotificationError::Update(subcode.into()),
            ErrorCode::HoldTimerExpired if subcode == 0 => NotificationError::HoldTimerExpired,
            ErrorCode::Fsm => NotificationError::Fsm(subcode.into()),
            ErrorCode::Cease => NotificationError::Cease(subcode.into()),
            ErrorCode::Refresh => NotificationError::Refresh(subcode.into()),
            ErrorCode::HoldTimerExpired | ErrorCode::Other(_) => {
                NotificationError::Other { code, subcode }
            }
        }
    }

    /// Code and subcode.
    pub fn codes(self) -> (u8, u8) {
        match self {
            NotificationError::Header(subcode) => (ErrorCode::Header.into(), subcode.into()),
            NotificationError::Open(subcode) => (ErrorCode::Open.into(), subcode.into()),
            NotificationError::Update(subcode) => (ErrorCode::Update.into(), subcode.into()),
            NotificationError::HoldTimerExpired => (ErrorCode::HoldTimerExpired.into(), 0),
            NotificationError::Fsm(subcode) => (ErrorCode::Fsm.into(), subcode.into()),
            NotificationError::Cease(subcode) => (ErrorCode::Cease.into(), subcode.into()),
            NotificationError::Refresh(subcode) => (ErrorCode::Refresh.into(), subcode.into()),
            NotificationError::Other { code, subcode } => (code, subcode),
        }
    }
}

impl fmt::Display for NotificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.codes();
        let code = ErrorCode::from(code);
        match self {
            NotificationError::Header(error) => write!(f, "{code}: {error}"),
            NotificationError::Open(error) => write!(f, "{code}: {error}"),
            NotificationError::Update(error) => write!(f, "{code}: {error}"),
            NotificationError::Fsm(error) => write!(f, "{code}: {error}"),
            NotificationError::Cease(error) => write!(f, "{code}: {error}"),
            NotificationError::Refresh(error) => write!(f, "{code}: {error}"),
            NotificationError::HoldTimerExpired => code.fmt(f),
            NotificationError::Other { .. } => write!(f, "{code}, subcode {subcode}"),
        }
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hard_reset_reason(), self.communication()) {
            (Some(reason), _) => write!(f, "{}: {reason}", self.error),
            (_, Some(text)) => write!(f, "{}: {text:?}", self.error),
            (None, None) => self.error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_subcode_goes_both_ways() {
        for code in 0..=255 {
            for subcode in 0..=255 {
                let error = NotificationError::from_codes(code, subcode);
                assert_eq!(error.codes(), (code, subcode));
            }
        }
    }

    #[test]
    fn a_shutdown_communication_is_cut_at_a_character() {
        let text = "é".repeat(200);
        let notification =
            Notification::cease_with_communication(CeaseError::AdministrativeShutdown, &text);
        assert_eq!(notification.data.len(), 255);
        assert_eq!(notification.communication(), Some(&*"é".repeat(127)));
        let none = Notification::cease_with_communication(CeaseError::AdministrativeReset, "");
        assert_eq!((none.data.len(), none.communication()), (0, None));
    }

    #[test]
    fn an_unreadable_communication_is_none() {
        let shutdown = NotificationError::Cease(CeaseError::AdministrativeShutdown);
        for data in [&b"\x05abc"[..], b"\x02\xff\xff", b"\x00", b""] {
            assert_eq!(
                Notification::with_data(shutdown, data).communication(),
                None
            );
        }
        let other = NotificationError::Cease(CeaseError::OutOfResources);
        assert_eq!(
            Notification::with_data(other, &b"\x01a"[..]).communication(),
            None
        );
    }

    #[test]
    fn a_hard_reset_carries_the_reason() {
        let reason =
            Notification::cease_with_communication(CeaseError::AdministrativeShutdown, "moving");
        let hard = reason.clone().into_hard_reset();
        assert_eq!(hard.hard_reset_reason(), Some(reason));
        assert_eq!(
            hard.to_string(),
            "cease: hard reset: cease: administrative shutdown: \"moving\""
        );
    }
}
