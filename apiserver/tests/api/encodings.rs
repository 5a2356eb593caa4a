//! Protobuf, CBOR and YAML say what JSON says: objects, lists, watches, refusals.

use crate::common::{self, Listening};
use crate::wire::{connect, request, send};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use peapod_schema::graph::Graph;
use peapod_schema::{Schema, cbor, decode, protobuf};
use serde_json::{Value, json};
use std::sync::Arc;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const TABLE: &str = ";as=Table;v=v1;g=meta.k8s.io";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn schema(name: &str) -> Schema {
    let graph: Arc<Graph> = Arc::new(peapod_schema::builtin::graph(|text| Ok(text.to_owned())));
    Schema::named(&graph, name).unwrap()
}

async fn get(to: &Listening, path: &str, accept: &str) -> (StatusCode, Bytes) {
    send(to, request(Method::GET, path, accept)).await
}

async fn write(
    to: &Listening,
    (method, path): (Method, &str),
    kind: &str,
    body: Vec<u8>,
) -> (StatusCode, Bytes) {
    let mut asked = request(method, path, "application/json");
    asked
        .headers_mut()
        .insert("content-type", kind.parse().unwrap());
    *asked.body_mut() = Full::from(body);
    send(to, asked).await
}

async fn create_maps(to: &Listening, count: usize) {
    for at in 0..count {
        let map = json!({"metadata": {"name": format!("m{at}")}, "data": {"k": "v".repeat(400)}});
        let body = map.to_string().into_bytes();
        let (code, answer) = write(to, (Method::POST, MAPS), "application/json", body).await;
        assert_eq!(code, StatusCode::CREATED, "{answer:?}");
    }
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn yaml_of(body: &[u8]) -> Value {
    decode::yaml(body).unwrap().value
}

fn cbor_of(body: &[u8]) -> Value {
    cbor::decode(body).unwrap().value
}

/// As items of lists are in protobuf, which does not repeat their kind.
fn without_types(mut list: Value) -> Value {
    for item in list["items"].as_array_mut().unwrap() {
        let item = item.as_object_mut().unwrap();
        item.remove("kind");
        item.remove("apiVersion");
    }
    list
}

/// A list without the cells that tell how old objects are, which may be a second older in the next.
fn without_ages(mut list: Value) -> Value {
    let rows = list.get_mut("rows").and_then(Value::as_array_mut);
    for row in rows.into_iter().flatten() {
        row["cells"].as_array_mut().unwrap().pop();
    }
    list
}

#[tokio::test]
async fn objects_in_every_encoding() {
    let to = common::listening().await;
    let path = "/api/v1/namespaces/default";
    let (_, body) = get(&to, path, "application/json").await;
    let object = json_of(&body);
    let (_, body) = get(&to, path, "application/json;pretty=1").await;
    assert!(body.starts_with(b"{\n  \"apiVersion\": \"v1\",\n"));
    assert_eq!(json_of(&body), object);
    let (_, body) = get(&to, path, "application/yaml").await;
    assert_eq!(yaml_of(&body), object);
    let (_, body) = get(&to, path, "application/cbor").await;
    assert_eq!(cbor_of(&body), object);
    let (_, body) = get(&to, path, PROTOBUF).await;
    let read = protobuf::decode(&body, &schema("core.v1.Namespace"));
    assert_eq!(read.unwrap().value, object);
    let (code, body) = get(&to, "/api/v1/namespaces/none", PROTOBUF).await;
    let refused = protobuf::decode(&body, &schema("meta.v1.Status"))
        .unwrap()
        .value;
    assert_eq!(
        (code, &refused["reason"], &refused["code"]),
        (StatusCode::NOT_FOUND, &json!("NotFound"), &json!(404))
    );
    let (_, body) = get(&to, "/api/v1", PROTOBUF).await;
    let found = protobuf::decode(&body, &schema("meta.v1.APIResourceList"));
    assert_eq!(found.unwrap().value["groupVersion"], "v1");
}

#[tokio::test]
async fn discovery_in_every_encoding() {
    let to = common::listening().await;
    let whole = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, form, ty) in [
        ("/api", "", "meta.v1.APIVersions"),
        ("/apis", "", "meta.v1.APIGroupList"),
        ("/apis/apps", "", "meta.v1.APIGroup"),
        ("/apis/apps/v1", "", "meta.v1.APIResourceList"),
        ("/api", whole, "apidiscovery.v2.APIGroupDiscoveryList"),
        ("/apis", whole, "apidiscovery.v2.APIGroupDiscoveryList"),
    ] {
        let (_, body) = get(&to, path, &format!("application/json{form}")).await;
        let mut expected = json_of(&body);
        let (_, body) = get(&to, path, &format!("application/yaml{form}")).await;
        assert_eq!(yaml_of(&body), expected);
        let (_, body) = get(&to, path, &format!("application/cbor{form}")).await;
        assert_eq!(cbor_of(&body), expected);
        let (_, body) = get(&to, path, &format!("{PROTOBUF}{form}")).await;
        let mut read = protobuf::decode(&body, &schema(ty)).unwrap().value;
        without_nothing(&mut expected);
        without_nothing(&mut read);
        assert_eq!(read, expected, "{path}{form}");
    }
}

