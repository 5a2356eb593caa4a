//! The table of figures.

use std::time::Duration;

/// One line of it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// What must be reached.
    pub must: &'static str,
    /// What was seen.
    pub seen: String,
    /// What the neighbour took, in the same run on the same disk.
    pub neighbour: String,
    /// How many cores others kept busy meanwhile.
    pub foreign: f64,
    /// Further figures of the same run.
    pub beside: String,
}

/// The lines gathered so far; each is told at once, so that a run that is cut off shows something.
#[derive(Default)]
pub struct Table(Vec<Figure>);

// === impl Table ===

impl Table {
    /// Adds a line.
    pub fn add(&mut self, figure: Figure) {
        println!("{}: {} (must: {})", figure.name, figure.seen, figure.must);
        for text in [&figure.beside, &figure.neighbour] {
            if !text.is_empty() {
                println!("    {text}");
            }
        }
        self.0.push(figure);
    }

    /// The lines in columns.
    pub fn render(&self) -> String {
        let head = ["FIGURE", "MUST", "SEEN", "OTHERS", "NEIGHBOUR"].map(str::to_owned);
        let rows = self.0.iter().map(|figure| {
            let others = format!("{:.1} cores", figure.foreign);
            let (name, seen) = (figure.name.clone(), figure.seen.clone());
            let must = figure.must.to_owned();
            [name, must, seen, others, figure.neighbour.clone()]
        });
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let width = |at: usize| {
            let widths = rows.iter().map(|row| row[at].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths = [0, 1, 2, 3].map(width);
        let mut text = String::new();
        for [name, must, seen, others, neighbour] in &rows {
            let [a, b, c, d] = widths;
            let line = format!("{name:a$}   {must:b$}   {seen:c$}   {others:d$}   {neighbour}");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A time per operation, in milliseconds.
pub fn each_ms(total: Duration, operations: usize) -> String {
    let each = total.as_secs_f64() * 1000.0 / operations.max(1) as f64;
    format!("{each:.4} ms")
}

/// Operations per second.
pub fn rate(operations: usize, wall: Duration) -> f64 {
    operations as f64 / wall.as_secs_f64().max(1e-9)
}

/// Bytes per second of CPU time, in gigabytes.
pub fn gigabytes(bytes: usize, cpu: Duration) -> f64 {
    bytes as f64 / cpu.as_secs_f64().max(1e-9) / 1e9
}
