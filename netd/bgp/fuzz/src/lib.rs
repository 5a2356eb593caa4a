//! What the fuzz targets do with their input, apart from how it is made: `cargo fuzz` makes it
//! here, `cargo test` makes it in `tests/mutation.rs`.
//!
//! Each body panics when a promise of the codec is broken.

use bytes::{Bytes, BytesMut};
use peapod_bgp::types::{Family, Message, Nlri, PathAttributes, Update};
use peapod_bgp::wire::{self, FamilySession, Session};

/// A session of the agreements that the bits of one octet choose.
pub fn session(bits: u8) -> Session {
    let bit = |n: u8| bits & (1 << n) != 0;
    let family = |family| FamilySession {
        family,
        add_path_receive: bit(4),
        add_path_send: bit(4),
        extended_next_hop: bit(5) && family == Family::IPV4_UNICAST,
    };
    let mut families = vec![family(Family::IPV4_UNICAST)];
    if bit(3) {
        families.push(family(Family::IPV6_UNICAST));
    }
    Session {
        external: bit(0),
        peer_as: 65001,
        enforce_first_as: bit(6),
        four_octet_as: bit(1),
        extended_message: bit(2),
        families,
        ..Session::before_open()
    }
}

/// One message, behind an octet that chooses the session. What can be read can be shown, written,
/// and read again as the same.
pub fn message(input: &[u8]) {
    let Some((&bits, octets)) = input.split_first() else {
        return;
    };
    let session = session(bits);
    let Ok(message) = wire::decode(&Bytes::copy_from_slice(octets), &session) else {
        return;
    };
    assert!(!message.to_string().is_empty());
    let mut written = BytesMut::new();
    // Attributes can grow beyond a message: AS4_PATH merged into a longer path, for one.
    if wire::encode(&message, &session, &mut written).is_err() {
        return assert!(written.is_empty(), "an error leaves something behind");
    }
    let again = read_all(&mut written, &session);
    match message {
        Message::Update(update) => {
            let again = again.into_iter().map(|one| match one {
                Message::Update(update) => update,
                other => panic!("an UPDATE was written as {other}"),
            });
            let mut routes = Routes::default();
            again.for_each(|update| routes.add(&update));
            let mut expected = Routes::default();
            expected.add(&update);
            assert_eq!(routes, expected);
        }
        message => assert_eq!(again, [message]),
    }
}

/// A stream of messages, cut at every octet in turn: where it is cut changes nothing.
pub fn stream(input: &[u8]) {
    let Some((&bits, octets)) = input.split_first() else {
        return;
    };
    let session = session(bits);
    let mut whole = BytesMut::from(octets);
    let mut expected = Vec::new();
    let end = loop {
        match wire::split(&mut whole, &session) {
            Ok(Some(message)) => expected.push(message),
            Ok(None) => break Ok(()),
            Err(notification) => break Err(notification),
        }
    };
    let mut buffer = BytesMut::new();
    let mut seen = 0;
    for octet in octets {
        buffer.extend_from_slice(&[*octet]);
        assert!(buffer.len() <= session.max_message_len());
        match wire::split(&mut buffer, &session) {
            Ok(Some(message)) => {
                assert_eq!(message, expected[seen]);
                seen += 1;
            }
            Ok(None) => {}
            Err(notification) => {
                assert_eq!(Err(notification), end);
                break;
            }
        }
    }
    assert_eq!(seen, expected.len());
}

/// All messages of a buffer, which must hold nothing else.
pub fn read_all(buffer: &mut BytesMut, session: &Session) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = wire::split(buffer, session).expect("what we write can be cut") {
        messages.push(wire::decode(&message, session).expect("what we write can be read"));
    }
    assert!(buffer.is_empty(), "what we write is whole");
    messages
}

/// What UPDATEs say, however their routes were spread over messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routes {
    withdrawn: Vec<Nlri>,
    announced: Vec<(PathAttributes, Nlri)>,
    ended: Vec<Family>,
}

impl Routes {
    /// Adds those of one UPDATE.
    pub fn add(&mut self, update: &Update) {
        self.withdrawn.extend(update.withdrawn.iter().flatten());
        for one in &update.announced {
            let attributes = &one.attributes;
            self.announced
                .extend(one.nlri.iter().map(|nlri| ((**attributes).clone(), nlri)));
        }
        self.ended.extend(update.end_of_rib);
    }
}