/// Takes away what protobuf does not tell from what is not there.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_nothing);
            let nothing = [json!(""), json!(false), json!([]), json!({}), json!(null)];
            fields.retain(|_, value| !nothing.contains(value));
        }
        Value::Array(items) => items.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

#[tokio::test]
async fn lists_in_every_form_and_encoding() {
    let to = common::listening().await;
    create_maps(&to, 3).await;
    let list = schema("core.v1.ConfigMapList");
    for form in ["", METADATA, TABLE] {
        let (_, body) = get(&to, MAPS, &format!("application/json{form}")).await;
        let expected = without_ages(json_of(&body));
        let (_, body) = get(&to, MAPS, &format!("application/yaml{form}")).await;
        assert_eq!(without_ages(yaml_of(&body)), expected);
        let (_, body) = get(&to, MAPS, &format!("application/cbor{form}")).await;
        assert_eq!(without_ages(cbor_of(&body)), expected);
        let (_, body) = get(
            &to,
            &format!("{MAPS}?pretty=true"),
            &format!("application/json{form}"),
        )
        .await;
        assert_eq!(without_ages(json_of(&body)), expected);
        assert!(body.starts_with(b"{\n  \""));
        let (code, body) = get(&to, MAPS, &format!("{PROTOBUF}{form}")).await;
        if form == TABLE {
            assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
            continue;
        }
        let read = protobuf::decode(&body, &list).unwrap().value;
        assert_eq!(read, without_types(expected));
    }
    let (_, none) = get(
        &to,
        "/api/v1/namespaces/none/configmaps",
        "application/yaml",
    )
    .await;
    assert_eq!(yaml_of(&none)["items"], json!([]));
}

/// The body of a watch that ends with its timeout.
async fn watched(to: &Listening, accept: &str) -> (String, Bytes) {
    let io = TokioIo::new(connect(to, "system:masters").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driven = tokio::spawn(connection);
    let path = format!(
        "{MAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let asked = request(Method::GET, &path, accept);
    let answer = sender.send_request(asked).await.unwrap();
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    driven.abort();
    (kind, body)
}

/// The events of a watch in protobuf, with their objects as JSON.
fn frames(mut body: &[u8], schema: &Schema) -> Vec<(String, Value)> {
    use k8s_pb::apimachinery::pkg::apis::meta::v1::WatchEvent;
    use prost::Message;
    let mut events = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let event = WatchEvent::decode(frame).unwrap();
        let object = event.object.unwrap().raw.unwrap();
        let object = protobuf::decode(&object, schema).unwrap().value;
        events.push((event.r#type.unwrap(), object));
        body = rest;
    }
    events
}

#[tokio::test]
async fn watches_in_every_encoding() {
    let to = common::listening().await;
    create_maps(&to, 1).await;
    for form in ["", ";as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
        let (kind, body) = watched(&to, &format!("application/json{form}")).await;
        assert_eq!(kind, "application/json");
        let lines = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let expected: Vec<Value> = lines.map(json_of).collect();
        assert!(expected.iter().any(|event| event["type"] == "ADDED"));
        assert!(expected.iter().any(|event| event["type"] == "BOOKMARK"));

        let (kind, body) = watched(&to, &format!("{PROTOBUF}{form}")).await;
        assert_eq!(kind, "application/vnd.kubernetes.protobuf;stream=watch");
        let events = frames(&body, &schema("core.v1.ConfigMap"));
        let added = |object: &Value| object["metadata"]["name"] == "m0";
        let (first, object) = events.iter().find(|(_, object)| added(object)).unwrap();
        let same = expected
            .iter()
            .find(|event| added(&event["object"]))
            .unwrap();
        assert_eq!((first.as_str(), object), ("ADDED", &same["object"]));
        assert!(events.iter().any(|(kind, object)| kind == "BOOKMARK"
            && object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"));

        let (kind, body) = watched(&to, &format!("application/cbor{form}")).await;
        assert_eq!(kind, "application/cbor-seq");
        let first = cbor::decode_sequence(&body).unwrap();
        let found = first.iter().find(|event| added(&event["object"])).unwrap();
        assert_eq!(found, same);
    }
}

#[tokio::test]
async fn writes_in_cbor_and_protobuf() {
    let to = common::listening().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
    let body = cbor::encode(map.to_string().as_bytes()).unwrap();
    let (code, answer) = write(&to, (Method::POST, MAPS), "application/cbor", body).await;
    assert_eq!(code, StatusCode::CREATED, "{answer:?}");
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "y"}});
    let body = cbor::encode(applied.to_string().as_bytes()).unwrap();
    let path = format!("{MAPS}/c?fieldManager=tester");
    let kind = "application/apply-patch+cbor";
    let (code, answer) = write(&to, (Method::PATCH, &path), kind, body).await;
    assert_eq!(code, StatusCode::OK, "{answer:?}");
    assert_eq!(json_of(&answer)["data"], json!({"a": "b", "x": "y"}));
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "binaryData": {"k": "AAH/"}});
    let schema = schema("core.v1.ConfigMap");
    let shown = protobuf::Shown::Object;
    let body = protobuf::encode(other.to_string().as_bytes(), &schema, shown).unwrap();
    let (code, answer) = write(&to, (Method::POST, MAPS), PROTOBUF, body).await;
    assert_eq!(code, StatusCode::CREATED, "{answer:?}");
    assert_eq!(json_of(&answer)["binaryData"], json!({"k": "AAH/"}));
}
