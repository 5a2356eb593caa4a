//! `describe`: an object for people: its fields by name, its conditions as a table, its events.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use super::args::{self, query};
use super::events;
use super::print::align;
use super::session::Session;

/// The arguments of `describe`.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// TYPE [NAME...] or TYPE/NAME
    #[arg(required = true)]
    words: Vec<String>,
    /// Label selector
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// Leave the events out
    #[arg(long)]
    no_events: bool,
}

/// Runs `describe`.
pub async fn run(session: &Session, args: &DescribeArgs) -> Result<()> {
    let mut first = true;
    for target in args::targets(session, &args.words).await? {
        let objects = match &target.name {
            Some(name) => vec![
                session
                    .get(&target.resource.object(session.namespace(), name))
                    .await?,
            ],
            None => {
                let path = target.resource.collection(Some(session.namespace()));
                let list = session
                    .get(&(path + &query(&[("labelSelector", &args.selector)])))
                    .await?;
                list["items"].as_array().cloned().unwrap_or_default()
            }
        };
        for object in objects {
            if !std::mem::take(&mut first) {
                println!("\n");
            }
            print!("{}", text(&object));
            print!("{}", timing_of(session, &object).await);
            if !args.no_events {
                print!("{}", events_of(session, &object).await?);
            }
        }
    }
    Ok(())
}

async fn events_of(session: &Session, object: &Value) -> Result<String> {
    let metadata = &object["metadata"];
    let uid = metadata["uid"].as_str().unwrap_or_default();
    let selector = format!("involvedObject.uid={uid}");
    let events = events::list(session, metadata["namespace"].as_str(), &selector).await?;
    if events.is_empty() {
        return Ok("Events:  <none>\n".to_owned());
    }
    let table = events::table(&events, false, Timestamp::now());
    Ok(format!("Events:\n{}", indent(&table)))
}

/// What the node's agent did to start a pod, and how long it took. Empty for other objects, and for nodes
/// that do not tell.
async fn timing_of(session: &Session, object: &Value) -> String {
    let node = object["spec"]["nodeName"].as_str();
    let (Some("Pod"), Some(node)) = (object["kind"].as_str(), node) else {
        return String::new();
    };
    let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (namespace, pod) = (name("namespace"), name("name"));
    let path = format!("/api/v1/nodes/{node}/proxy/timing/{namespace}/{pod}");
    match session.get(&path).await {
        Ok(steps) => timing(&steps),
        Err(_) => String::new(),
    }
}

fn timing(steps: &Value) -> String {
    let steps = steps.as_array().filter(|steps| !steps.is_empty());
    let head = ["STEP", "CONTAINER", "AFTER", "TOOK"].map(str::to_owned);
    let mut lines = vec![head.to_vec()];
    for step in steps.into_iter().flatten() {
        let ms = |field: &str| format!("{:.1} ms", step[field].as_f64().unwrap_or_default());
        let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        lines.push(vec![
            text("step"),
            text("container"),
            ms("beganMs"),
            ms("tookMs"),
        ]);
    }
    match lines.len() {
        1 => String::new(),
        _ => format!("Start, as the node did it:\n{}", indent(&align(&lines))),
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The object without its events.
fn text(object: &Value) -> String {
    let metadata = &object["metadata"];
    let mut lines = Vec::new();
    let mut pair = |name: &str, value: &Value| {
        if !value.is_null() {
            lines.push(vec![format!("{name}:"), shown(value)]);
        }
    };
    pair("Name", &metadata["name"]);
    pair("Namespace", &metadata["namespace"]);
    pair("Created", &metadata["creationTimestamp"]);
    pair("Deletion", &metadata["deletionTimestamp"]);
    let mut out = align(&lines);
    out.push_str(&map("Labels", &metadata["labels"]));
    out.push_str(&map("Annotations", &metadata["annotations"]));
    for (section, value) in object.as_object().into_iter().flatten() {
        if !matches!(section.as_str(), "apiVersion" | "kind" | "metadata") {
            tree(&title(section), value, 0, &mut out);
        }
    }
    out
}

fn map(name: &str, value: &Value) -> String {
    let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else {
        return format!("{name}: <none>\n");
    };
    let pairs = fields.iter().map(|(k, v)| format!("  {k}={}\n", shown(v)));
    format!("{name}:\n{}", pairs.collect::<String>())
}

/// Writes a field and what is below it.
fn tree(name: &str, value: &Value, depth: usize, out: &mut String) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push_str(&format!("{margin}{name}:\n"));
            for (field, value) in fields {
                tree(&title(field), value, depth + 1, out);
            }
        }
        Value::Array(items) if name == "Conditions" => {
            out.push_str(&format!("{margin}{name}:\n"));
            let table = conditions(items);
            out.extend(table.lines().map(|line| format!("{margin}  {line}\n")));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                out.push_str(&format!("{margin}{name}:\n"));
                for (field, value) in item.as_object().into_iter().flatten() {
                    tree(&title(field), value, depth + 1, out);
                }
            }
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(shown).collect();
            out.push_str(&format!("{margin}{name}:  {}\n", texts.join(", ")));
        }
        value => out.push_str(&format!("{margin}{name}:  {}\n", shown(value))),
    }
}

fn conditions(items: &[Value]) -> String {
    let mut lines = vec![
        ["Type", "Status", "Reason", "Message"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for item in items {
        let fields = ["type", "status", "reason", "message"];
        lines.push(
            fields
                .map(|f| item[f].as_str().unwrap_or_default().to_owned())
                .to_vec(),
        );
    }
    align(&lines)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `podIP` as `Pod IP`, `nodeName` as `Node Name`; keys that are no field names stay.
fn title(field: &str) -> String {
    if !field.chars().all(|c| c.is_ascii_alphanumeric()) {
        return field.to_owned();
    }
    let mut out = String::new();
    let mut previous_upper = true;
    for (at, c) in field.chars().enumerate() {
        if at == 0 {
            out.push(c.to_ascii_uppercase());
            continue;
        }
        if c.is_ascii_uppercase() && !previous_upper {
            out.push(' ');
        }
        previous_upper = c.is_ascii_uppercase();
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_like_a_page() {
        let object = json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"k": "v"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "args": ["x", "y"]}]},
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}});
        let expected = "Name:   a\nLabels:\n  k=v\nAnnotations: <none>\nSpec:\n  Containers:\n    Args:  x, y\n    Name:  c\n  Node Name:  n1\nStatus:\n  Conditions:\n    Type    Status   Reason   Message\n    Ready   True\n  Pod IP:  10.0.0.1\n";
        assert_eq!(text(&object), expected);
    }

    #[test]
    fn a_pods_start_is_told_step_by_step() {
        let step = json!({"step": "start", "container": "c", "beganMs": 12.25, "tookMs": 8.0});
        let expected = "Start, as the node did it:\n  STEP    CONTAINER   AFTER     TOOK\n  start   c           12.2 ms   8.0 ms\n";
        assert_eq!(timing(&json!([step])), expected);
        assert_eq!(timing(&json!([])), "");
    }
}
