//! The table that a run ends with.

use std::time::Duration;

use anyhow::Result;

/// Rows gathered so far; each is printed at once, so that a run that is cut off shows something.
pub struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// An empty table.
    pub fn new() -> Self {
        let header = [
            "FIGURE",
            "MEASURED",
            "MUST REACH",
            "REFERENCE IN THE SAME RUN",
        ];
        Self {
            rows: vec![header.map(str::to_owned)],
        }
    }

    /// Adds a row.
    pub fn add(&mut self, figure: &str, measured: String, must_reach: &str, reference: String) {
        eprintln!("{figure}: {measured} (must reach {must_reach}; {reference})");
        self.rows.push([
            figure.to_owned(),
            measured,
            must_reach.to_owned(),
            reference,
        ]);
    }

    /// The table, its columns aligned, and the load of the machine that it was measured on.
    pub fn render(&self) -> String {
        let width = |at: usize| {
            self.rows
                .iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        let mut text = String::new();
        for [figure, measured, must_reach, reference] in &self.rows {
            text.push_str(&format!(
                "{figure:a$}   {measured:b$}   {must_reach:c$}   {reference}\n",
                a = widths[0],
                b = widths[1],
                c = widths[2],
            ));
        }
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        text + &format!("load average at the end: {load}")
    }
}

/// Times of a thing and of its reference, each in its turn, so that both see the same machine.
pub fn alternate(
    rounds: usize,
    mut ours: impl FnMut(usize) -> Result<Duration>,
    mut reference: impl FnMut(usize) -> Result<Duration>,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let both = (0..rounds).map(|round| Ok((ours(round)?, reference(round)?)));
    Ok(both.collect::<Result<Vec<_>>>()?.into_iter().unzip())
}

/// The value below which `percent` of the samples lie.
pub fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort();
    let at = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
    samples.get(at).copied().unwrap_or_default()
}

/// Milliseconds with one decimal.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut samples: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut samples, 50), Duration::from_millis(51));
        assert_eq!(percentile(&mut samples, 99), Duration::from_millis(100));
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }
}
