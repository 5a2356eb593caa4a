//! What the fuzz targets do with their input, apart from how it is made: `cargo fuzz` makes it
//! here, `cargo test` makes it in `tests/mutation.rs`.
//!
//! Each body panics when a promise is broken.

use peapod_router::RouterConfig;
use peapod_router::control::Request;

/// A configuration file: it is refused, or means something.
pub fn file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(config) = serde_saphyr::from_str::<RouterConfig>(text) else {
        return;
    };
    if let Err(fault) = config.speaker().check() {
        assert!(!fault.to_string().is_empty());
    }
}

/// A line on the control socket. What can be read can be written, and read again as the same.
pub fn request(input: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(input) else {
        return;
    };
    let written = serde_json::to_string(&request).expect("a request can be written");
    let again: Request = serde_json::from_str(&written).expect("and read");
    assert_eq!(again, request);
}
