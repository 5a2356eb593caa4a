//! The audit log: what is recorded of requests, by a policy.

use kube::api::{Api, ListParams, PostParams};
use peapod_apiserver::audit::AuditConfig;
use peapod_apiserver::audit::log::LogConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authz::{create, of, refused};
use crate::common::{self, Listening, admin};
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

/// A server that records by a policy, and the directory of its log.
async fn audited(policy: &str) -> (TempDir, Listening) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, policy).unwrap();
    let audit = AuditConfig {
        policy: file,
        log: LogConfig::new(dir.path().join("audit.log")),
    };
    let to = common::listening_with(|config| config.audit = Some(audit)).await;
    (dir, to)
}

/// What a server has recorded at its end: as it is, and event by event.
async fn recorded(dir: TempDir, to: Listening) -> (String, Vec<Value>) {
    to.stop.cancel();
    to.served.await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let events = events.collect();
    (text, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_policy_wants_is_recorded() {
    let (dir, to) = audited(POLICY).await;
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
    let (text, events) = recorded(dir, to).await;
    assert!(
        !text.contains("hidden") && !text.contains("managedFields"),
        "{text}"
    );
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

const ADMISSION: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: "size(object.data) < 2", message: "too much"}]
  auditAnnotations: [{key: size, valueExpression: "string(size(object.data))"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: short}
spec: {policyName: short, validationActions: [Audit, Warn]}
---
apiVersion: v1
kind: Namespace
metadata: {name: watched, labels: {pod-security.kubernetes.io/audit: restricted, pod-security.kubernetes.io/enforce: baseline}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: watched}
"#;

const ALL: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create]
  resources: [{group: "", resources: [configmaps, pods]}]
  users: [kubernetes-admin]
- level: None
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_admission_finds_is_recorded() {
    let (dir, to) = audited(ALL).await;
    kubectl(&to, "create -f -", ADMISSION).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(admin(&to.server), "default");
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "", "b": ""}});
    create(maps, large).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(admin(&to.server), "watched");
    let pod = |spec: Value| {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "image": "x"}]);
        json!({"metadata": {"name": "p"}, "spec": spec})
    };
    let refusal = pods
        .create(&PostParams::default(), &of(pod(json!({"hostPID": true}))))
        .await;
    refused(refusal);
    create(pods, pod(json!({}))).await;
    let (text, events) = recorded(dir, to).await;
    let annotations = events.iter().map(|event| &event["annotations"]);
    let [large, refused, audited] = annotations.collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    assert_eq!(large["short/size"], "2");
    let failure = large["validation.policy.admission.k8s.io/validation_failure"].as_str();
    let failure: Value = serde_json::from_str(failure.unwrap()).unwrap();
    let expected = json!([{
        "message": "too much", "policy": "short", "binding": "short",
        "expressionIndex": 0, "validationActions": ["Audit", "Warn"],
    }]);
    assert_eq!(failure, expected);
    for pod in [refused, audited] {
        let policy = &pod["pod-security.kubernetes.io/enforce-policy"];
        assert_eq!(policy, "baseline:latest");
    }
    let violations = audited["pod-security.kubernetes.io/audit-violations"].as_str();
    let violations = violations.unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": "),
        "{violations}"
    );
}
