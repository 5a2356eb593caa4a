//! Waiting for conditions, with a bound that only a fault reaches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a condition may take before the test calls it a fault.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until it is so. For what has no notification of its own (a port that opens, a file).
pub fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    loop {
        let outcome = so();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            outcome.with_context(|| format!("waited {PATIENCE:?} for {what}"))?;
            bail!("waited {PATIENCE:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The same for something that is found.
pub fn some<T>(what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut found = None;
    until(what, || {
        found = find()?;
        Ok(found.is_some())
    })?;
    found.context("nothing was found")
}
