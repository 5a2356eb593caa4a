//! From `peapod up` to a node that is Ready and DNS that answers; the size of the binary.

use std::time::{Duration, Instant};

use anyhow::Result;
use peapod_tests::{Cluster, command};

use crate::process;
use crate::report::{Report, ms, percentile};

const ROUNDS: usize = 5;

/// `up` returns when the node is Ready and DNS answers, so its own time is the figure.
pub fn measure(report: &mut Report) -> Result<()> {
    let size = std::fs::metadata(command::peapod()?)?.len();
    report.add(
        "release binary, stripped",
        process::mb(size),
        "40 MB",
        "-".to_owned(),
    );
    let cluster = Cluster::up()?;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        cluster.stop()?;
        let started = Instant::now();
        cluster.start()?;
        times.push(started.elapsed());
    }
    let median = percentile(&mut times, 50);
    report.add(
        "peapod up to Ready and DNS",
        ms(median),
        "1.5 s",
        format!("median of {ROUNDS}"),
    );
    Ok(())
}
