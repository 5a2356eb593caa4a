//! `wait`: for a condition, a value, or the end of an object. By watching, never by asking
//! again and again.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use serde_json::Value;

use super::args::{self, query};
use super::print::{JsonPath, braced};
use super::session::{Session, optional, server_error};

/// The arguments of `wait`.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// TYPE/NAME..., TYPE NAME..., or TYPE with -l or --all
    #[arg(required = true)]
    words: Vec<String>,
    /// condition=NAME[=VALUE], delete, create, jsonpath={PATH}[=VALUE]
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// Label selector
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
    /// All objects of the type
    #[arg(long)]
    all: bool,
    /// Longest wait, as 30s or 2m
    #[arg(long, default_value = "30s")]
    timeout: String,
}

/// When waiting ends in failure.
pub struct Deadline(Option<tokio::time::Instant>);

impl Deadline {
    /// Reads `30s`, `2m`, `1h`, `1m30s`; zero and negative mean a week, as kubectl's.
    pub fn parse(text: &str) -> Result<Self> {
        let duration = duration(text)?;
        Ok(Self(
            (!duration.is_zero()).then(|| tokio::time::Instant::now() + duration),
        ))
    }

    /// Limits a wait.
    pub async fn limit<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.0 {
            None => work.await,
            Some(at) => match tokio::time::timeout_at(at, work).await {
                Ok(outcome) => outcome,
                Err(_) => bail!("timed out waiting for the condition on {what}"),
            },
        }
    }
}

/// Reads a duration as Go writes it.
pub fn duration(text: &str) -> Result<Duration> {
    if text.starts_with('-') || text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("{text:?} is no duration; write 30s, 2m or 1h");
    let (mut total, mut number, mut unit) = (0.0, String::new(), String::new());
    let mut parts = Vec::new();
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            if !unit.is_empty() {
                parts.push((std::mem::take(&mut number), std::mem::take(&mut unit)));
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    parts.push((number, unit));
    for (number, unit) in parts {
        let number: f64 = number.parse().ok().with_context(wrong)?;
        total += number
            * match unit.as_str() {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => bail!(wrong()),
            };
    }
    Duration::try_from_secs_f64(total).ok().with_context(wrong)
}

/// What is waited for.
enum Goal {
    Delete,
    Create,
    Condition(String, String),
    Path(JsonPath, Option<String>),
}

impl Goal {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "delete" => return Ok(Self::Delete),
            "create" => return Ok(Self::Create),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Condition(name.to_lowercase(), value.to_lowercase()));
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            let end = path.rfind('}').map_or(path.len(), |at| at + 1);
            let value = path[end..].strip_prefix('=').map(str::to_owned);
            return Ok(Self::Path(JsonPath::parse(&braced(&path[..end]))?, value));
        }
        bail!(
            "unrecognized condition: {text:?}; write condition=NAME, delete, create or jsonpath={{PATH}}=VALUE"
        )
    }

    fn reached(&self, object: &Value) -> Result<bool> {
        Ok(match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition(name, value) => {
                let mut conditions = object["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let lower =
                    |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_lowercase();
                conditions.any(|c| lower(c, "type") == *name && lower(c, "status") == *value)
                    && observed(object)
            }
            Self::Path(path, None) => path.first(object).is_some(),
            Self::Path(path, Some(value)) => path.render(object)? == *value,
        })
    }
}

