//! Which node gets a pod.
