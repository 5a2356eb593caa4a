//! An API server of a few kinds in memory: lists, watches, creates. No validation.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Bytes = bytes::Bytes;
type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    revision: u64,
    /// By plural, then namespace/name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watchers: Vec<Watcher>,
}

struct Watcher {
    kind: String,
    /// Objects of this name only.
    name: Option<String>,
    events: mpsc::UnboundedSender<Value>,
}

impl Watcher {
    fn wants(&self, object: &Value) -> bool {
        let name = self.name.as_deref();
        name.is_none_or(|name| object["metadata"]["name"] == name)
    }
}

/// The API.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

fn id(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

impl Api {
    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object.
    pub fn put(&self, mut object: Value) {
        let mut state = self.0.lock();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let kind = plural(object["kind"].as_str().unwrap());
        let objects = state.objects.entry(kind.clone()).or_default();
        let old = objects.insert(id(&object), object.clone());
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(&kind, event, object);
    }

    /// Creates or replaces the objects of a YAML text.
    pub fn apply(&self, yaml: &str) {
        for document in yaml.split("\n---\n") {
            self.put(serde_saphyr::from_str(document).unwrap());
        }
    }

    /// Deletes an object.
    pub fn delete(&self, kind: &str, name: &str) {
        let mut state = self.0.lock();
        let kind = plural(kind);
        let object = state.objects.get_mut(&kind).and_then(|o| o.remove(name));
        state.tell(&kind, "DELETED", object.unwrap());
    }

    /// An object.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let state = self.0.lock();
        state.objects.get(&plural(kind))?.get(name).cloned()
    }

    async fn serve(&self, request: Request<Body>) -> Reply {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = if words[0] == "api" {
            &words[2..]
        } else {
            &words[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        if head.method == Method::POST {
            let body = body.collect().await.unwrap().to_bytes();
            return self.create(&body);
        }
        if let (&Method::PATCH, [kind, name, "status"]) = (&head.method, rest) {
            let body = body.collect().await.unwrap().to_bytes();
            return self.patch_status(kind, &format!("{namespace}/{name}"), &body);
        }
        if let [kind, name] = rest {
            let found = self
                .0
                .lock()
                .objects
                .get(*kind)
                .cloned()
                .unwrap_or_default();
            return match found.get(&format!("{namespace}/{name}")) {
                Some(object) => reply(StatusCode::OK, object),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let query = head.uri.query().unwrap_or_default();
        assert!(query.contains("sendInitialEvents=true"));
        let selected = query.split('&').find_map(|word| {
            let name = word.strip_prefix("fieldSelector=metadata.name%3D")?;
            Some(name.to_owned())
        });
        self.watch(rest[0], selected)
    }

    fn create(&self, body: &[u8]) -> Reply {
        let object: Value = serde_json::from_slice(body).unwrap();
        let kind = object["kind"].as_str().unwrap();
        if self.get(kind, &id(&object)).is_some() {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        self.put(object.clone());
        reply(StatusCode::CREATED, &object)
    }

    /// Merges the fields of a status.
    fn patch_status(&self, kind: &str, id: &str, body: &[u8]) -> Reply {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let found = self
            .0
            .lock()
            .objects
            .get(kind)
            .and_then(|all| all.get(id).cloned());
        let Some(mut object) = found else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        for (field, value) in patch["status"].as_object().unwrap() {
            object["status"][field] = value.clone();
        }
        self.put(object.clone());
        reply(StatusCode::OK, &object)
    }

    fn watch(&self, kind: &str, name: Option<String>) -> Reply {
        let (sender, receiver) = mpsc::unbounded_channel();
        let watcher = Watcher {
            kind: kind.to_owned(),
            name,
            events: sender.clone(),
        };
        let mut state = self.0.lock();
        let all = state.objects.get(kind).into_iter().flatten();
        for (_, object) in all.filter(|(_, object)| watcher.wants(object)) {
            sender
                .send(json!({"type": "ADDED", "object": object}))
                .unwrap();
        }
        let end = json!({"type": "BOOKMARK", "object": {
            "kind": "Any", "apiVersion": "v1",
            "metadata": {
                "resourceVersion": state.revision.to_string(),
                "annotations": {"k8s.io/initial-events-end": "true"},
            },
        }});
        sender.send(end).unwrap();
        state.watchers.push(watcher);
        let lines = stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((event, receiver))
        });
        let frames = lines.map(|event| {
            let line = Bytes::from(format!("{event}\n"));
            Ok(http_body::Frame::data(line))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

impl State {
    fn tell(&mut self, kind: &str, event: &str, object: Value) {
        let event = json!({"type": event, "object": object});
        self.watchers.retain(|watcher| {
            let wanted = watcher.kind == kind && watcher.wants(&event["object"]);
            !wanted || watcher.events.send(event.clone()).is_ok()
        });
    }
}

fn reply(status: StatusCode, object: &Value) -> Reply {
    let body = http_body_util::Full::new(Bytes::from(object.to_string()));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode, reason: &str) -> Reply {
    let object = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": status.as_u16(),
    });
    reply(status, &object)
}
