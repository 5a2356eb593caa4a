//! How long the randomised tests go on.

/// How many rounds: `ROUNDS`, which `make soak` sets, or the few of `default`.
pub fn rounds(default: usize) -> usize {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}
