//! `/proxy` of pods and services, and the older ways to bind and to resize.

use crate::common;
use http::Request;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that answers one request with its first line and its body.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let line = text.lines().next().unwrap_or_default();
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let told = format!("{line} {body}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}",
                told.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

async fn ask(client: &kube::Client, method: &str, path: &str, body: &str) -> String {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(body.as_bytes().to_vec()).unwrap();
    match client.request_text(request).await {
        Ok(text) => text,
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(other) => panic!("{other}"),
    }
}

async fn make<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

#[tokio::test]
async fn requests_reach_pods_and_services() {
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    let port = echo().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    make(&accounts, json!({"metadata": {"name": "default"}})).await;
    make(
        &pods,
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let base = "/api/v1/namespaces/default";
    let lost = ask(&client, "GET", &format!("{base}/pods/p:{port}/proxy/x"), "").await;
    assert!(lost.contains("has no address yet"), "{lost}");
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let told = ask(
        &client,
        "GET",
        &format!("{base}/pods/p:{port}/proxy/a%2Fb?q=1"),
        "",
    )
    .await;
    assert_eq!(told, "GET /a%2Fb?q=1 HTTP/1.1 ");
    let told = ask(
        &client,
        "POST",
        &format!("{base}/pods/p:{port}/proxy/a"),
        "hello",
    )
    .await;
    assert_eq!(told, "POST /a HTTP/1.1 hello");

    let services: Api<Service> = Api::default_namespaced(client.clone());
    make(
        &services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "http", "port": 80}]}}),
    )
    .await;
    let told = ask(
        &client,
        "GET",
        &format!("{base}/services/s:http/proxy/"),
        "",
    )
    .await;
    assert_eq!(told, "no endpoints available for service \"s\"");
    let endpoints: Api<Endpoints> = Api::default_namespaced(client.clone());
    let subset =
        json!({"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "http", "port": port}]});
    make(
        &endpoints,
        json!({"metadata": {"name": "s"}, "subsets": [subset]}),
    )
    .await;
    let told = ask(&client, "GET", &format!("{base}/services/s:81/proxy/"), "").await;
    assert_eq!(told, "no service port 81 found for service \"s\"");
}

/// A server of one page, which says which method it was asked by.
async fn page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            let method = text.split(' ').next().unwrap_or_default();
            let body = format!("<a href=\"/next\">{method}</a>");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn pages_lead_through_the_proxy() {
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    let port = page().await;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    make(&accounts, json!({"metadata": {"name": "default"}})).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    make(&pods, pod).await;
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let base = format!("/api/v1/namespaces/default/pods/p:{port}/proxy");
    for method in ["GET", "OPTIONS", "DELETE", "PATCH", "PUT", "POST"] {
        let told = ask(&client, method, &format!("{base}/"), "").await;
        assert_eq!(told, format!("<a href=\"{base}/next\">{method}</a>"));
    }
    let request = Request::get(format!("{base}?x=1")).body(kube::client::Body::empty());
    let moved = client.send(request.unwrap()).await.unwrap();
    assert_eq!(moved.status(), 301);
    assert_eq!(moved.headers()["location"], format!("{base}/?x=1"));
}

#[tokio::test]
async fn pods_are_bound_and_resized() {
    let (server, _dir) = common::server().await;
    let client = common::admin(&server);
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    make(&accounts, json!({"metadata": {"name": "default"}})).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    make(&pods, json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    ask(
        &client,
        "POST",
        "/api/v1/namespaces/default/bindings",
        &binding.to_string(),
    )
    .await;
    let bound = pods.get("p").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));

    let resize = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    let patch = Patch::Strategic(resize("150m"));
    let sized = pods
        .patch_subresource("resize", "p", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let container = &sized.spec.unwrap().containers[0];
    let requests = container
        .resources
        .as_ref()
        .unwrap()
        .requests
        .as_ref()
        .unwrap();
    assert_eq!(requests["cpu"].0, "150m");
    let patch = Patch::Strategic(
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": null}, "limits": {"cpu": null}}}]}}),
    );
    let refused = pods
        .patch_subresource("resize", "p", &PatchParams::default(), &patch)
        .await;
    let told = refused.unwrap_err().to_string();
    assert!(
        told.contains("Pod QOS Class may not change as a result of resizing"),
        "{told}"
    );
}
