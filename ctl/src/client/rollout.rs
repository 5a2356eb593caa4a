//! `rollout`: status, history, undo, restart, pause and resume of a Deployment.

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::query;
use super::print::align;
use super::session::Session;
use super::{args, logs, patch, wait};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// The arguments of `rollout`.
#[derive(Debug, clap::Args)]
pub struct RolloutArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Follow the rollout until it is done
    Status {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
        /// Follow; --watch=false says where it stands
        #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        watch: bool,
        /// Longest wait, as 30s or 2m; 0s is for ever
        #[arg(long, default_value = "0s")]
        timeout: String,
    },
    /// List the revisions
    History {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Go back to an earlier revision
    Undo {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
        /// The revision; 0 is the one before
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace every pod
    Restart {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Stop rolling out
    Pause {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Go on rolling out
    Resume {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true)]
        words: Vec<String>,
    },
}

/// Runs `rollout`.
pub async fn run(session: &Session, args: &RolloutArgs) -> Result<()> {
    match &args.action {
        Action::Status {
            words,
            watch,
            timeout,
        } => status(session, words, *watch, timeout).await,
        Action::History { words } => history(session, words).await,
        Action::Undo { words, to_revision } => undo(session, words, *to_revision).await,
        Action::Restart { words } => {
            let annotation =
                json!({"kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string()});
            let change = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
            change_spec(session, words, &change, "restarted").await
        }
        Action::Pause { words } => {
            change_spec(session, words, &json!({"spec": {"paused": true}}), "paused").await
        }
        Action::Resume { words } => {
            change_spec(
                session,
                words,
                &json!({"spec": {"paused": false}}),
                "resumed",
            )
            .await
        }
    }
}

async fn change_spec(
    session: &Session,
    words: &[String],
    change: &Value,
    done: &str,
) -> Result<()> {
    let (resource, name) = args::one(session, words).await?;
    patch::merge(
        session,
        &resource.object(session.namespace(), &name),
        change,
    )
    .await?;
    println!("{} {done}", resource.object_name(&name));
    Ok(())
}

async fn status(session: &Session, words: &[String], watch: bool, timeout: &str) -> Result<()> {
    let (resource, name) = args::one(session, words).await?;
    if resource.plural != "deployments" {
        bail!(
            "no status viewer for {}; it is known for deployments",
            resource.plural
        );
    }
    let path = resource.object(session.namespace(), &name);
    let deadline = wait::Deadline::parse(timeout)?;
    let mut said = String::new();
    let seen = |object: Option<&Value>| {
        let object = object.with_context(|| format!("deployment \"{name}\" is gone"))?;
        let (text, done) = progress(object, &name)?;
        if text != said {
            println!("{text}");
            said = text;
        }
        Ok(done || !watch)
    };
    deadline
        .limit(&name, wait::follow(session, &path, seen))
        .await
}

/// Where a Deployment's rollout stands, in kubectl's words, and whether it is done.
fn progress(object: &Value, name: &str) -> Result<(String, bool)> {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let (spec, status) = (&object["spec"], &object["status"]);
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return Ok((
            "Waiting for deployment spec update to be observed...".to_owned(),
            false,
        ));
    }
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    if conditions.any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded") {
        bail!("deployment \"{name}\" exceeded its progress deadline");
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (updated, total, available) = (
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
    );
    let waiting = format!("Waiting for deployment \"{name}\" rollout to finish: ");
    if updated < wanted {
        return Ok((
            format!("{waiting}{updated} out of {wanted} new replicas have been updated..."),
            false,
        ));
    }
    if total > updated {
        return Ok((
            format!(
                "{waiting}{} old replicas are pending termination...",
                total - updated
            ),
            false,
        ));
    }
    if available < updated {
        return Ok((
            format!("{waiting}{available} of {updated} updated replicas are available..."),
            false,
        ));
    }
    Ok((
        format!("deployment \"{name}\" successfully rolled out"),
        true,
    ))
}

/// The ReplicaSets of a Deployment by revision.
async fn revisions(session: &Session, deployment: &Value) -> Result<Vec<(i64, Value)>> {
    let sets = session.resource("replicasets.apps").await?;
    let selector = logs::selector_of(deployment)?;
    let path = sets.collection(Some(session.namespace())) + &query(&[("labelSelector", &selector)]);
    let list = session.get(&path).await?;
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &&Value| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        owners
            .into_iter()
            .flatten()
            .any(|owner| owner["uid"] == *uid)
    };
    let revision = |set: &Value| -> i64 {
        let text = set["metadata"]["annotations"][REVISION]
            .as_str()
            .unwrap_or_default();
        text.parse().unwrap_or_default()
    };
    let items = list["items"].as_array().into_iter().flatten();
    let mut found: Vec<_> = items
        .filter(owned)
        .map(|set| (revision(set), set.clone()))
        .collect();
    found.sort_by_key(|(revision, _)| *revision);
    Ok(found)
}

async fn history(session: &Session, words: &[String]) -> Result<()> {
    let (resource, name) = args::one(session, words).await?;
    let deployment = session
        .get(&resource.object(session.namespace(), &name))
        .await?;
    println!("{}", resource.object_name(&name));
    let mut lines = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
    for (revision, set) in revisions(session, &deployment).await? {
        let cause = set["metadata"]["annotations"][CHANGE_CAUSE]
            .as_str()
            .unwrap_or("<none>");
        lines.push(vec![revision.to_string(), cause.to_owned()]);
    }
    print!("{}", align(&lines));
    Ok(())
}

async fn undo(session: &Session, words: &[String], to: i64) -> Result<()> {
    let (resource, name) = args::one(session, words).await?;
    let path = resource.object(session.namespace(), &name);
    let deployment = session.get(&path).await?;
    let revisions = revisions(session, &deployment).await?;
    let chosen = match to {
        0 => revisions
            .len()
            .checked_sub(2)
            .and_then(|at| revisions.get(at)),
        _ => revisions.iter().find(|(revision, _)| *revision == to),
    };
    let Some((_, set)) = chosen else {
        bail!(
            "no rollout history found for {}; see `peapod rollout history`",
            resource.object_name(&name)
        );
    };
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(peapod_api::labels::POD_TEMPLATE_HASH);
    }
    let change = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    patch::send(session, &path, "application/json-patch+json", &change).await?;
    println!("{} rolled back", resource.object_name(&name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_kubectls_words() {
        let object = |status: Value| json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status});
        let say = |status: Value| progress(&object(status), "web").unwrap();
        let seen = |a: i64, b: i64, c: i64| json!({"observedGeneration": 2, "updatedReplicas": a, "replicas": b, "availableReplicas": c});
        assert!(
            say(json!({}))
                .0
                .starts_with("Waiting for deployment spec update")
        );
        assert!(say(seen(1, 3, 3)).0.contains("1 out of 3 new replicas"));
        assert!(say(seen(3, 4, 3)).0.contains("1 old replicas are pending"));
        assert!(say(seen(3, 3, 2)).0.contains("2 of 3 updated replicas"));
        assert!(say(seen(3, 3, 3)).1);
    }
}
