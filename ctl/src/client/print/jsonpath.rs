//! JSONPath templates as kubectl understands them: text, `{.a.b}`, `{.items[*].x}`, `[0]`,
//! `[-1]`, `[1:3]`, `['k']`, `[?(@.a=="b")]`, `..`, `{range}…{end}`, `{"\n"}`.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

/// A parsed template.
#[derive(Debug)]
pub struct JsonPath(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug)]
enum Step {
    Field(String),
    Every,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Descend,
    Filter(Filter),
}

#[derive(Debug)]
struct Filter {
    path: Vec<Step>,
    compare: Option<(Operator, Value)>,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Equal,
    Differ,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl JsonPath {
    /// Reads a template.
    pub fn parse(template: &str) -> Result<Self> {
        let mut rest = template;
        let nodes = nodes(&mut rest, false)?;
        Ok(Self(nodes))
    }

    /// Fills the template in.
    pub fn render(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        write(&self.0, value, &mut out);
        Ok(out)
    }

    /// The first value that the template's first path finds.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.0.iter().find_map(|node| match node {
            Node::Path(steps) => select(steps, value).into_iter().next(),
            _ => None,
        })
    }

    /// What is found, joined by commas.
    pub fn joined(&self, value: &Value) -> String {
        let Some(Node::Path(steps)) = self.0.first() else {
            return String::new();
        };
        let found: Vec<String> = select(steps, value).into_iter().map(plain).collect();
        found.join(",")
    }
}

fn write(nodes: &[Node], here: &Value, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(steps) => {
                let found: Vec<String> = select(steps, here).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Node::Range(steps, body) => {
                for item in select(steps, here) {
                    write(body, item, out);
                }
            }
        }
    }
}

/// A value as text: strings bare, the rest as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn select<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| step.apply(value))
            .collect();
    }
    found
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Every => children(value),
            Self::Index(index) => {
                let Some(list) = value.as_array() else {
                    return Vec::new();
                };
                position(*index, list.len())
                    .and_then(|at| list.get(at))
                    .into_iter()
                    .collect()
            }
            Self::Slice(from, to) => slice(value, *from, *to),
            Self::Descend => descendants(value),
            Self::Filter(filter) => children(value)
                .into_iter()
                .filter(|item| filter.holds(item))
                .collect(),
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descendants(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    for child in children(value) {
        found.extend(descendants(child));
    }
    found
}

fn position(index: i64, len: usize) -> Option<usize> {
    if index < 0 {
        return len.checked_sub(index.unsigned_abs() as usize);
    }
    Some(index as usize)
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>) -> Vec<&Value> {
    let Some(list) = value.as_array() else {
        return Vec::new();
    };
    let from = position(from.unwrap_or(0), list.len()).unwrap_or(0);
    let to = to
        .map_or(Some(list.len()), |to| position(to, list.len()))
        .unwrap_or(0);
    list.get(from.min(list.len())..to.min(list.len()))
        .unwrap_or_default()
        .iter()
        .collect()
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let found = select(&self.path, item);
        let Some((operator, wanted)) = &self.compare else {
            return !found.is_empty();
        };
        found.iter().any(|value| operator.holds(value, wanted))
    }
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left.as_f64(), right.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => plain(left).cmp(&plain(right)),
        };
        match self {
            Self::Equal => order.is_eq(),
            Self::Differ => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// Reads nodes up to the end, or up to `{end}` inside a range.
fn nodes(rest: &mut &str, in_range: bool) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            nodes.push(Node::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if open > 0 {
            nodes.push(Node::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..])?;
        let inner = rest[open + 1..open + close].trim();
        *rest = &rest[open + close + 1..];
        if inner == "end" {
            if in_range {
                return Ok(nodes);
            }
            bail!("jsonpath: not in range, nothing to end");
        }
        if let Some(path) = inner.strip_prefix("range ") {
            let steps = steps(path.trim())?;
            nodes.push(Node::Range(steps, self::nodes(rest, true)?));
            continue;
        }
        nodes.push(match quoted(inner) {
            Some(text) => Node::Text(text),
            None => Node::Path(steps(inner)?),
        });
    }
    if in_range {
        bail!("jsonpath: a range lacks its {{end}}");
    }
    Ok(nodes)
}

