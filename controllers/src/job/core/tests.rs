//! What a Job's controller decides, case by case.

use super::*;
use crate::common::testing::{golden, now, objects};

/// Reads a Job and its pods, writes what happens next and the status.
fn run(input: &str) -> String {
    let now = now(input);
    let jobs: Vec<Job> = objects(input, "Job");
    let pods: Vec<_> = objects::<Pod>(input, "Pod")
        .into_iter()
        .map(Arc::new)
        .collect();
    let seen = Observed {
        job: &jobs[0],
        pods: &pods,
        settled: !input.contains("# cache behind"),
    };
    let plan = plan(&seen, now);
    let mut lines = Vec::new();
    for new in &plan.create {
        let annotations = new.metadata.annotations.clone().unwrap_or_default();
        let failures = annotations.get(pod::INDEX_FAILURES);
        let failures = failures.map(|count| format!(" after {count} failures"));
        let prefix = new.metadata.generate_name.as_deref().unwrap_or_default();
        lines.push(format!("create {prefix}{}", failures.unwrap_or_default()));
    }
    for (what, all) in [
        ("drop", &plan.drop),
        ("stop", &plan.stop),
        ("release", &plan.release),
    ] {
        lines.extend(
            all.iter()
                .map(|one| format!("{what} {}", one.metadata.name.clone().unwrap())),
        );
    }
    lines.extend(
        plan.notes
            .iter()
            .map(|note| format!("tell {}: {}", note.reason, note.message)),
    );
    lines.extend(plan.wake.map(|wait| format!("again in {wait:?}")));
    if plan.expired {
        lines.push("delete the job".to_owned());
    }
    lines.push(serde_json::to_string(&plan.status).unwrap());
    lines.join("\n")
}

#[test]
fn golden_cases() {
    golden("job", run);
}
