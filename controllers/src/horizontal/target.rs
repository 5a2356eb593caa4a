//! What an autoscaler scales: any resource with a scale subresource, custom ones too.

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::json;

use crate::shell::write::MANAGER;

/// The names of a kind, as the API's discovery has them.
pub async fn resource(client: &Client, version: &str, kind: &str) -> Result<ApiResource, String> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, kind);
    let found = kube::discovery::pinned_kind(client, &kind).await;
    let (resource, _) = found.map_err(|error| format!("no matches for kind {kind:?}: {error}"))?;
    Ok(resource)
}

/// The target of one autoscaler.
pub struct Target {
    api: Api<DynamicObject>,
    name: String,
}

impl Target {
    /// The target, its kind found.
    pub async fn find(
        client: &Client,
        namespace: &str,
        (version, kind, name): (&str, &str, &str),
    ) -> Result<Self, String> {
        let resource = resource(client, version, kind).await?;
        Ok(Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            name: name.to_owned(),
        })
    }

    /// Its scale.
    pub async fn scale(&self) -> Result<Scale, String> {
        let scale = self.api.get_scale(&self.name).await;
        scale.map_err(|error| error.to_string())
    }

    /// Sets its replicas, unless somebody else did since `seen`.
    pub async fn set(&self, seen: &Scale, replicas: i32) -> Result<(), String> {
        let version = &seen.metadata.resource_version;
        let patch =
            json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..Default::default()
        };
        let written = self
            .api
            .patch_scale(&self.name, &params, &Patch::Merge(patch))
            .await;
        written.map(drop).map_err(|error| error.to_string())
    }
}