/// Offset of the brace that closes the one at the start, past quotes.
fn closing(text: &str) -> Result<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Ok(at),
            _ => {}
        }
    }
    bail!("jsonpath: unclosed action: {text}")
}

/// The text of `"..."` or `'...'` with its escapes.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Some(out)
}

fn steps(path: &str) -> Result<Vec<Step>> {
    let mut rest = path.trim().trim_start_matches(['$', '@']);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            rest = after;
            if rest.starts_with('[') {
                continue;
            }
            rest = field(rest, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = field(after, &mut steps)?;
        } else if rest.starts_with('[') {
            let close = bracket(rest)?;
            steps.push(subscript(rest[1..close].trim())?);
            rest = &rest[close + 1..];
        } else {
            bail!("jsonpath: unrecognized text {rest:?} in {path:?}; a path begins with a dot");
        }
    }
    Ok(steps)
}

/// Reads a field's name; `\.` is a dot inside it.
fn field<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Result<&'a str> {
    if let Some(after) = rest.strip_prefix('*') {
        steps.push(Step::Every);
        return Ok(after);
    }
    let mut name = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(c),
        }
    }
    if !name.is_empty() {
        steps.push(Step::Field(name));
    }
    Ok(&rest[end..])
}

/// Offset of the bracket that closes the one at the start.
fn bracket(text: &str) -> Result<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => {}
        }
    }
    bail!("jsonpath: unterminated array in {text:?}")
}

fn subscript(inner: &str) -> Result<Step> {
    let number = |text: &str| -> Result<i64> {
        text.trim()
            .parse()
            .map_err(|_| anyhow!("jsonpath: invalid array index {inner:?}"))
    };
    if inner == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = quoted(inner) {
        return Ok(Step::Field(name));
    }
    if let Some(expression) = inner.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return Ok(Step::Filter(filter(expression)?));
    }
    if let Some((from, to)) = inner.split_once(':') {
        let bound = |text: &str| match text.trim() {
            "" => Ok(None),
            text => number(text).map(Some),
        };
        return Ok(Step::Slice(bound(from)?, bound(to)?));
    }
    Ok(Step::Index(number(inner)?))
}

fn filter(expression: &str) -> Result<Filter> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::Differ),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    for (text, operator) in OPERATORS {
        let Some((left, right)) = expression.split_once(text) else {
            continue;
        };
        let right = right.trim();
        let value = match quoted(right) {
            Some(text) => Value::String(text),
            None => serde_json::from_str(right)
                .map_err(|_| anyhow!("jsonpath: {right:?} is neither a number nor quoted"))?,
        };
        return Ok(Filter {
            path: steps(left)?,
            compare: Some((operator, value)),
        });
    }
    Ok(Filter {
        path: steps(expression)?,
        compare: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates() {
        let value = json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 3, "c": [{"t": "R", "s": "True"}]},
                {"metadata": {"name": "b"}, "n": 5, "c": []},
            ]
        });
        for (template, expected) in [
            ("{.kind}", "List"),
            ("{$.kind}", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}{\"\\n\"}", "a\n"),
            ("{.items[-1:].metadata.name}", "b"),
            ("{.items[0:1].n}", "3"),
            ("{range .items[*]}{.metadata.name}={.n};{end}", "a=3;b=5;"),
            ("{.items[?(@.n>4)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name==\"a\")].n}", "3"),
            ("{.items[0].c[?(@.t=='R')].s}", "True"),
            ("{..name}", "a b"),
            ("{.items[0].metadata.labels.x\\.y/z}", "1"),
            ("{.items[0].metadata.labels['x.y/z']}", "1"),
            ("x {.missing} y", "x  y"),
            (
                "{.items[0].metadata}",
                r#"{"labels":{"x.y/z":"1"},"name":"a"}"#,
            ),
        ] {
            let path = JsonPath::parse(template).unwrap();
            assert_eq!(path.render(&value).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in ["{.a", "{range .a}", "{end}", "{.a[x]}", "{a}", "{.a[0}"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
