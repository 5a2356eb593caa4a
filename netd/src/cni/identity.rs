//! Which attachment a CNI runtime speaks of. Pure.
//!
//! The specification names an attachment by network, container and interface. A pod's link is
//! found by a UID that fits into its alias: so the three are hashed, the network apart, since a
//! collection is of one network.

use sha2::{Digest, Sha256};

/// How the UID of every attachment begins that came over CNI.
pub const MARK: &str = "cni.";
/// Hexadecimal digits of a network, and of an attachment.
const NETWORK_DIGITS: usize = 12;
const ATTACHMENT_DIGITS: usize = 32;

/// How the UIDs of a network's attachments begin.
pub fn network(name: &str) -> String {
    format!("{MARK}{}.", hash(&[name], NETWORK_DIGITS))
}

/// The UID of an attachment.
pub fn attachment(name: &str, container: &str, interface: &str) -> String {
    let own = hash(&[container, interface], ATTACHMENT_DIGITS);
    network(name) + &own
}

fn hash(parts: &[&str], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // None of them may hold a NUL.
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let hex = hasher
        .finalize()
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    hex.chars().take(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_told_apart_and_belong_to_their_network() {
        let uid = attachment("pods", "abc", "eth0");
        assert_eq!(uid, attachment("pods", "abc", "eth0"));
        assert!(uid.starts_with(&network("pods")) && uid.starts_with(MARK));
        for other in [
            attachment("pods", "abc", "eth1"),
            attachment("pods", "abce", "th0"),
            attachment("others", "abc", "eth0"),
        ] {
            assert_ne!(uid, other);
        }
        assert!(uid.len() < 64 && !uid.contains(' '));
    }
}