/// Whether the status speaks of the present spec.
fn observed(object: &Value) -> bool {
    match object["status"]["observedGeneration"].as_i64() {
        Some(seen) => {
            seen >= object["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default()
        }
        None => true,
    }
}

/// Runs `wait`.
pub async fn run(session: &Session, args: &WaitArgs) -> Result<()> {
    let goal = Goal::parse(&args.what)?;
    let deadline = Deadline::parse(&args.timeout)?;
    let mut any = false;
    for target in args::targets(session, &args.words).await? {
        let names = match &target.name {
            Some(name) => vec![name.clone()],
            None if !args.all && args.selector.is_empty() => {
                bail!("name the objects, or say -l SELECTOR or --all")
            }
            None => {
                let path = target.resource.collection(Some(session.namespace()));
                let list = session
                    .get(&(path + &query(&[("labelSelector", &args.selector)])))
                    .await?;
                let items = list["items"].as_array().cloned().unwrap_or_default();
                items
                    .iter()
                    .filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned))
                    .collect()
            }
        };
        for name in names {
            any = true;
            let path = target.resource.object(session.namespace(), &name);
            let called = target.resource.object_name(&name);
            match goal {
                Goal::Delete => until_gone(session, &path, "", &deadline).await?,
                _ => until(session, &path, &called, &goal, &deadline).await?,
            }
            let met = if matches!(goal, Goal::Delete) {
                "deleted"
            } else {
                "condition met"
            };
            println!("{called} {met}");
        }
    }
    if !any {
        bail!("no matching resources found");
    }
    Ok(())
}

async fn until(
    session: &Session,
    path: &str,
    called: &str,
    goal: &Goal,
    deadline: &Deadline,
) -> Result<()> {
    let create = matches!(goal, Goal::Create);
    deadline
        .limit(
            called,
            follow(session, path, |object| match object {
                Some(object) => goal.reached(object),
                None if create => Ok(false),
                None => bail!("Error from server (NotFound): {called} not found"),
            }),
        )
        .await
}

/// Waits until an object is gone, or is another one of the same name.
pub async fn until_gone(
    session: &Session,
    path: &str,
    uid: &str,
    deadline: &Deadline,
) -> Result<()> {
    let is_gone = |object: Option<&Value>| {
        Ok(object.is_none_or(|o| !uid.is_empty() && o["metadata"]["uid"].as_str() != Some(uid)))
    };
    deadline.limit(path, follow(session, path, is_gone)).await
}

/// Shows `done` an object now and at each change, until it says so. `None` is "not there".
pub async fn follow(
    session: &Session,
    path: &str,
    mut done: impl FnMut(Option<&Value>) -> Result<bool>,
) -> Result<()> {
    let Some((collection, name)) = path.rsplit_once('/') else {
        bail!("{path} names no object");
    };
    loop {
        let now = optional(session.get(path).await)?;
        if done(now.as_ref())? {
            return Ok(());
        }
        let version = now
            .as_ref()
            .and_then(|o| o["metadata"]["resourceVersion"].as_str());
        let name = format!("metadata.name={name}");
        let pairs = [
            ("watch", "true"),
            ("fieldSelector", name.as_str()),
            ("resourceVersion", version.unwrap_or_default()),
        ];
        let request =
            http::Request::get(format!("{collection}{}", query(&pairs))).body(Vec::new())?;
        let stream = session
            .client()
            .request_stream(request)
            .await
            .map_err(server_error)?;
        let mut lines = stream.lines();
        while let Some(line) = lines.try_next().await? {
            let event: Value = serde_json::from_str(&line)?;
            let finished = match event["type"].as_str() {
                Some("DELETED") => done(None)?,
                Some("ADDED" | "MODIFIED") => done(Some(&event["object"]))?,
                Some("ERROR") => break,
                _ => false,
            };
            if finished {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("0s", 0),
            ("-1s", 0),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), ms, "{text}");
        }
        assert!(duration("5x").is_err());
        assert!(duration("").is_err());
    }

    #[test]
    fn goals() {
        let object = json!({"metadata": {"generation": 2}, "status": {"phase": "Running",
            "observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]}});
        for (goal, reached) in [
            ("condition=Ready", true),
            ("condition=ready=true", true),
            ("condition=Ready=false", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Failed", false),
            ("jsonpath={.status.podIP}", false),
        ] {
            assert_eq!(
                Goal::parse(goal).unwrap().reached(&object).unwrap(),
                reached,
                "{goal}"
            );
        }
        assert!(Goal::parse("ready").is_err());
    }
}
