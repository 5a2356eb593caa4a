//! `DefaultIngressClass`: an Ingress that names no class gets the default one.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Plugin, all};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How an Ingress named its class before there was a field.
const CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, ingress: &mut Value) -> Result<()> {
        if !write.creates("networking.k8s.io", "ingresses") || names_class(ingress) {
            return Ok(());
        }
        let classes = all(api, "networking.k8s.io", "ingressclasses");
        let marked = classes
            .iter()
            .filter(|one| one["metadata"]["annotations"][DEFAULT] == "true");
        // The newest, and of equally old ones the first by name.
        let newest = marked.min_by_key(|class| {
            let created = value::text(class, "metadata.creationTimestamp");
            (
                std::cmp::Reverse(created),
                value::text(class, "metadata.name"),
            )
        });
        if let Some(class) = newest {
            let name = value::text(class, "metadata.name");
            value::set(ingress, "spec.ingressClassName", name);
        }
        Ok(())
    }
}

fn names_class(ingress: &Value) -> bool {
    value::at(ingress, "spec.ingressClassName").is_some()
        || ingress["metadata"]["annotations"].get(CLASS).is_some()
}
