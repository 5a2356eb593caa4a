//! Pods from files of the node (`staticPodPath`): they run without the API, which has only a copy
//! of each (its *mirror*) to look at.
//!
//! This folder reads the files ([`source`]) and keeps the copies ([`mirror`]); how such a pod runs is
//! no different from others.

pub mod manifest;
pub mod mirror;
pub mod source;
