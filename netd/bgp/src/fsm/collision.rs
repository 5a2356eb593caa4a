//! Two speakers that call each other at the same time have two connections; both ends must drop
//! the same one (RFC 4271 section 6.8, RFC 6286 section 2.3).

use std::net::Ipv4Addr;

/// Whether the connection that we made is the one to keep: that of the speaker with the higher
/// identifier, or with the higher AS when the identifiers are equal.
pub fn keep_outgoing(ours: (Ipv4Addr, u32), theirs: (Ipv4Addr, u32)) -> bool {
    ours > theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_keep_the_same_connection() {
        let low = (Ipv4Addr::new(10, 0, 0, 1), 65001);
        let high = (Ipv4Addr::new(10, 0, 0, 2), 65000);
        let same = (Ipv4Addr::new(10, 0, 0, 1), 65002);
        for (a, b) in [(low, high), (low, same), (high, same)] {
            assert_ne!(keep_outgoing(a, b), keep_outgoing(b, a));
        }
        assert!(keep_outgoing(high, low));
        assert!(keep_outgoing(same, low));
    }
}
