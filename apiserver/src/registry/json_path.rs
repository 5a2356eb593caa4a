//! The simple JSONPaths of custom resource definitions: fields, indexes, keys in quotes, filters
//! on equality, and everything (`[*]`).
//!
//! `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels['a\.b']`.

use serde_json::Value;

/// A path into an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at this path is this.
    Where(Vec<String>, Value, bool),
}

/// A path cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPath(String);

// === impl JsonPath ===

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    /// [`BadPath`] says what is not understood.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let mut steps = Vec::new();
        let mut rest = text;
        if rest.is_empty() {
            return Err(BadPath("may not be empty".to_owned()));
        }
        while !rest.is_empty() {
            rest = match rest.as_bytes()[0] {
                b'.' => field(&rest[1..], &mut steps)?,
                b'[' => bracket(&rest[1..], &mut steps)?,
                _ if steps.is_empty() => {
                    return Err(BadPath(
                        "must be a simple json path starting with .".to_owned(),
                    ));
                }
                other => return Err(BadPath(format!("unexpected character {:?}", other as char))),
            };
        }
        Ok(Self(steps))
    }

    /// The fields, when the path is of fields only.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let step = |step: &'_ Step| match step {
            Step::Field(_) => Some(()),
            _ => None,
        };
        self.0.iter().try_for_each(step)?;
        Some(
            self.0
                .iter()
                .filter_map(|step| match step {
                    Step::Field(name) => Some(name.as_str()),
                    _ => None,
                })
                .collect(),
        )
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = vec![object];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| step.follow(value))
                .collect();
        }
        found.into_iter().find(|value| !value.is_null())
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), value) => value.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let length = items.len() as i64;
                let at = if *index < 0 { length + index } else { *index };
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .into_iter()
                    .collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            (Self::Where(path, wanted, equal), Value::Array(items)) => {
                let fits = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, name| value.get(name));
                    (found == Some(wanted)) == *equal
                };
                items.iter().filter(fits).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Reads `name` up to the next step; `\.` is a dot of the name.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, BadPath> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            '{' | '}' | '(' | ')' | ']' => {
                return Err(BadPath(format!("unexpected character {c:?}")));
            }
            c => name.push(c),
        }
    }
    let rest = &text[end..];
    match name.as_str() {
        // `.[0]`, `.['a']`
        "" if rest.starts_with('[') => {}
        "" => return Err(BadPath("a field has no name".to_owned())),
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Ok(rest)
}

fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, BadPath> {
    let end = closing(text).ok_or_else(|| BadPath("unterminated array".to_owned()))?;
    let (inner, rest) = (text[..end].trim(), &text[end + 1..]);
    let step = if inner == "*" {
        Step::All
    } else if let Ok(index) = inner.parse() {
        Step::Index(index)
    } else if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        self::filter(filter)?
    } else if let Some(Value::String(name)) = literal(inner) {
        Step::Field(name.replace("\\.", "."))
    } else {
        return Err(BadPath(format!("invalid array index {inner}")));
    };
    steps.push(step);
    Ok(rest)
}

/// Where the bracket closes, texts in quotes aside.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn filter(text: &str) -> Result<Step, BadPath> {
    let bad = || BadPath(format!("unsupported filter {text}"));
    let (left, right, equal) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, right, true),
        (None, Some((left, right))) => (left, right, false),
        (None, None) => return Err(bad()),
    };
    let path = left.trim().strip_prefix("@.").ok_or_else(bad)?;
    let wanted = literal(right.trim()).ok_or_else(bad)?;
    let path = path.split('.').map(str::to_owned).collect();
    Ok(Step::Where(path, wanted, equal))
}

fn literal(text: &str) -> Option<Value> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(inner.into());
        }
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn finds_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                Some("True"),
            ),
            (r".status.conditions[?(@.type=='A')].status", Some("False")),
            (r".status.conditions[0].type", Some("A")),
            (r".status.conditions[-1].type", Some("Ready")),
            (r".status.conditions[*].type", Some("A")),
            (r".metadata.labels['a\.b/c']", Some("x")),
            (r".metadata.labels.a\.b/c", Some("x")),
            (".spec.x", None),
        ] {
            let found = JsonPath::parse(path).unwrap();
            assert_eq!(
                found.first(&object).and_then(Value::as_str),
                expected,
                "{path}"
            );
        }
        assert!(JsonPath::parse("spec").is_err());
        assert!(JsonPath::parse(".a[").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[.a\\[\\]?(@='\"*)\\\\0-9é-]{0,24}") {
            let _ = JsonPath::parse(&text);
        }
    }
}
