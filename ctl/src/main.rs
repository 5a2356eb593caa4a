//! The `peapod` binary.

fn main() {}
