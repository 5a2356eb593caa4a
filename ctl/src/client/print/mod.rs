//! How objects are shown: tables made by the server, or the object itself as JSON, YAML, a
//! name, a JSONPath or columns of one's own.

mod columns;
mod jsonpath;
mod table;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub use jsonpath::JsonPath;
pub use table::{Rows, Table, align};

use super::resources::Resource;

/// Asks the server for a table.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What `-o` says.
#[derive(Debug)]
pub enum Format {
    /// A table; with `wide`, every column.
    Table {
        /// Whether columns of low priority are shown too.
        wide: bool,
    },
    /// `-o json`
    Json,
    /// `-o yaml`
    Yaml,
    /// `-o name`
    Name,
    /// `-o jsonpath=`
    JsonPath(JsonPath),
    /// `-o custom-columns=`
    Columns(columns::Columns),
}

impl Format {
    /// Reads the value of `-o`.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else {
            return Ok(Self::Table { wide: false });
        };
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return Ok(Self::JsonPath(JsonPath::parse(template)?));
        }
        if let Some(spec) = text.strip_prefix("custom-columns=") {
            return Ok(Self::Columns(columns::Columns::parse(spec)?));
        }
        Ok(match text {
            "wide" => Self::Table { wide: true },
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            _ => bail!(
                "unable to match a printer suitable for the output format \"{text}\", allowed formats are: wide,json,yaml,name,jsonpath=,custom-columns="
            ),
        })
    }
}

/// Shows an object or a list of them; not for tables.
pub fn render(format: &Format, value: Value, resource: &Resource) -> Result<String> {
    Ok(match format {
        Format::Table { .. } => bail!("a table is made by the server"),
        Format::Json => serde_json::to_string_pretty(&tidy(value))? + "\n",
        Format::Yaml => yaml(&tidy(value))?,
        Format::Name => names(&value, resource),
        Format::JsonPath(path) => path.render(&value)?,
        Format::Columns(columns) => columns.render(&value)?,
    })
}

/// YAML as kubectl prints it.
pub fn yaml(value: &Value) -> Result<String> {
    let text = serde_saphyr::to_string(value).context("cannot write YAML")?;
    Ok(text)
}

/// Leaves out what only machines read.
fn tidy(mut value: Value) -> Value {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(Value::Array(items)) = value.get_mut("items") {
        for item in items.iter_mut() {
            *item = tidy(item.take());
        }
    }
    value
}

fn names(value: &Value, resource: &Resource) -> String {
    let items = match value.get("items").and_then(Value::as_array) {
        Some(items) => items.iter().collect(),
        None => vec![value],
    };
    let name = |item: &Value| {
        let kind = item["kind"]
            .as_str()
            .unwrap_or(&resource.kind)
            .to_lowercase();
        let group = item["apiVersion"]
            .as_str()
            .and_then(|v| v.split_once('/'))
            .map(|(g, _)| g);
        let qualified = match group {
            Some(group) => format!("{kind}.{group}"),
            None => kind,
        };
        format!(
            "{qualified}/{}\n",
            item["metadata"]["name"].as_str().unwrap_or_default()
        )
    };
    items.into_iter().map(name).collect()
}

/// Sorts objects by the first value that a path finds in each.
pub fn sort(items: &mut [Value], path: &str) -> Result<()> {
    let path = JsonPath::parse(&braced(path))?;
    items.sort_by(|a, b| compare(path.first(a), path.first(b)));
    Ok(())
}

/// Allows `.a.b` where `{.a.b}` is meant.
pub fn braced(path: &str) -> String {
    if path.contains('{') {
        return path.to_owned();
    }
    let dot = if path.starts_with('.') { "" } else { "." };
    format!("{{{dot}{path}}}")
}

/// Numbers by value, all else as text; what is missing first.
fn compare(a: Option<&Value>, b: Option<&Value>) -> std::cmp::Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .unwrap_or_default()
            .total_cmp(&b.as_f64().unwrap_or_default()),
        (Some(a), Some(b)) => jsonpath::plain(a).cmp(&jsonpath::plain(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
