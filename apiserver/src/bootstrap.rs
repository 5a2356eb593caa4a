//! The objects that every cluster has: its namespaces, its priority classes, and the `kubernetes`
//! service. Made through a client in the process, like any other's; what exists is left alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::config::{Config, Engine};
use crate::pki::Pki;
use crate::registry::object_meta;
use crate::server::Error;

/// The namespaces.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Where several servers see that they have the same keys.
const KEYS: &str = "server-keys";
/// Who writes here.
const MANAGER: &str = "kube-apiserver";

/// Makes what is missing.
/// The certificate of who signs clients must be known to aggregated servers.
pub async fn run(client: kube::Client, config: &Config, pki: &Pki) -> Result<(), Error> {
    let ca = pki.ca_certificate();
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name}});
        create(&client, "", "v1", "Namespace", namespace).await?;
    }
    if let Engine::Etcd(_) = config.engine {
        same_keys(&client, config, pki).await?;
    }
    for (name, value, description) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        create(&client, "scheduling.k8s.io", "v1", "PriorityClass", class).await?;
    }
    let known = json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": ca,
            "requestheader-allowed-names": json!([crate::aggregation::CLIENT_NAME]).to_string(),
            "requestheader-client-ca-file": ca,
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        },
    });
    apply(&client, "", "v1", "ConfigMap", known).await?;
    service_ranges(&client, config).await?;
    kubernetes_service(&client, config).await
}

/// The ServiceCIDR `kubernetes` shows from which ranges Services get their addresses. It stays when
/// a server has others, and is not ready then.
async fn service_ranges(client: &kube::Client, config: &Config) -> Result<(), Error> {
    const RANGES: (&str, &str, &str) = ("networking.k8s.io", "v1", "ServiceCIDR");
    let ranges = config.service_cidrs.iter().map(ToString::to_string);
    let ranges: Vec<String> = ranges.take(2).collect();
    if ranges.is_empty() {
        return Ok(());
    }
    let (group, version, kind) = RANGES;
    let wanted = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
    create(client, group, version, kind, wanted.clone()).await?;
    let object = typed(group, version, kind, wanted);
    let api = interface(client, group, version, kind, &object);
    let found = api.get("kubernetes").await;
    let found = found.map_err(|source| failed(kind, &object, source))?;
    let Some(condition) = readiness(&found.data, &ranges) else {
        return Ok(());
    };
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    let params = PatchParams::default();
    let written = api.patch_status("kubernetes", &params, &patch).await;
    written
        .map(drop)
        .map_err(|source| failed(kind, &object, source))
}

/// The condition of the ranges, if it is another than the one that stands there.
fn readiness(found: &Value, ranges: &[String]) -> Option<Value> {
    let same = found["spec"]["cidrs"] == json!(ranges);
    let status = if same { "True" } else { "False" };
    let all = found["status"]["conditions"].as_array();
    let known = all.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    if known.is_some_and(|known| known["status"] == status) {
        return None;
    }
    let (reason, message) = match same {
        true => (
            "Default",
            "Kubernetes default Service CIDR is ready".to_owned(),
        ),
        false => {
            let others = ranges.join(",");
            let message =
                format!("a server has the ranges {others}; start it with those of the spec");
            ("Inconsistent", message)
        }
    };
    let now = object_meta::time(jiff::Timestamp::now());
    Some(json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now,
    }))
}

/// The servers of one store must have the same keys, or each would refuse the clients and tokens of
/// the others. The first says which; of two that are first at once, one.
async fn same_keys(client: &kube::Client, config: &Config, pki: &Pki) -> Result<(), Error> {
    let keys = [
        ("ca.crt", pki.ca_certificate()),
        ("sa.pub", &pki.service_accounts.1),
    ];
    let wanted = json!({
        "metadata": {"name": KEYS, "namespace": "kube-system"},
        "data": keys.iter().copied().collect::<BTreeMap<_, _>>(),
    });
    create(client, "", "v1", "ConfigMap", wanted).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let known = maps.get(KEYS).await.map_err(|source| Error::Bootstrap {
        what: format!("ConfigMap {KEYS}"),
        source: Box::new(source),
    })?;
    let known = known.data.unwrap_or_default();
    for (file, own) in keys {
        if known
            .get(file)
            .is_some_and(|known| known.trim() != own.trim())
        {
            let dir = config
                .shared_pki
                .clone()
                .unwrap_or_else(|| config.pki_dir());
            return Err(Error::OtherKeys(dir.join(file)));
        }
    }
    Ok(())
}

async fn kubernetes_service(client: &kube::Client, config: &Config) -> Result<(), Error> {
    let Some(address) = config.api_service_address() else {
        return Ok(());
    };
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let meta = json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let service = json!({
        "metadata": meta,
        "spec": {
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "ipFamilyPolicy": "SingleStack",
            "ipFamilies": [if address.is_ipv4() { "IPv4" } else { "IPv6" }],
            "sessionAffinity": "None",
            "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.secure_port}],
        },
    });
    create(client, "", "v1", "Service", service).await
}

fn interface(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
    object: &DynamicObject,
) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn typed(group: &str, version: &str, kind: &str, object: Value) -> DynamicObject {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let mut out = DynamicObject::new("", &resource).data(object.clone());
    out.metadata = serde_json::from_value(object["metadata"].clone()).unwrap_or(ObjectMeta {
        name: None,
        ..ObjectMeta::default()
    });
    if let Some(fields) = out.data.as_object_mut() {
        fields.remove("metadata");
    }
    out
}

async fn create(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
    object: Value,
) -> Result<(), Error> {
    let object = typed(group, version, kind, object);
    let api = interface(client, group, version, kind, &object);
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    // Asked first: an existing Service holds its own address, and creating it again would be
    // refused for that.
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match api.get_opt(name).await {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => {}
        Err(source) => return Err(failed(kind, &object, source)),
    }
    match api.create(&params, &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        // Of two servers that start at once one is refused, for the address that the other's Service
        // holds by now.
        Err(source) => match api.get_opt(name).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(failed(kind, &object, source)),
        },
    }
}

async fn apply(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
    object: Value,
) -> Result<(), Error> {
    let object = typed(group, version, kind, object);
    let api = interface(client, group, version, kind, &object);
    let name = object.metadata.name.clone().unwrap_or_default();
    let params = PatchParams::apply(MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(&object)).await {
        Ok(_) => Ok(()),
        Err(source) => Err(failed(kind, &object, source)),
    }
}

fn failed(kind: &str, object: &DynamicObject, source: kube::Error) -> Error {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Error::Bootstrap {
        what: format!("{kind} {name}"),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_ready_while_they_are_those_of_the_configuration() {
        let ranges = ["10.96.0.0/16".to_owned()];
        let mut found = json!({"spec": {"cidrs": ranges}});
        let ready = readiness(&found, &ranges).unwrap();
        assert_eq!(ready["status"], "True");
        found["status"] = json!({"conditions": [ready]});
        assert_eq!(readiness(&found, &ranges), None);
        let others = readiness(&found, &["10.97.0.0/16".to_owned()]).unwrap();
        assert_eq!(
            (&others["status"], &others["reason"]),
            (&json!("False"), &json!("Inconsistent"))
        );
    }
}
