//! `events`: what happened, oldest first.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use super::args;
use super::print::align;
use super::session::Session;

/// The arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only about this object: TYPE/NAME
    #[arg(long = "for", value_name = "TYPE/NAME")]
    about: Option<String>,
    /// Only these types: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
}

/// Runs `events`.
pub async fn run(session: &Session, args: &EventsArgs) -> Result<()> {
    let mut selector = String::new();
    if let Some(about) = &args.about {
        let (resource, name) = args::one(session, std::slice::from_ref(about)).await?;
        selector = format!(
            "involvedObject.kind={},involvedObject.name={name}",
            resource.kind
        );
    }
    let namespace = (!args.all_namespaces).then(|| session.namespace());
    let mut events = list(session, namespace, &selector).await?;
    events.retain(|event| {
        let kind = event["type"].as_str().unwrap_or_default();
        args.types.is_empty()
            || args
                .types
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(kind))
    });
    if events.is_empty() {
        println!("No events found.");
        return Ok(());
    }
    print!("{}", table(&events, args.all_namespaces, Timestamp::now()));
    Ok(())
}

/// The events that a field selector finds, oldest first.
pub async fn list(
    session: &Session,
    namespace: Option<&str>,
    selector: &str,
) -> Result<Vec<Value>> {
    let resource = session.resource("events").await?;
    let path = resource.collection(namespace) + &args::query(&[("fieldSelector", selector)]);
    let list = session.get(&path).await?;
    let mut events = list["items"].as_array().cloned().unwrap_or_default();
    events.sort_by_key(|event| last_seen(event).map(str::to_owned));
    Ok(events)
}

fn last_seen(event: &Value) -> Option<&str> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.into_iter().find_map(Value::as_str)
}

/// Events as a table.
pub fn table(events: &[Value], namespaces: bool, now: Timestamp) -> String {
    let header = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
        .map(str::to_owned)
        .to_vec();
    let mut lines = vec![with_namespace(namespaces, "NAMESPACE", header)];
    for event in events {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["involvedObject"];
        let line = vec![
            seen(event, now),
            text(&event["type"]),
            text(&event["reason"]),
            format!("{}/{}", text(&object["kind"]), text(&object["name"])),
            text(&event["message"]).trim().to_owned(),
        ];
        lines.push(with_namespace(
            namespaces,
            &text(&event["metadata"]["namespace"]),
            line,
        ));
    }
    align(&lines)
}

fn with_namespace(shown: bool, namespace: &str, mut line: Vec<String>) -> Vec<String> {
    if shown {
        line.insert(0, namespace.to_owned());
    }
    line
}

fn seen(event: &Value, now: Timestamp) -> String {
    let last = age(last_seen(event).unwrap_or_default(), now);
    let count = event["series"]["count"]
        .as_i64()
        .or(event["count"].as_i64())
        .unwrap_or(1);
    match event["firstTimestamp"].as_str() {
        Some(first) if count > 1 => format!("{last} (x{count} over {})", age(first, now)),
        _ => last,
    }
}

/// How long ago a time was, as kubectl writes it.
pub fn age(time: &str, now: Timestamp) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return "<unknown>".to_owned();
    };
    human(now.duration_since(then).as_secs().max(0))
}

/// A number of seconds in two units at most, as kubectl writes it.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |a: i64, x: &str, b: i64, y: &str| match b {
        0 => format!("{a}{x}"),
        _ => format!("{a}{x}{b}{y}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (601, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (800_000, "9d"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }
}
