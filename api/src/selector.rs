//! Label selectors and field selectors: their text form, and what they match.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use thiserror::Error;

use crate::names;

/// A selector's text or structure is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

fn wrong<T>(message: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError(message.into()))
}

/// One demand on a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// The label is there with one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    Absent(String),
    /// The label is an integer greater than this (node affinity only).
    Greater(String, i64),
    /// The label is an integer less than this (node affinity only).
    Less(String, i64),
}

impl Requirement {
    fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Self::NotIn(key, values) => !get(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Self::Exists(key) => get(key).is_some(),
            Self::Absent(key) => get(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|n| n > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }

    /// Reads the structured form: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub fn of(key: &str, operator: &str, values: &[String]) -> Result<Self, SelectorError> {
        let key = key.to_owned();
        let one_number = || match values {
            [value] => value
                .parse::<i64>()
                .map_err(|_| SelectorError(format!("{value:?}: must be an integer"))),
            _ => wrong(format!("operator {operator:?} needs exactly one value")),
        };
        match operator {
            "In" | "NotIn" if values.is_empty() => wrong(format!(
                "for '{}' operator, values set can't be empty",
                operator.to_lowercase()
            )),
            "In" => Ok(Self::In(key, values.to_vec())),
            "NotIn" => Ok(Self::NotIn(key, values.to_vec())),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                wrong("values set must be empty for exists and does not exist")
            }
            "Exists" => Ok(Self::Exists(key)),
            "DoesNotExist" => Ok(Self::Absent(key)),
            "Gt" => Ok(Self::Greater(key, one_number()?)),
            "Lt" => Ok(Self::Less(key, one_number()?)),
            _ => wrong(format!(
                "{operator:?} is not a valid label selector operator"
            )),
        }
    }
}

/// Demands on labels, all of which must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Demands that all hold.
    pub fn all(requirements: Vec<Requirement>) -> Self {
        Self {
            requirements,
            nothing: false,
        }
    }

    /// Selects by equality, as `spec.selector` of a Service does.
    pub fn from_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let demand = |(k, v): (&String, &String)| Requirement::In(k.clone(), vec![v.clone()]);
        Self::all(map.into_iter().map(demand).collect())
    }

    /// Reads a `LabelSelector`; an empty one selects everything. For the places where a missing
    /// selector selects nothing, the caller says so.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut all = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            all.push(Requirement::In(key.clone(), vec![value.clone()]));
        }
        for part in selector.match_expressions.iter().flatten() {
            let values = part.values.as_deref().unwrap_or_default();
            if matches!(part.operator.as_str(), "Gt" | "Lt") {
                return wrong(format!(
                    "{:?} is not a valid label selector operator",
                    part.operator
                ));
            }
            all.push(Requirement::of(&part.key, &part.operator, values)?);
        }
        Ok(Self::all(all))
    }

    /// The demands.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether the labels that `get` finds match.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|part| part.matches(&get))
    }
}

/// Splits at the commas outside parentheses.
fn clauses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn checked_key(key: &str) -> Result<String, SelectorError> {
    let key = key.trim();
    names::qualified_name(key)
        .map_err(|fault| SelectorError(format!("key: Invalid value: {key:?}: {fault}")))?;
    Ok(key.to_owned())
}

fn checked_value(key: &str, value: &str) -> Result<String, SelectorError> {
    let value = value.trim();
    names::label_value(value).map_err(|fault| {
        SelectorError(format!(
            "values[0][{key}]: Invalid value: {value:?}: {fault}"
        ))
    })?;
    Ok(value.to_owned())
}

