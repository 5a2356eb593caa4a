//! `DefaultStorageClass`: a claim that names no class gets the default one.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Plugin, all};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, claim: &mut Value) -> Result<()> {
        if !write.creates("", "persistentvolumeclaims") || names_class(claim) {
            return Ok(());
        }
        if let Some(name) = default_class(all(api, "storage.k8s.io", "storageclasses")) {
            value::set(claim, "spec.storageClassName", name);
        }
        Ok(())
    }
}

fn names_class(claim: &Value) -> bool {
    value::at(claim, "spec.storageClassName").is_some()
        || claim["metadata"]["annotations"].get(CLASS).is_some()
}

/// Of the classes marked as default the newest, and of equally old ones the first by name.
fn default_class(classes: Vec<Value>) -> Option<String> {
    let marked = |class: &Value| class["metadata"]["annotations"][DEFAULT] == "true";
    let mut marked: Vec<Value> = classes.into_iter().filter(marked).collect();
    let created = |class: &Value| value::text(class, "metadata.creationTimestamp").to_owned();
    let name = |class: &Value| value::text(class, "metadata.name").to_owned();
    marked.sort_by_key(|class| (std::cmp::Reverse(created(class)), name(class)));
    marked.first().map(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, at: &str, default: &str| json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {DEFAULT: default}}});
        let classes = vec![
            class("old", "2024-01-01T00:00:00Z", "true"),
            class("b", "2025-01-01T00:00:00Z", "true"),
            class("a", "2025-01-01T00:00:00Z", "true"),
            class("no", "2026-01-01T00:00:00Z", "false"),
        ];
        assert_eq!(default_class(classes), Some("a".to_owned()));
        assert_eq!(default_class(Vec::new()), None);
    }
}
