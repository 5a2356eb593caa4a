//! The ServiceAccount `default` and the root CA bundle of every namespace.
//!
//! Two loops of one shape: an object of a fixed name that every namespace must have. Upstream
//! calls them `serviceaccount-controller` and `root-ca-certificate-publisher-controller`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::common::Key;
use crate::shell::informer::Kind;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const ACCOUNT: &str = "default";
const BUNDLE: &str = "kube-root-ca.crt";
const BUNDLE_KEY: &str = "ca.crt";
/// Upstream's note on the bundle, for people who find it.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver \
    when using internal endpoints such as the internal service IP or kubernetes.default.svc. \
    No other usage is guaranteed across distributions of Kubernetes clusters.";

struct Accounts(Context);
struct Bundles(Context);

/// Wires both loops; the bundle only when there is a CA to publish.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, "serviceaccount")
        .on_self(&ctx.informers.namespaces)
        .on(&ctx.informers.service_accounts, |change| {
            namespace_of(change, ACCOUNT)
        })
        .run(tasks, Accounts(ctx.clone()));
    if ctx.config.root_ca_pem.is_empty() {
        return;
    }
    Loop::new(ctx, "root_ca_cert_publisher")
        .on_self(&ctx.informers.namespaces)
        .on(&ctx.informers.root_cas, |change| {
            namespace_of(change, BUNDLE)
        })
        .run(tasks, Bundles(ctx.clone()));
}

fn namespace_of<K>(change: &Change<K>, name: &str) -> Option<Key> {
    (change.key.name == name).then(|| Key::cluster(&change.key.namespace))
}

/// Whether a namespace is there and stays.
fn wants(namespace: Option<&Namespace>) -> bool {
    namespace.is_some_and(|namespace| {
        let status = namespace.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
    })
}

/// Creates an object unless someone else just did, or its namespace is going.
async fn create<K: Kind + write::Scope + serde::Serialize>(
    ctx: &Context,
    object: &K,
) -> Result<()> {
    match write::create(ctx, object).await {
        Err(e) if e.is_already_exists() || e.is_namespace_terminating() || e.is_not_found() => {
            Ok(())
        }
        result => result.map(drop),
    }
}

fn meta(namespace: &Key, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.name.clone()),
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

impl Controller for Accounts {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let account = Key::new(&key.name, ACCOUNT);
        let there = informers.service_accounts.get(&account).is_some();
        if wants(informers.namespaces.get(key).as_deref()) && !there {
            let account = ServiceAccount {
                metadata: meta(key, ACCOUNT),
                ..Default::default()
            };
            create(&self.0, &account).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Controller for Bundles {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        if !wants(informers.namespaces.get(key).as_deref()) {
            return Ok(Outcome::Done);
        }
        let bundle = Key::new(&key.name, BUNDLE);
        let data = [(BUNDLE_KEY.to_owned(), self.0.config.root_ca_pem.clone())].into();
        match informers.root_cas.get(&bundle) {
            Some(found) if found.data.as_ref() == Some(&data) => {}
            Some(found) => {
                write::patch::<ConfigMap>(&self.0, &bundle, mended(&found, &data)).await?;
            }
            None => {
                let mut metadata = meta(key, BUNDLE);
                let annotation = (
                    "kubernetes.io/description".to_owned(),
                    DESCRIPTION.to_owned(),
                );
                metadata.annotations = Some([annotation].into());
                let bundle = ConfigMap {
                    metadata,
                    data: Some(data),
                    ..Default::default()
                };
                create(&self.0, &bundle).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// The merge patch that makes a bundle's data what it should be, without what others added.
fn mended(found: &ConfigMap, data: &BTreeMap<String, String>) -> Value {
    let mut wanted = json!(data);
    for key in found.data.iter().flat_map(BTreeMap::keys) {
        if !data.contains_key(key) {
            wanted[key] = Value::Null;
        }
    }
    json!({"data": wanted})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_added_to_a_bundle_goes() {
        let found = json!({"data": {"ca.crt": "", "x": "y"}});
        let found: ConfigMap = serde_json::from_value(found).unwrap();
        let data = BTreeMap::from([("ca.crt".to_owned(), "pem".to_owned())]);
        let patch = json!({"data": {"ca.crt": "pem", "x": null}});
        assert_eq!(mended(&found, &data), patch);
    }

    #[test]
    fn only_namespaces_that_stay_are_furnished() {
        let namespace = |text| serde_json::from_value::<Namespace>(text).unwrap();
        assert!(!wants(None));
        assert!(wants(Some(&namespace(
            json!({"status": {"phase": "Active"}})
        ))));
        assert!(wants(Some(&namespace(json!({})))));
        assert!(!wants(Some(&namespace(
            json!({"status": {"phase": "Terminating"}})
        ))));
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(!wants(Some(&namespace(going))));
    }
}
