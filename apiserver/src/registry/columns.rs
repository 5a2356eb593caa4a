//! Columns of a kind's table, as `kubectl get` prints them.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::json_path::JsonPath;
use super::value;

/// A column.
#[derive(Clone)]
pub struct Column {
    /// Heading, in title case (`kubectl` prints it in capitals).
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: Cow<'static, str>,
    /// `name` for the column that names the object; empty for all others.
    pub format: Cow<'static, str>,
    /// One sentence for people.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 and more only with `-o wide`.
    pub priority: i32,
    cell: Cell,
}

/// Computes a cell from the object and the present time.
pub type CellFn = fn(&Value, Timestamp) -> Value;

#[derive(Clone)]
enum Cell {
    Path(String),
    Computed(CellFn),
    Custom(JsonPath),
}

// === impl Column ===

impl Column {
    /// The object's name.
    pub fn name() -> Self {
        Self {
            format: "name".into(),
            description: "Name must be unique within a namespace.".into(),
            ..Self::path("Name", "string", "metadata.name")
        }
    }

    /// The object's age, as `5d3h`.
    pub fn age() -> Self {
        Self {
            description: "CreationTimestamp is a timestamp representing the server time when this object was created.".into(),
            ..Self::computed("Age", "string", |object, now| {
                age(object, "metadata.creationTimestamp", now).into()
            })
        }
    }

    /// The value at a dotted path.
    pub fn path(name: &'static str, kind: &'static str, path: &str) -> Self {
        Self::new(name, kind, Cell::Path(path.to_owned()))
    }

    /// A value computed from the object and the present time.
    pub fn computed(name: &'static str, kind: &'static str, cell: CellFn) -> Self {
        Self::new(name, kind, Cell::Computed(cell))
    }

    /// A column of a custom resource: the value at a JSONPath. `kind` is also `date`.
    pub fn custom(name: String, kind: String, path: JsonPath) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            ..Self::new("", "", Cell::Custom(path))
        }
    }

    fn new(name: &'static str, kind: &'static str, cell: Cell) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: "".into(),
            description: "".into(),
            priority: 0,
            cell,
        }
    }

    /// Shows it only with `-o wide`.
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    /// Sets the sentence for people.
    pub fn described(mut self, description: &'static str) -> Self {
        self.description = description.into();
        self
    }

    /// The cell of an object.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.cell {
            Cell::Computed(cell) => cell(object, now),
            Cell::Path(path) => match value::at(object, path) {
                Some(found) => found.clone(),
                None if self.kind == "string" => "".into(),
                None => Value::Null,
            },
            Cell::Custom(path) => match path.first(object) {
                Some(found) => self.shown(found, now),
                None => Value::Null,
            },
        }
    }

    /// A custom resource's value as a cell of this column's type; nothing where it is of another.
    fn shown(&self, found: &Value, now: Timestamp) -> Value {
        match (self.kind.as_ref(), found) {
            ("string", Value::String(_)) => found.clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(number)) => match number.as_i64() {
                Some(whole) => whole.into(),
                None => number.as_f64().map(|f| f as i64).into(),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(then) => human_duration(now.as_second() - then.as_second()).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// The age of the time at a path, as people read it; `<unknown>` when there is none.
pub fn age(object: &Value, path: &str, now: Timestamp) -> String {
    match value::text(object, path).parse::<Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A duration in seconds as Kubernetes shows it: `42s`, `3m20s`, `5h`, `2d4h`, `1y30d`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_upstream() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (190_000, "2d4h"),
            (700_000, "8d"),
            (63_072_000, "2y"),
            (65_664_000, "2y30d"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
