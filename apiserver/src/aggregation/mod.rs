//! Aggregation: whole groups of the API that other servers serve, behind this one.
//!
//! An `APIService` names the Service of such a server. Requests on its group and version are
//! authenticated and authorised here, and passed on with who asks in headers, over a connection
//! that proves by certificate that it comes from here. What it serves is merged into discovery.
//!
//! [`controller`] watches the objects and finds out whether the servers answer; [`pass`] passes
//! requests on; [`local`] lists what this server serves itself beside them.

pub mod controller;
mod local;
mod pass;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::Value;

use crate::outbound::{self, Destination, OutboundError};
use crate::pki::Credential;
use crate::registry::value;
pub use pass::pass;

/// The group of `APIService`.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Their plural.
pub const PLURAL: &str = "apiservices";
/// The name in the certificate of requests that are passed on.
pub const CLIENT_NAME: &str = "front-proxy-client";

/// A group and version that another server serves.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// `spec` of its `APIService`.
    pub spec: Value,
    /// What it says that it serves: an `APIResourceList`; none while it does not answer.
    pub resources: Option<Arc<Value>>,
}

/// All that other servers serve, and how to speak to them.
pub struct Aggregation {
    remotes: ArcSwap<BTreeMap<(String, String), Remote>>,
    certificate: String,
    key: String,
}

// === impl Aggregation ===

impl Aggregation {
    /// Nothing yet; `client` is what other servers know this one by.
    pub fn new(client: &Credential) -> Self {
        Self {
            remotes: ArcSwap::default(),
            certificate: client.certificate.clone(),
            key: client.key.clone(),
        }
    }

    /// What serves a group and version, if it is another server.
    pub fn find(&self, group: &str, version: &str) -> Option<Remote> {
        let remotes = self.remotes.load();
        if remotes.is_empty() {
            return None;
        }
        remotes
            .get(&(group.to_owned(), version.to_owned()))
            .cloned()
    }

    /// All groups and versions that other servers serve.
    pub fn all(&self) -> Vec<Remote> {
        self.remotes.load().values().cloned().collect()
    }

    fn set(&self, remotes: impl IntoIterator<Item = Remote>) {
        let remotes = remotes.into_iter();
        let by_version =
            remotes.map(|remote| ((remote.group.clone(), remote.version.clone()), remote));
        self.remotes.store(Arc::new(by_version.collect()));
    }

    /// Where the server of a group and version is.
    ///
    /// # Errors
    /// [`OutboundError`] when its Service leads nowhere.
    pub fn destination(
        &self,
        api: &crate::api::Api,
        remote: &Remote,
    ) -> Result<Destination, OutboundError> {
        let service = &remote.spec["service"];
        let (namespace, name) = (
            value::text(service, "namespace"),
            value::text(service, "name"),
        );
        let port = value::integer(service, "port")
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(443);
        let bundle = match value::truth(&remote.spec, "insecureSkipTLSVerify") {
            true => None,
            false => Some(value::text(&remote.spec, "caBundle")),
        };
        let tls = outbound::trusting_as(bundle, &self.certificate, &self.key)?;
        let addresses = outbound::endpoint(api, namespace, name, port)?;
        Ok(Destination::new(
            addresses,
            format!("{name}.{namespace}.svc"),
            port,
            tls,
        ))
    }
}

/// The resources of a list, as aggregated discovery shows them.
pub fn nested(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let gvk = |one: &Value| {
        let or = |field: &str, own: &str| match value::text(one, field) {
            "" => own.to_owned(),
            given => given.to_owned(),
        };
        serde_json::json!({
            "group": or("group", group),
            "version": or("version", version),
            "kind": value::text(one, "kind"),
        })
    };
    for one in value::list(list, "resources") {
        let name = value::text(one, "name");
        let Some((resource, subresource)) = name.split_once('/') else {
            let mut shown = serde_json::json!({
                "resource": name,
                "responseKind": gvk(one),
                "scope": if value::truth(one, "namespaced") { "Namespaced" } else { "Cluster" },
                "singularResource": value::text(one, "singularName"),
                "verbs": one["verbs"],
            });
            for field in ["shortNames", "categories"] {
                value::set_or_remove(&mut shown, field, one.get(field).cloned());
            }
            out.push(shown);
            continue;
        };
        let below = serde_json::json!({
            "subresource": subresource,
            "responseKind": gvk(one),
            "verbs": one["verbs"],
        });
        if let Some(parent) = out.iter_mut().find(|parent| parent["resource"] == resource) {
            match parent.get_mut("subresources").and_then(Value::as_array_mut) {
                Some(list) => list.push(below),
                None => parent["subresources"] = serde_json::json!([below]),
            }
        }
    }
    out
}

/// The document that a server gives of one of its versions.
fn document(bytes: &Bytes) -> Option<Arc<Value>> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    document["resources"].is_array().then(|| Arc::new(document))
}
