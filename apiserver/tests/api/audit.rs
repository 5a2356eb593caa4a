//! The audit log: what is recorded of requests, by a policy.

use kube::api::{Api, ListParams, PostParams};
use peapod_apiserver::audit::AuditConfig;
use peapod_apiserver::audit::log::LogConfig;
use serde_json::{Value, json};

use crate::authz::{create, of, refused};
use crate::common::{self, admin};
use crate::kubectl::kubectl;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps]}]
- level: None
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_wants_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogConfig::new(&path);
    let to =
        common::listening_with(|config| config.audit = Some(AuditConfig { policy, log })).await;
    let maps: Api<ConfigMap> = Api::namespaced(admin(&to.server), "default");
    create(maps, json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await;
    let secrets: Api<Secret> = Api::namespaced(admin(&to.server), "default");
    create(
        secrets,
        json!({"metadata": {"name": "s"}, "stringData": {"a": "hidden"}}),
    )
    .await;
    let eve: Api<Secret> = Api::namespaced(to.server.client("eve", &[]), "default");
    refused(
        eve.create(
            &PostParams::default(),
            &of(json!({"metadata": {"name": "t"}})),
        )
        .await,
    );
    refused(eve.list(&ListParams::default()).await);
    kubectl(
        &to,
        "get configmap m --as=jane --as-group=system:masters",
        "",
    )
    .await
    .unwrap();
    to.stop.cancel();
    to.served.await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("hidden") && !text.contains("managedFields"),
        "{text}"
    );
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<String> = events
        .iter()
        .map(|event| {
            let at = |path: &str| {
                event
                    .pointer(path)
                    .map(|found| found.to_string().replace('"', ""))
            };
            let all = [
                "/level",
                "/stage",
                "/verb",
                "/objectRef/resource",
                "/user/username",
                "/responseStatus/code",
            ];
            all.map(|path| at(path).unwrap_or_default()).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "RequestResponse ResponseComplete create configmaps kubernetes-admin 201",
            "Metadata ResponseComplete create secrets kubernetes-admin 201",
            "Metadata ResponseComplete create secrets eve 403",
            "Metadata ResponseComplete list secrets eve 403",
            "RequestResponse ResponseComplete get configmaps kubernetes-admin 200",
        ]
    );
    assert_eq!(events[0]["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(events[0]["responseObject"]["metadata"]["name"], "m");
    assert_eq!(
        events[2]["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(events[4]["impersonatedUser"]["username"], "jane");
    assert_eq!(events[4]["sourceIPs"], json!(["127.0.0.1"]));
}