fn value_set(key: &str, text: &str) -> Result<Vec<String>, SelectorError> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'));
    let Some(inner) = inner else {
        return wrong(format!("found '{}', expected: '('", text.trim()));
    };
    inner
        .split(',')
        .map(|value| checked_value(key, value))
        .collect()
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::Absent(checked_key(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        let key = checked_key(key)?;
        let value = checked_value(&key, value)?;
        return Ok(Requirement::NotIn(key, vec![value]));
    }
    for operator in ["==", "="] {
        if let Some((key, value)) = text.split_once(operator) {
            let key = checked_key(key)?;
            let value = checked_value(&key, value)?;
            return Ok(Requirement::In(key, vec![value]));
        }
    }
    for operator in ['>', '<'] {
        if let Some((key, value)) = text.split_once(operator) {
            let key = checked_key(key)?;
            let Ok(bound) = value.trim().parse() else {
                return wrong(format!(
                    "for 'Gt', 'Lt' operators, the value must be an integer: {:?}",
                    value.trim()
                ));
            };
            return Ok(match operator {
                '>' => Requirement::Greater(key, bound),
                _ => Requirement::Less(key, bound),
            });
        }
    }
    let Some((key, rest)) = text.split_once(|c: char| c.is_whitespace() || c == '(') else {
        return Ok(Requirement::Exists(checked_key(text)?));
    };
    let rest = rest.trim_start();
    let key = checked_key(key)?;
    if let Some(set) = rest.strip_prefix("notin") {
        return Ok(Requirement::NotIn(key.clone(), value_set(&key, set)?));
    }
    if let Some(set) = rest.strip_prefix("in") {
        return Ok(Requirement::In(key.clone(), value_set(&key, set)?));
    }
    wrong(format!(
        "found '{rest}', expected: in, notin, =, ==, !=, gt, lt"
    ))
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Self::everything());
        }
        let unparsable =
            |fault: SelectorError| SelectorError(format!("unable to parse requirement: {fault}"));
        let parts: Result<Vec<_>, _> = clauses(text).into_iter().map(requirement).collect();
        Ok(Self::all(parts.map_err(unparsable)?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Self::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Self::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
            Self::Exists(key) => f.write_str(key),
            Self::Absent(key) => write!(f, "!{key}"),
            Self::Greater(key, bound) => write!(f, "{key}>{bound}"),
            Self::Less(key, bound) => write!(f, "{key}<{bound}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

/// A field selector: `metadata.name=x,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms, all of which must hold.
    pub terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field, as `spec.nodeName`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether it must be equal; else it must differ.
    pub equal: bool,
}

impl FieldSelector {
    /// Whether the fields that `get` finds match; a missing field is the empty string.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.terms
            .iter()
            .all(|term| (get(&term.field) == term.value) == term.equal)
    }

    /// The value that a field is required to equal, if one is.
    pub fn required(&self, field: &str) -> Option<&str> {
        let term = self
            .terms
            .iter()
            .find(|term| term.equal && term.field == field)?;
        Some(&term.value)
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_fields(text) {
            let (field, value, equal) = match part.split_once("!=") {
                Some((field, value)) => (field, value, false),
                None => match part.split_once("==").or_else(|| part.split_once('=')) {
                    Some((field, value)) => (field, value, true),
                    None => {
                        return wrong(format!(
                            "invalid selector: '{text}'; can't understand '{part}'"
                        ));
                    }
                },
            };
            let value = unescape(value.trim())?;
            terms.push(FieldTerm {
                field: field.trim().to_owned(),
                value,
                equal,
            });
        }
        Ok(Self { terms })
    }
}

/// Splits at the commas that no backslash escapes.
fn split_fields(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(next @ ('\\' | ',' | '=')) => out.push(next),
            _ => {
                return wrong(format!(
                    "invalid field selector: invalid escape sequence in {value:?}"
                ));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn label_selectors() {
        for (selector, set, expected) in [
            ("", "a=b", true),
            ("a=b", "a=b", true),
            ("a==b", "a=c", false),
            ("a!=b", "", true),
            ("a in (b, c)", "a=c", true),
            ("a in (b,c),d", "a=c", false),
            ("a notin (b,c)", "a=b", false),
            ("!a", "b=1", true),
            ("a", "a=", true),
            ("n>3", "n=4", true),
            ("n<3", "n=x", false),
            ("a=", "a=", true),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!(
                parsed.matches(&labels(set)),
                expected,
                "{selector} on {set}"
            );
        }
        for bad in [
            "a in b", "=b", "a=b=c", "a in (b", "a b", "a,,b", "a>x", "a=-",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors() {
        let parsed: FieldSelector = r"spec.nodeName=n1,status.phase!=Running,x=a\,b"
            .parse()
            .unwrap();
        assert_eq!(parsed.required("spec.nodeName"), Some("n1"));
        assert_eq!(parsed.required("x"), Some("a,b"));
        assert!(parsed.matches_with(|field| match field {
            "spec.nodeName" => "n1",
            "x" => "a,b",
            _ => "",
        }));
        assert!("spec".parse::<FieldSelector>().is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Selector>();
            let _ = text.parse::<FieldSelector>();
        }

        #[test]
        fn prints_what_it_parses(text in "[ab]( in \\([xy],[xy]\\)|=[xy]|!=[xy])?(,!c)?") {
            let parsed: Selector = text.parse().unwrap();
            prop_assert_eq!(parsed.to_string().parse::<Selector>().unwrap(), parsed);
        }
    }
}
