//! `explain`: a resource's fields and what they mean, from the server's OpenAPI v3.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::session::Session;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// TYPE[.FIELD...]
    path: String,
    /// Show all fields at once
    #[arg(long)]
    recursive: bool,
}

/// Runs `explain`.
pub async fn run(session: &Session, args: &ExplainArgs) -> Result<()> {
    let mut parts = args.path.split('.');
    let resource = session.resource(parts.next().unwrap_or_default()).await?;
    let document = match resource.group.as_str() {
        "" => format!("/openapi/v3/api/{}", resource.version),
        group => format!("/openapi/v3/apis/{group}/{}", resource.version),
    };
    let document = session.get(&document).await?;
    let schemas = &document["components"]["schemas"];
    let mut schema = schema_of(schemas, &resource.group, &resource.version, &resource.kind)
        .with_context(|| format!("the server does not describe {}", resource.kind))?;
    let mut description = schema["description"].as_str();
    let mut name = None;
    for field in parts {
        let parent = resolve(schemas, schema);
        let Some(property) = element(parent)["properties"].get(field) else {
            bail!("field \"{field}\" does not exist");
        };
        description = property["description"].as_str();
        schema = property;
        name = Some(field);
    }
    println!(
        "GROUP:      {}\nKIND:       {}\nVERSION:    {}\n",
        resource.group, resource.kind, resource.version
    );
    if let Some(field) = name {
        println!("FIELD: {field} <{}>\n", type_name(schema));
    }
    let resolved = resolve(schemas, element_of(schemas, schema));
    let text = description
        .or(resolved["description"].as_str())
        .unwrap_or("<empty>");
    println!("DESCRIPTION:\n{}", wrapped(text, 4));
    if resolved["properties"].is_object() {
        println!("FIELDS:");
        fields(schemas, resolved, args.recursive, 2, &mut Vec::new());
    }
    Ok(())
}

fn schema_of<'a>(schemas: &'a Value, group: &str, version: &str, kind: &str) -> Option<&'a Value> {
    schemas.as_object()?.values().find(|schema| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds
            .into_iter()
            .flatten()
            .any(|k| k["group"] == group && k["version"] == version && k["kind"] == kind)
    })
}

/// Follows `$ref`, also where it stands in `allOf`.
fn resolve<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"]
        .as_str()
        .or(schema["allOf"][0]["$ref"].as_str());
    match reference.and_then(|text| text.rsplit('/').next()) {
        Some(name) => resolve(schemas, &schemas[name]),
        None => element_of(schemas, schema),
    }
}

fn element(schema: &Value) -> &Value {
    schema.get("items").unwrap_or(schema)
}

fn element_of<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner).filter(|inner| inner.is_object()) {
            return resolve(schemas, inner);
        }
    }
    schema
}

/// The type as kubectl names it: `string`, `[]Container`, `map[string]string`.
fn type_name(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"]
        .as_str()
        .or(schema["allOf"][0]["$ref"].as_str())
    {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return name.rsplit('.').next().unwrap_or(name).to_owned();
    }
    match schema["type"].as_str() {
        Some("array") => format!("[]{}", type_name(&schema["items"])),
        Some("object") => match schema.get("additionalProperties").filter(|a| a.is_object()) {
            Some(value) => format!("map[string]{}", type_name(value)),
            None => "Object".to_owned(),
        },
        Some(name) => name.to_owned(),
        None => "Object".to_owned(),
    }
}

fn fields(schemas: &Value, schema: &Value, recursive: bool, depth: usize, path: &mut Vec<String>) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let kind = type_name(property);
        let mark = if required.contains(&name.as_str()) {
            " -required-"
        } else {
            ""
        };
        println!("{:depth$}{name}\t<{kind}>{mark}", "");
        if !recursive {
            let text = property["description"].as_str().unwrap_or_default();
            println!("{}", wrapped(text, depth + 2));
            continue;
        }
        // A type that contains itself (JSONSchemaProps) would never end.
        if !path.contains(&kind) {
            path.push(kind);
            fields(
                schemas,
                resolve(schemas, element_of(schemas, property)),
                true,
                depth + 2,
                path,
            );
            path.pop();
        }
    }
}

/// Breaks text into lines that fit the terminal.
fn wrapped(text: &str, margin: usize) -> String {
    let width = crate::terminal::width().unwrap_or(80).max(40);
    let mut out = String::new();
    for paragraph in text.split('\n') {
        let mut line = " ".repeat(margin);
        let mut empty = true;
        for word in paragraph.split_whitespace() {
            if !empty && line.len() + 1 + word.len() > width {
                out.push_str(&line);
                out.push('\n');
                line = " ".repeat(margin);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
