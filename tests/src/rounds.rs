//! How long the randomised tests go on, and what chance brings them.

/// How many rounds: `ROUNDS`, which `make soak` sets, or the few of `default`.
pub fn rounds(default: usize) -> usize {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// What the chance of a randomised test begins with: `SEED`, to have a run again, or any. It is printed.
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok();
    let seed = given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    seed
}
