//! The control packet (RFC 5880 §4.1).

use std::num::NonZeroU32;
use std::time::Duration;

use crate::{Diagnostic, State};

/// Octets of a packet without authentication.
const LEN: usize = 24;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A control packet. Intervals are kept in microseconds, as on the wire, up to about 71 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The state of the sender's session.
    pub state: State,
    /// The sender wants an answer with `final_` at once.
    pub poll: bool,
    /// The answer to `poll`.
    pub final_: bool,
    /// The sender's BFD lives through a loss of its control plane (C bit).
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while both are Up.
    pub demand: bool,
    /// Intervals without a packet after which the receiver should take the sender for gone.
    pub detect_multiplier: u8,
    /// The sender's number for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's number for it, as far as the sender knows.
    pub your_discriminator: Option<NonZeroU32>,
    /// Microseconds between packets that the sender would like to send.
    pub desired_min_tx: u32,
    /// Microseconds between packets that the sender can receive; 0 for no packets at all.
    pub required_min_rx: u32,
    /// The same for echo packets; 0 for none.
    pub required_min_echo_rx: u32,
}

/// Why octets are no acceptable control packet. Such are dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Less than a packet, or less than its own length says.
    #[error("the packet has {0} octets, fewer than it says or than any has")]
    Short(usize),
    /// Another version of the protocol.
    #[error("the packet is of version {0}; this is version 1")]
    Version(u8),
    /// A multiplier of zero would mean that nothing is ever heard in time.
    #[error("the detect multiplier is zero")]
    DetectMultiplier,
    /// Reserved for point to multipoint.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// A sender without a number for the session.
    #[error("the sender's discriminator is zero")]
    MyDiscriminator,
    /// The sender has not heard from here, yet says it has.
    #[error("the receiver's discriminator is zero in state {0}")]
    YourDiscriminator(State),
    /// Authentication is not in use.
    #[error("the packet is authenticated, and no authentication is configured")]
    Authenticated,
}

impl Packet {
    /// Reads a packet, with the checks of RFC 5880 §6.8.6 that need no session. Octets behind it
    /// are ignored.
    ///
    /// # Errors
    /// If it is to be dropped.
    pub fn decode(octets: &[u8]) -> Result<Packet, DecodeError> {
        let short = DecodeError::Short(octets.len());
        let head: &[u8; LEN] = octets.first_chunk().ok_or(short)?;
        let [first, flags, detect_multiplier, length, ..] = *head;
        if first >> 5 != VERSION {
            return Err(DecodeError::Version(first >> 5));
        }
        if usize::from(length) < LEN || usize::from(length) > octets.len() {
            return Err(short);
        }
        if detect_multiplier == 0 {
            return Err(DecodeError::DetectMultiplier);
        }
        if flags & MULTIPOINT != 0 {
            return Err(DecodeError::Multipoint);
        }
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let state = State::from_bits(flags >> 6);
        let your_discriminator = NonZeroU32::new(word(8));
        if your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
            return Err(DecodeError::YourDiscriminator(state));
        }
        if flags & AUTHENTICATION != 0 {
            return Err(DecodeError::Authenticated);
        }
        Ok(Packet {
            diagnostic: Diagnostic::from_bits(first),
            state,
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator: NonZeroU32::new(word(4)).ok_or(DecodeError::MyDiscriminator)?,
            your_discriminator,
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        })
    }

    /// Its octets.
    pub fn encode(&self) -> [u8; LEN] {
        let flag = |set, bit| if set { bit } else { 0 };
        let mut octets = [0; LEN];
        octets[0] = VERSION << 5 | self.diagnostic.bits();
        octets[1] = self.state.bits() << 6
            | flag(self.poll, POLL)
            | flag(self.final_, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        octets[2] = self.detect_multiplier;
        octets[3] = LEN as u8;
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, NonZeroU32::get),
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (place, word) in octets[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

/// A duration as the wire has it; longer ones than it can say become the longest.
pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Up, C bit, 3 x 100 ms, as a neighbour with discriminator 2 sends it to 1.
    const GOOD: [u8; LEN] = [
        0x20, 0xc8, 3, 24, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0,
    ];

    #[test]
    fn a_packet() {
        let packet = Packet::decode(&GOOD).unwrap();
        let expected = Packet {
            diagnostic: Diagnostic::None,
            state: State::Up,
            poll: false,
            final_: false,
            control_plane_independent: true,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: NonZeroU32::new(2).unwrap(),
            your_discriminator: NonZeroU32::new(1),
            desired_min_tx: 100_000,
            required_min_rx: 100_000,
            required_min_echo_rx: 0,
        };
        assert_eq!(packet, expected);
        assert_eq!(packet.encode(), GOOD);
    }

    #[test]
    fn what_is_dropped() {
        let cases: [(usize, u8, DecodeError); 9] = [
            (0, 0x00, DecodeError::Version(0)),
            (0, 0x40, DecodeError::Version(2)),
            (1, 0xc9, DecodeError::Multipoint),
            (1, 0xcc, DecodeError::Authenticated),
            (2, 0, DecodeError::DetectMultiplier),
            (3, 23, DecodeError::Short(24)),
            (3, 25, DecodeError::Short(24)),
            (7, 0, DecodeError::MyDiscriminator),
            (11, 0, DecodeError::YourDiscriminator(State::Up)),
        ];
        for (at, octet, error) in cases {
            let mut octets = GOOD;
            octets[at] = octet;
            assert_eq!(Packet::decode(&octets), Err(error), "octet {at} = {octet}");
        }
        assert_eq!(Packet::decode(&GOOD[..23]), Err(DecodeError::Short(23)));
    }

    #[test]
    fn octets_behind_a_packet_are_ignored() {
        let longer = [&GOOD[..], &[1, 2, 3]].concat();
        assert_eq!(Packet::decode(&longer), Packet::decode(&GOOD));
    }

    proptest! {
        #[test]
        fn any_octets_can_be_tried(mut octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            // Half of them get past the first checks.
            if octets.len() >= LEN && octets[LEN - 1] & 1 == 0 {
                octets[0] = 0x20 | octets[0] & 0x1f;
                octets[1] &= !(AUTHENTICATION | MULTIPOINT);
                octets[3] = LEN as u8;
            }
            if let Ok(packet) = Packet::decode(&octets) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}
