//! The random parts of names and identities.

use rand::Rng;

use crate::registry::object_meta::{SUFFIX_ALPHABET, SUFFIX_LEN};

/// The suffix of a generated name.
pub fn suffix() -> String {
    let mut rng = rand::rng();
    let pick = |_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())]);
    (0..SUFFIX_LEN).map(pick).collect()
}

/// The UID of a new object.
pub fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A random number below `bound`, which is above zero.
pub fn below(bound: u64) -> u64 {
    rand::rng().random_range(0..bound.max(1))
}
