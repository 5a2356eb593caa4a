//! Publishes the cluster's DNS as the Service `kube-system/kube-dns`, so that its address is
//! taken and everybody finds it where they look for it.
//!
//! It has no endpoints: every node answers at this address itself.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Creates the Service if there is none, and tries until that is so.
pub(super) async fn run(client: Client, addresses: Vec<IpAddr>) {
    let api: Api<Service> = Api::namespaced(client, NAMESPACE);
    let service = match serde_json::from_value(service(&addresses)) {
        Ok(service) => service,
        Err(error) => {
            tracing::error!(%error, "the Service of the cluster's DNS is malformed");
            return;
        }
    };
    let mut pause = PAUSES.0;
    loop {
        // Asked for first: while it is there, its address is taken, and creating it is refused.
        let published = match api.get_opt(NAME).await {
            Ok(None) => api.create(&PostParams::default(), &service).await.map(drop),
            Ok(Some(_)) => return,
            Err(error) => Err(error),
        };
        match published {
            Ok(()) => return,
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(error) => {
                tracing::warn!(%error, "cannot publish the Service kube-system/kube-dns; trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn service(addresses: &[IpAddr]) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "targetPort": 53, "protocol": protocol});
    let families: Vec<&str> = addresses
        .iter()
        .map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "Peapod",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "ipFamilies": families,
            "ipFamilyPolicy": if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}
