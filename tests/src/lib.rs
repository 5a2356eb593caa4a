//! Whole-system tests: real containerd, kernel, kubectl.
