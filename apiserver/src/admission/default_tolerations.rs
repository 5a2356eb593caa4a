//! `DefaultTolerationSeconds`: how long a pod stays on a node that is not ready or not heard of,
//! unless it says so itself.

use async_trait::async_trait;
use peapod_api::labels::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use serde_json::{Value, json};

use super::{Attributes, Plugin};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// Upstream's default.
const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn mutate(&self, _api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if !write.creates("", "pods") {
            return Ok(());
        }
        for taint in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
            add(pod, taint);
        }
        Ok(())
    }
}

fn add(pod: &mut Value, taint: &str) {
    let present = value::list(pod, "spec.tolerations").iter().any(|one| {
        let key = value::text(one, "key");
        let effect = value::text(one, "effect");
        (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
    });
    if present {
        return;
    }
    let toleration = json!({
        "key": taint,
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": SECONDS,
    });
    match value::entry(pod, "spec.tolerations") {
        Value::Array(list) => list.push(toleration),
        other => *other = json!([toleration]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_once_and_not_over_a_wildcard() {
        let mut pod = json!({"spec": {}});
        add(&mut pod, TAINT_NOT_READY);
        add(&mut pod, TAINT_NOT_READY);
        assert_eq!(value::list(&pod, "spec.tolerations").len(), 1);
        let mut tolerant = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add(&mut tolerant, TAINT_NOT_READY);
        assert_eq!(value::list(&tolerant, "spec.tolerations").len(), 1);
    }
}
