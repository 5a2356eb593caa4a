//! What the fuzz targets do with their input, apart from how it is made: `cargo fuzz` makes it
//! here, `cargo test` makes it in `tests/mutation.rs`.
//!
//! Each body panics when a promise is broken.

use std::num::NonZeroU32;
use std::time::Duration;

use peapod_bfd::{Config, Packet, Received, Session, State, TTL};

/// One packet. What can be read can be written, and read again as the same.
pub fn packet(input: &[u8]) {
    let Ok(packet) = Packet::decode(input) else {
        return;
    };
    let again = Packet::decode(&packet.encode());
    assert_eq!(again, Ok(packet));
}

/// What comes to a session: chunks of a packet's length and two octets more, which say how late it
/// comes, and with which TTL. Its timers stay within sense, and only the neighbour brings it up.
pub fn session(input: &[u8]) {
    let mut session = Session::new(Config::new(NonZeroU32::MIN));
    let mut now = Duration::ZERO;
    for chunk in input.chunks(26) {
        let [late, ttl, octets @ ..] = chunk else {
            return;
        };
        now += Duration::from_millis(u64::from(*late) * 8);
        while let Some(due) = session.deadline().filter(|due| *due <= now) {
            session.tick(due, u32::from(*ttl));
            let next = session.deadline();
            assert!(
                next.is_none_or(|next| next > due),
                "a timer that is always due"
            );
        }
        let Ok(packet) = Packet::decode(octets) else {
            continue;
        };
        let ttl = if ttl % 8 == 0 { *ttl } else { TTL };
        let before = session.state();
        let outcome = session.receive(&Received { packet, ttl }, now, u32::from(*late));
        if outcome.discarded.is_some() {
            assert_eq!(session.state(), before, "a dropped packet changes nothing");
        }
        if session.state() == State::Up {
            assert!(session.remote_discriminator().is_some());
            assert!(session.detection_time() > Duration::ZERO);
        }
        assert!(session.transmit_interval() > Duration::ZERO);
    }
}
