//! Tables as kubectl lays them out: upper-case headers, three spaces between columns.

use anyhow::{Result, bail};
use serde_json::Value;

use super::jsonpath::{JsonPath, plain};

/// A table that the server made.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    wide_only: bool,
}

#[derive(Clone, Debug)]
struct Row {
    cells: Vec<String>,
    object: Value,
}

impl Row {
    fn metadata(&self, field: &str) -> &str {
        self.object["metadata"][field].as_str().unwrap_or_default()
    }
}

impl Table {
    /// Reads `meta.k8s.io/v1` `Table`.
    pub fn read(reply: &Value) -> Result<Self> {
        if reply["kind"].as_str() != Some("Table") {
            bail!(
                "the server sent no table but a {}",
                reply["kind"].as_str().unwrap_or("value")
            );
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let columns = list(&reply["columnDefinitions"])
            .iter()
            .map(|column| Column {
                name: column["name"].as_str().unwrap_or_default().to_uppercase(),
                wide_only: column["priority"].as_i64().unwrap_or_default() > 0,
            })
            .collect();
        let rows = list(&reply["rows"])
            .into_iter()
            .map(|mut row| Row {
                cells: list(&row["cells"]).iter().map(cell).collect(),
                object: row["object"].take(),
            })
            .collect();
        Ok(Self { columns, rows })
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the rows of a table with the same columns.
    pub fn append(&mut self, other: Table) {
        self.rows.extend(other.rows);
        if self.columns.is_empty() {
            self.columns = other.columns;
        }
    }

    /// Adds a column per label, and one with all of them.
    pub fn add_labels(&mut self, labels: &[String], all: bool) {
        for label in labels {
            let name = label.rsplit('/').next().unwrap_or(label).to_uppercase();
            self.columns.push(Column {
                name,
                wide_only: false,
            });
            for row in &mut self.rows {
                let value = row.object["metadata"]["labels"][label.as_str()].as_str();
                row.cells.push(value.unwrap_or_default().to_owned());
            }
        }
        if all {
            self.columns.push(Column {
                name: "LABELS".to_owned(),
                wide_only: false,
            });
            for row in &mut self.rows {
                row.cells.push(joined_labels(&row.object));
            }
        }
    }

    /// Sorts the rows by a path into their objects.
    pub fn sort_by(&mut self, path: &str) -> Result<()> {
        let path = JsonPath::parse(&super::braced(path))?;
        self.rows
            .sort_by(|a, b| super::compare(path.first(&a.object), path.first(&b.object)));
        Ok(())
    }

    /// Lays the table out.
    pub fn render(
        &self,
        wide: bool,
        namespaces: bool,
        headers: bool,
        prefix: Option<&str>,
    ) -> String {
        let mut lines = Vec::new();
        if headers {
            lines.push(self.header(wide, namespaces));
        }
        lines.extend(
            self.rows
                .iter()
                .map(|row| self.line(row, wide, namespaces, prefix)),
        );
        align(&lines)
    }

    fn shown(&self, wide: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(move |&at| wide || !self.columns[at].wide_only)
    }

    fn header(&self, wide: bool, namespaces: bool) -> Vec<String> {
        let namespace = namespaces.then(|| "NAMESPACE".to_owned());
        namespace
            .into_iter()
            .chain(self.shown(wide).map(|at| self.columns[at].name.clone()))
            .collect()
    }

    fn line(&self, row: &Row, wide: bool, namespaces: bool, prefix: Option<&str>) -> Vec<String> {
        let mut line: Vec<String> = Vec::new();
        if namespaces {
            line.push(row.metadata("namespace").to_owned());
        }
        for at in self.shown(wide) {
            let text = row.cells.get(at).cloned().unwrap_or_default();
            line.push(match prefix {
                Some(prefix) if self.columns[at].name == "NAME" => format!("{prefix}/{text}"),
                _ => text,
            });
        }
        line
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        other => plain(other),
    }
}

fn joined_labels(object: &Value) -> String {
    let Some(labels) = object["metadata"]["labels"]
        .as_object()
        .filter(|l| !l.is_empty())
    else {
        return "<none>".to_owned();
    };
    let pairs: Vec<String> = labels
        .iter()
        .map(|(k, v)| format!("{k}={}", plain(v)))
        .collect();
    pairs.join(",")
}

/// Lays out lines of cells in columns; the last is not padded.
pub fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(at))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    lines.iter().map(|line| padded(line, &widths)).collect()
}

fn padded(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (at, cell) in line.iter().enumerate() {
        text.push_str(cell);
        if at + 1 < line.len() {
            let padding = widths[at].saturating_sub(cell.chars().count()) + 3;
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Prints tables of a watch: the header once, columns that only grow.
pub struct Rows {
    wide: bool,
    namespaces: bool,
    headers: bool,
    columns: Vec<Column>,
    widths: Vec<usize>,
}

impl Rows {
    /// Nothing was printed yet.
    pub fn new(wide: bool, namespaces: bool, headers: bool) -> Self {
        Self {
            wide,
            namespaces,
            headers,
            columns: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// The lines of the next rows. Later tables of a watch leave out the columns.
    pub fn render(&mut self, mut table: Table) -> String {
        if table.columns.is_empty() {
            table.columns = self.columns.clone();
        } else {
            self.columns = table.columns.clone();
        }
        let mut lines = Vec::new();
        if self.headers && !table.is_empty() {
            lines.push(table.header(self.wide, self.namespaces));
            self.headers = false;
        }
        lines.extend(
            table
                .rows
                .iter()
                .map(|row| table.line(row, self.wide, self.namespaces, None)),
        );
        for line in &lines {
            self.widths.resize(self.widths.len().max(line.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        lines
            .iter()
            .map(|line| padded(line, &self.widths))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table() -> Table {
        Table::read(&json!({
            "kind": "Table",
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["a", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "x", "labels": {"k": "v"}}}},
                {"cells": ["longer", 7, null], "object": {"metadata": {"namespace": "y"}}},
            ]
        }))
        .unwrap()
    }

    #[test]
    fn laid_out_as_kubectl() {
        assert_eq!(
            table().render(false, false, true, None),
            "NAME     READY\na        1/1\nlonger   7\n"
        );
        assert_eq!(
            table().render(true, true, false, Some("pod")),
            "x   pod/a        1/1   10.0.0.1\ny   pod/longer   7     <none>\n"
        );
    }

    #[test]
    fn labels_are_columns() {
        let mut table = table();
        table.add_labels(&["k".to_owned()], true);
        assert_eq!(
            table.render(false, false, true, None),
            "NAME     READY   K   LABELS\na        1/1     v   k=v\nlonger   7           <none>\n"
        );
    }
}
