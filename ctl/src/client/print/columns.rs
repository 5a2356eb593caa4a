//! `-o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image`.

use anyhow::{Result, bail};
use serde_json::Value;

use super::{JsonPath, align, braced};

/// Columns of one's own.
#[derive(Debug)]
pub struct Columns(Vec<(String, JsonPath)>);

impl Columns {
    /// Reads `HEADER:PATH,...`.
    pub fn parse(spec: &str) -> Result<Self> {
        let mut columns = Vec::new();
        for part in spec.split(',') {
            let Some((header, path)) = part.split_once(':') else {
                bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            };
            columns.push((header.to_owned(), JsonPath::parse(&braced(path))?));
        }
        Ok(Self(columns))
    }

    /// A row per object.
    pub fn render(&self, value: &Value) -> Result<String> {
        let items = match value.get("items").and_then(Value::as_array) {
            Some(items) => items.iter().collect(),
            None => vec![value],
        };
        let mut lines = vec![self.0.iter().map(|(header, _)| header.clone()).collect()];
        for item in items {
            let cell = |(_, path): &(String, JsonPath)| match path.joined(item) {
                text if text.is_empty() => "<none>".to_owned(),
                text => text,
            };
            lines.push(self.0.iter().map(cell).collect::<Vec<String>>());
        }
        Ok(align(&lines))
    }
}
