//! Bytes of echo requests and of what comes back: ICMP (RFC 792) and ICMPv6 (RFC 4443).

use std::net::IpAddr;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer to our request.
    Echo,
    /// The hop limit ran out at the sender of this.
    Expired,
    /// The sender of this says that the destination is out of reach.
    Unreachable,
}

/// An echo request. The kernel fills in ICMPv6's checksum.
pub fn echo_request(v4: bool, id: u16, sequence: u16) -> Vec<u8> {
    let kind = if v4 { 8 } else { 128 };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(b"peapod net trace");
    if v4 {
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Reads what a raw socket gave: with IPv4's header, without IPv6's. `None` for what is not an
/// answer to the request.
pub fn read(v4: bool, bytes: &[u8], id: u16, sequence: u16) -> Option<Heard> {
    let icmp = match v4 {
        true => bytes.get(usize::from(bytes.first()? & 0x0f) * 4..)?,
        false => bytes,
    };
    let ours = |icmp: &[u8]| {
        let field = |at: usize| Some(u16::from_be_bytes([*icmp.get(at)?, *icmp.get(at + 1)?]));
        (field(4) == Some(id) && field(6) == Some(sequence)).then_some(())
    };
    let (heard, quoting) = match (v4, *icmp.first()?) {
        (true, 0) | (false, 129) => (Heard::Echo, false),
        (true, 11) | (false, 3) => (Heard::Expired, true),
        (true, 3) | (false, 1) => (Heard::Unreachable, true),
        _ => return None,
    };
    if !quoting {
        ours(icmp)?;
        return Some(heard);
    }
    // Errors quote the packet that they are about, with its header.
    let quoted = icmp.get(8..)?;
    let header = match v4 {
        true => usize::from(quoted.first()? & 0x0f) * 4,
        false => 40,
    };
    ours(quoted.get(header..)?)?;
    Some(heard)
}

/// Whether an address is one that a hop may answer from.
pub fn is_answerable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_ip_header(icmp: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 20];
        packet.extend(icmp);
        packet
    }

    #[test]
    fn a_request_has_a_sound_checksum() {
        assert_eq!(checksum(&echo_request(true, 7, 9)), 0);
    }

    #[test]
    fn answers_are_told_from_those_of_others() {
        let request = echo_request(true, 7, 9);
        let mut reply = request.clone();
        reply[0] = 0;
        assert_eq!(read(true, &with_ip_header(&reply), 7, 9), Some(Heard::Echo));
        assert_eq!(read(true, &with_ip_header(&reply), 8, 9), None);
        let mut expired = vec![11, 0, 0, 0, 0, 0, 0, 0];
        expired.extend(with_ip_header(&request));
        assert_eq!(
            read(true, &with_ip_header(&expired), 7, 9),
            Some(Heard::Expired)
        );
        let mut v6 = vec![3, 0, 0, 0, 0, 0, 0, 0];
        v6.extend([0x60; 40]);
        v6.extend(echo_request(false, 7, 9));
        assert_eq!(read(false, &v6, 7, 9), Some(Heard::Expired));
        assert_eq!(read(false, &v6, 7, 8), None);
    }

    proptest! {
        #[test]
        fn never_panics(v4 in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(v4, &bytes, 1, 1);
        }
    }
}
