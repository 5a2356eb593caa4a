//! Reads log files.
