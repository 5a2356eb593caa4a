//! `RuntimeClass`: a pod's overhead, nodes and tolerations are also those of its class.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Plugin, find};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if !write.creates("", "pods") {
            return Ok(());
        }
        let name = value::text(pod, "spec.runtimeClassName").to_owned();
        let class = match name.as_str() {
            "" => None,
            name => {
                let found = find(api, "node.k8s.io", "runtimeclasses", "", name);
                let why = || write.forbid(format!("pod rejected: RuntimeClass {name:?} not found"));
                Some(found.ok_or_else(why)?)
            }
        };
        let merged = merge(pod, class.as_ref());
        merged.map_err(|why| write.forbid(why))
    }
}

/// Makes the pod what its class says, or says why it cannot be.
fn merge(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let overhead = class.and_then(|class| value::at(class, "overhead.podFixed"));
    match (value::at(pod, "spec.overhead"), overhead) {
        (None, Some(overhead)) => value::set(pod, "spec.overhead", overhead.clone()),
        (Some(_), None) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        (Some(given), Some(overhead)) if given != overhead => {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into(),
            );
        }
        _ => {}
    }
    let Some(class) = class else { return Ok(()) };
    for (key, wanted) in value::map(class, "scheduling.nodeSelector")
        .into_iter()
        .flatten()
    {
        let selector = value::entry(pod, "spec.nodeSelector");
        if !selector.is_object() {
            *selector = Value::Object(Default::default());
        }
        if selector.get(key).is_some_and(|given| given != wanted) {
            let given = &selector[key];
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {given}"
            ));
        }
        selector[key] = wanted.clone();
    }
    for toleration in value::list(class, "scheduling.tolerations") {
        match value::entry(pod, "spec.tolerations") {
            Value::Array(all) if all.contains(toleration) => {}
            Value::Array(all) => all.push(toleration.clone()),
            other => *other = Value::Array(vec![toleration.clone()]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_gets_what_its_class_says() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]}});
        let mut pod = json!({"spec": {}});
        assert_eq!(merge(&mut pod, Some(&class)), Ok(()));
        assert_eq!(
            pod["spec"],
            json!({"overhead": {"cpu": "10m"}, "nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm"}]})
        );
        let mut other = json!({"spec": {"nodeSelector": {"vm": "no"}}});
        assert!(
            merge(&mut other, Some(&class))
                .unwrap_err()
                .starts_with("conflict")
        );
        let mut odd = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert!(merge(&mut odd, None).is_err());
    }
}
