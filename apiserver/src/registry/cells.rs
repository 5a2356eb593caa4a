//! Cells that several kinds' tables share.

use serde_json::Value;

use super::columns::Column;
use super::value;

/// What stands where there is nothing.
pub const NONE: &str = "<none>";

/// A text, or `<none>`.
pub fn or_none(text: impl Into<String>) -> Value {
    let text = text.into();
    match text.is_empty() {
        true => NONE.into(),
        false => text.into(),
    }
}

/// A number at a path; 0 when there is none.
pub fn number(object: &Value, path: &str) -> Value {
    value::integer(object, path).unwrap_or(0).into()
}

/// The texts at a path of every item of a list, joined by commas.
pub fn joined<'a>(items: &'a [Value], path: &str) -> String {
    let texts: Vec<&'a str> = items.iter().map(|item| value::text(item, path)).collect();
    texts.join(",")
}

/// A plain selector or labels, as `a=b,c=d`.
pub fn labels(map: Option<&serde_json::Map<String, Value>>) -> String {
    let entries = map.into_iter().flatten();
    let pairs = entries.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

/// A label selector as people write it: `a=b,c in (d,e)`.
pub fn selector(object: &Value, path: &str) -> Value {
    let Some(selector) = value::at(object, path) else {
        return NONE.into();
    };
    let mut parts = labels(value::map(selector, "matchLabels"));
    for requirement in value::list(selector, "matchExpressions") {
        let key = value::text(requirement, "key");
        let values: Vec<&str> = value::list(requirement, "values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        let part = match value::text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        if !parts.is_empty() {
            parts.push(',');
        }
        parts.push_str(&part);
    }
    or_none(parts)
}

/// The containers and images of the template at `spec.template`, and the label selector at
/// `spec.selector`: the wide columns of workloads.
pub fn workload_columns() -> [Column; 3] {
    let [containers, images] = template_columns();
    let selector = Column::computed("Selector", "string", |object, _| {
        selector(object, "spec.selector")
    });
    [containers, images, selector.wide()]
}

/// The containers and images of the template at `spec.template`.
pub fn template_columns() -> [Column; 2] {
    const CONTAINERS: &str = "spec.template.spec.containers";
    let containers = Column::computed("Containers", "string", |object, _| {
        joined(value::list(object, CONTAINERS), "name").into()
    });
    let images = Column::computed("Images", "string", |object, _| {
        joined(value::list(object, CONTAINERS), "image").into()
    });
    [containers.wide(), images.wide()]
}

/// The access modes of a volume, in short: `RWO,RWX`.
pub fn access_modes(object: &Value, path: &str) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let modes = value::list(object, path).iter().filter_map(Value::as_str);
    modes.map(short).collect::<Vec<_>>().join(",").into()
}
