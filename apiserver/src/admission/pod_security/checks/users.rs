//! As whom containers run.

use serde_json::Value;

use super::super::pod::{Pod, told};
use crate::registry::value;

/// They say that they do not run as root, or the pod does for them.
pub fn non_root(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let path = "securityContext.runAsNonRoot";
    let choice = |place: &Value| value::at(place, path).and_then(Value::as_bool);
    if let Some(who) = pod.breakers(|place| choice(place) == Some(false)) {
        let must = "must not set securityContext.runAsNonRoot=false";
        return Some(format!("runAsNonRoot != true ({who} {must})"));
    }
    let by_pod = choice(pod.spec) == Some(true);
    let names = pod.breaking(|one| !choice(one).unwrap_or(by_pod));
    let must = "must set securityContext.runAsNonRoot=true";
    told("runAsNonRoot != true", &names, must).map(|told| or_pod(&told))
}

/// Nobody asks to be root.
pub fn root_user(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let who =
        pod.breakers(|place| value::integer(place, "securityContext.runAsUser") == Some(0))?;
    Some(format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}

/// The same where the pod may do what its containers have not done.
pub fn or_pod(told: &str) -> String {
    told.replacen("(container", "(pod or container", 1)
}
