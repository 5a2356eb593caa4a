//! Metrics in Prometheus' text format.

use std::fmt::Write as _;

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

/// One label; what would end its text is escaped.
pub fn label(name: &'static str, value: &str) -> (&'static str, String) {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    (name, escaped.replace('\n', "\\n"))
}

/// The values of one name.
#[derive(Debug)]
pub struct Family {
    name: String,
    kind: &'static str,
    lines: String,
}

// === impl Family ===

impl Family {
    /// A family without values; `kind` is `counter` or `gauge`.
    pub fn new(name: &str, kind: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            lines: String::new(),
        }
    }

    /// Adds a value.
    pub fn add(&mut self, labels: Labels, value: f64) {
        let labels: Vec<String> = labels
            .into_iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.lines, "{}{labels} {value}", self.name);
    }

    /// As text.
    pub fn render(&self) -> String {
        format!("# TYPE {} {}\n{}", self.name, self.kind, self.lines)
    }
}
