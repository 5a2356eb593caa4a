//! The table of figures.

use std::time::Duration;

/// One line of it.
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// What must be reached.
    pub goal: &'static str,
    /// What was reached.
    pub reached: String,
    /// Further figures of the same run.
    pub beside: String,
    /// What it is compared with, measured in the same run.
    pub reference: String,
}

/// Prints a line.
pub fn print(figure: &Figure) {
    println!("{}", figure.name);
    println!(
        "    reached    {}   (goal: {})",
        figure.reached, figure.goal
    );
    for (title, text) in [("beside", &figure.beside), ("reference", &figure.reference)] {
        if !text.is_empty() {
            println!("    {title:10} {text}");
        }
    }
}

/// A time per operation, in milliseconds.
pub fn each_ms(total: Duration, operations: usize) -> String {
    let each = total.as_secs_f64() * 1000.0 / operations.max(1) as f64;
    format!("{each:.3} ms")
}

/// Operations per second.
pub fn rate(operations: usize, wall: Duration) -> f64 {
    operations as f64 / wall.as_secs_f64().max(1e-9)
}
