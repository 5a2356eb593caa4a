//! The revisioned store and its engines.
