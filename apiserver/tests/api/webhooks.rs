//! Webhooks and policies, driven by stock kubectl; the webhooks are in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use peapod_apiserver::pki::Subject;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::common::{self, Listening};
use crate::kubectl::kubectl;

async fn run(to: &Listening, args: &str, input: &str) -> String {
    match kubectl(to, args, input).await {
        Ok(told) => told,
        Err(told) => panic!("kubectl {args}: {told}"),
    }
}

async fn refused(to: &Listening, args: &str, input: &str) -> String {
    match kubectl(to, args, input).await {
        Ok(told) => panic!("kubectl {args} was not refused: {told}"),
        Err(told) => told,
    }
}

/// Another server, which answers JSON to JSON on any path.
async fn another(to: &Listening, answer: fn(&str, &Value) -> Value) -> SocketAddr {
    let names = ["localhost", "127.0.0.1", "hook.default.svc"].map(str::to_owned);
    let subject = Subject {
        name: "hook",
        groups: &[],
        sans: &names,
    };
    let credential = to.server.pki().issue(&subject, Timestamp::now()).unwrap();
    let tls = to.server.pki().server_tls(&credential).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(rustls::ServerConfig::clone(&tls)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(
                    |request: hyper::Request<hyper::body::Incoming>| async move {
                        let path = request.uri().path().to_owned();
                        let user = request.headers().get("x-remote-user").cloned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
                        if let Some(user) = user {
                            body = json!({"user": user.to_str().unwrap()});
                        }
                        let answer = answer(&path, &body).to_string();
                        let mut response = hyper::Response::new(Full::new(Bytes::from(answer)));
                        let json = hyper::header::HeaderValue::from_static("application/json");
                        response.headers_mut().insert("content-type", json);
                        Ok::<_, std::convert::Infallible>(response)
                    },
                );
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn bundle(to: &Listening) -> String {
    STANDARD.encode(to.server.pki().ca_certificate())
}

fn admit(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match path {
        "/label" => {
            let patch =
                json!([{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        "/deny" => {
            response["allowed"] = (request["object"]["data"]["bad"].is_null()).into();
            response["status"] = json!({"message": "bad data", "code": 403, "reason": "Forbidden"});
            response["warnings"] = json!(["looked at"]);
        }
        "/keep" => {
            response["allowed"] = (request["oldObject"]["data"]["keep"].is_null()).into();
            response["status"] = json!({"message": "kept", "code": 403, "reason": "Forbidden"});
        }
        _ => return json!({}),
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

fn configuration(kind: &str, name: &str, url: &str, bundle: &str, more: &str) -> String {
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nwebhooks:\n\
         - name: {name}.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  timeoutSeconds: 2\n\
         \x20 clientConfig: {{url: '{url}', caBundle: {bundle}}}\n{more}\
         \x20 rules: [{{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_change_and_refuse() {
    let to = common::listening().await;
    let hook = another(&to, admit).await;
    let bundle = bundle(&to);
    let at = |path: &str| format!("https://{hook}{path}");
    let mutating = configuration(
        "MutatingWebhookConfiguration",
        "label",
        &at("/label"),
        &bundle,
        "",
    );
    let condition =
        "  matchConditions: [{name: c, expression: \"object.metadata.name != 'free'\"}]\n";
    let validating = configuration(
        "ValidatingWebhookConfiguration",
        "deny",
        &at("/deny"),
        &bundle,
        condition,
    );
    run(&to, "apply -f -", &mutating).await;
    run(&to, "apply -f -", &validating).await;
    run(&to, "create configmap good --from-literal=a=b", "").await;
    assert_eq!(
        run(&to, "get cm good -o jsonpath={.metadata.labels.hooked}", "").await,
        "yes"
    );
    let told = refused(&to, "create configmap bad --from-literal=bad=1", "").await;
    assert!(
        told.contains(r#"admission webhook "deny.example.com" denied the request: bad data"#),
        "{told}"
    );
    run(&to, "create configmap free --from-literal=bad=1", "").await;

    // A mutating one has nothing to change in a deletion, but may refuse it.
    let kind = "MutatingWebhookConfiguration";
    let keeping = configuration(kind, "keep", &at("/keep"), &bundle, "");
    run(&to, "apply -f -", &keeping.replace("CREATE", "DELETE")).await;
    run(&to, "create configmap kept --from-literal=keep=1", "").await;
    let told = refused(&to, "delete configmap kept", "").await;
    assert!(told.contains("denied the request: kept"), "{told}");
    run(&to, "delete configmap good", "").await;
    let labelling = configuration(kind, "keep", &at("/label"), &bundle, "");
    run(&to, "apply -f -", &labelling.replace("CREATE", "DELETE")).await;
    let told = refused(&to, "delete configmap kept", "").await;
    assert!(told.contains("attempted to modify the object"), "{told}");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_fails_fails_by_its_policy() {
    let to = common::listening().await;
    let hook = another(&to, |_, _| json!({})).await;
    let at = |policy: &str, url: &str| {
        let more = format!("  failurePolicy: {policy}\n");
        let kind = "ValidatingWebhookConfiguration";
        configuration(kind, "fails", url, &bundle(&to), &more)
    };
    let config = |policy: &str| at(policy, &format!("https://{hook}/x"));
    // Nobody listens there.
    let away = at("Fail", "https://127.0.0.1:1/x");
    run(&to, "apply -f -", &away).await;
    let told = refused(&to, "create configmap a", "").await;
    assert!(
        told.contains(r#"failed to call webhook: Post "https://127.0.0.1:1/x?timeout=2s": "#),
        "{told}"
    );
    run(&to, "apply -f -", &config("Fail")).await;
    let told = refused(&to, "create configmap a", "").await;
    assert!(
        told.contains(r#"failed calling webhook "fails.example.com": webhook response was absent"#),
        "{told}"
    );
    run(&to, "apply -f -", &config("Ignore")).await;
    run(&to, "create configmap a", "").await;
    to.stop.cancel();
}

const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
  variables:
  - {name: max, expression: int(params.data.max)}
  validations:
  - expression: object.spec.replicas <= variables.max
    messageExpression: "'at most %d replicas'.format([variables.max])"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec:
  policyName: replicas
  validationActions: [Deny]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: default}
data: {max: '3'}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: label}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: "Object{metadata: Object.metadata{labels: Object.metadata.labels{merged: 'yes'}}}"
  - patchType: JSONPatch
    jsonPatch:
      expression: "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels['merged']}]"
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: label}
spec: {policyName: label}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_change_and_refuse() {
    let to = common::listening().await;
    run(&to, "apply -f -", POLICIES).await;
    run(&to, "create deployment small --image=x --replicas=3", "").await;
    let told = refused(&to, "create deployment large --image=x --replicas=4", "").await;
    let expected = "deployments.apps \"large\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request: at most 3 replicas";
    assert!(told.contains(expected), "{told}");
    run(&to, "create secret generic s", "").await;
    let labels = run(&to, "get secret s -o jsonpath={.metadata.labels}", "").await;
    assert_eq!(labels, r#"{"a/b":"yes","merged":"yes"}"#);
    let bad = POLICIES.replace(
        "object.spec.replicas <= variables.max",
        "object.spec.replicas <= variables.nosuch",
    );
    let told = refused(&to, "apply -f -", &bad).await;
    assert!(told.contains("undefined field 'nosuch'"), "{told}");
    to.stop.cancel();
}

fn convert(_: &str, review: &Value) -> Value {
    let request = &review["request"];
    let version = &request["desiredAPIVersion"];
    let objects = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut out = object.clone();
        out["apiVersion"] = version.clone();
        match version.as_str().unwrap() {
            "example.com/v2" => {
                let (host, port) = object["hostPort"]
                    .as_str()
                    .unwrap_or(":")
                    .split_once(':')
                    .unwrap();
                out["host"] = host.into();
                out["port"] = port.into();
            }
            _ => {
                let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
                out["hostPort"] = format!("{}:{}", text("host"), text("port")).into();
            }
        }
        out
    });
    let objects: Vec<Value> = objects.collect();
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects,
    }})
}

/// A definition with a webhook at an address that converts between its two versions.
fn ends(to: &common::Listening, hook: &str) -> Value {
    let version = |name: &str, fields: &[&str], storage: bool| {
        let fields: serde_json::Map<String, Value> = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({"type": "string"})))
            .collect();
        let selectable: Vec<Value> = fields
            .keys()
            .map(|field| json!({"jsonPath": format!(".{field}")}))
            .collect();
        json!({"name": name, "served": true, "storage": storage, "selectableFields": selectable, "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "ends.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "ends", "kind": "End"},
            "versions": [version("v1", &["hostPort"], true), version("v2", &["host", "port"], false)],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://{hook}/convert"), "caBundle": bundle(to)},
            }},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_converted_by_a_webhook() {
    let to = common::listening().await;
    let hook = another(&to, convert).await;
    let definition = ends(&to, &hook.to_string());
    run(&to, "create -f -", &definition.to_string()).await;
    run(
        &to,
        "wait --for=condition=Established --timeout=30s crd/ends.example.com",
        "",
    )
    .await;
    let object = json!({"apiVersion": "example.com/v1", "kind": "End", "metadata": {"name": "e"}, "hostPort": "h:80"});
    run(&to, "create -f -", &object.to_string()).await;
    let seen = run(
        &to,
        "get ends.v2.example.com e -o jsonpath={.host}/{.port}",
        "",
    )
    .await;
    assert_eq!(seen, "h/80");
    run(
        &to,
        "patch ends.v2.example.com e --type=merge -p {\"port\":\"81\"}",
        "",
    )
    .await;
    assert_eq!(
        run(&to, "get ends.v1.example.com e -o jsonpath={.hostPort}", "").await,
        "h:81"
    );
    // Selected as the version that is asked for shows it, whichever is stored.
    for (version, fields, found) in [
        ("v2", "host=h,port=81", "end.example.com/e\n"),
        ("v2", "host=h,port=80", ""),
        ("v1", "hostPort=h:81", "end.example.com/e\n"),
    ] {
        let get = format!("get ends.{version}.example.com --field-selector {fields} -o name");
        assert_eq!(run(&to, &get, "").await, found, "{version} {fields}");
    }
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_goes_without_the_webhook_that_converted_for_it() {
    let to = common::listening().await;
    // Nobody listens there.
    let definition = ends(&to, "127.0.0.1:1");
    run(&to, "create -f -", &definition.to_string()).await;
    let wait = "wait --for=condition=Established --timeout=30s crd/ends.example.com";
    run(&to, wait, "").await;
    let object = json!({"apiVersion": "example.com/v1", "kind": "End", "metadata": {"name": "e"}, "hostPort": "h:80"});
    run(&to, "create -f -", &object.to_string()).await;
    run(&to, "delete crd ends.example.com --timeout=30s", "").await;
    to.stop.cancel();
}

fn wardle(path: &str, body: &Value) -> Value {
    match path {
        // As servers that have their users authenticated by the one in front of them.
        "/apis/wardle.example.com/v1alpha1" if body["user"].is_null() => json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401,
        }),
        "/apis/wardle.example.com/v1alpha1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}],
        }),
        _ => json!({
            "kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1", "metadata": {},
            "items": [{"kind": "Flunder", "apiVersion": "wardle.example.com/v1alpha1", "metadata": {"name": body["user"], "namespace": "default"}}],
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_serves_a_group() {
    let to = common::listening().await;
    let server = another(&to, wardle).await;
    let objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: hook, namespace: default}}\nspec: {{ports: [{{port: 443}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hook-1, namespace: default, labels: {{kubernetes.io/service-name: hook}}}}\n\
         addressType: IPv4\nports: [{{name: '', port: {}}}]\nendpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\n---\n\
         apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1alpha1.wardle.example.com}}\n\
         spec: {{group: wardle.example.com, version: v1alpha1, groupPriorityMinimum: 2000, versionPriority: 200, caBundle: {}, service: {{name: hook, namespace: default}}}}\n",
        server.port(),
        bundle(&to)
    );
    let told = kubectl(&to, "apply -f -", &objects).await;
    // Loopback may be refused as an endpoint: it is written as the server's own tests do.
    assert!(told.is_ok(), "{told:?}");
    run(
        &to,
        "wait --for=condition=Available --timeout=30s apiservice/v1alpha1.wardle.example.com",
        "",
    )
    .await;
    assert_eq!(
        run(&to, "get flunders -o name", "").await,
        "flunder.wardle.example.com/kubernetes-admin\n"
    );
    assert!(
        run(
            &to,
            "api-resources --api-group=wardle.example.com -o name",
            ""
        )
        .await
        .contains("flunders")
    );
    to.stop.cancel();
}
