//! Events for people, written to the API: in the background, a bounded number, as the correlator
//! of [`peapod_api::events`] decides.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use peapod_api::events::{Correlator, Occurrence, Told};
use peapod_api::k8s_openapi;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::core::{Note, Severity};

/// More than this many waiting events are dropped, the newest first.
const QUEUE_MAX: usize = 1024;
/// How many recent events are remembered in order to count repetitions.
const RECENT_MAX: usize = 512;
/// The name under which the node agent reports.
const COMPONENT: &str = "kubelet";

struct Item {
    about: ObjectReference,
    namespace: String,
    note: Note,
    at: Timestamp,
}

/// Takes events.
pub struct Notes {
    queue: mpsc::Sender<Item>,
    _task: AbortOnDropHandle<()>,
}

impl Notes {
    /// Starts writing events in the name of a node.
    pub fn start(client: Client, node: &str) -> Self {
        let (queue, items) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            node: node.to_owned(),
            recent: Correlator::new(RECENT_MAX),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(writer.run(items)));
        Self { queue, _task: task }
    }

    /// Records an event about a pod.
    pub fn about_pod(&self, pod: &Pod, note: Note) {
        let field = |name: &str| {
            let kind = crate::core::find(pod, name).map(|view| view.kind);
            let list = match kind {
                Some(crate::core::Kind::Init | crate::core::Kind::Sidecar) => "initContainers",
                Some(crate::core::Kind::Ephemeral) => "ephemeralContainers",
                _ => "containers",
            };
            format!("spec.{list}{{{name}}}")
        };
        let meta = &pod.metadata;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: note.container.as_deref().map(field),
        };
        let namespace = meta.namespace.clone().unwrap_or_default();
        self.send(Item {
            about,
            namespace,
            note,
            at: Timestamp::now(),
        });
    }

    /// Records an event about the node.
    pub fn about_node(&self, node: &str, note: Note) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let namespace = "default".to_owned();
        self.send(Item {
            about,
            namespace,
            note,
            at: Timestamp::now(),
        });
    }

    fn send(&self, item: Item) {
        if let Err(error) = self.queue.try_send(item) {
            tracing::warn!(%error, "dropped an event: the API takes them too slowly");
        }
    }
}

struct Writer {
    client: Client,
    node: String,
    recent: Correlator,
}

impl Writer {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        while let Some(item) = items.recv().await {
            let reason = item.note.reason.clone();
            if let Err(error) = self.write(item).await {
                tracing::debug!(%reason, %error, "cannot write an event");
            }
        }
    }

    async fn write(&mut self, item: Item) -> Result<(), kube::Error> {
        let occurrence = Occurrence {
            source: COMPONENT,
            about: item.about.uid.as_deref().unwrap_or_default(),
            part: item.about.field_path.as_deref().unwrap_or_default(),
            kind: severity(&item.note),
            reason: &item.note.reason,
            message: &item.note.message,
        };
        let Some(mut told) = self.recent.observe(&occurrence, item.at) else {
            return Ok(());
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &item.namespace);
        if let Some(name) = &told.name {
            let patch = json!({
                "count": told.count, "lastTimestamp": seconds(item.at), "message": told.message,
            });
            let written = api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            if !matches!(&written, Err(kube::Error::Api(status)) if status.code == 404) {
                return written.map(drop);
            }
            told = self.recent.gone(told);
        }
        let event = self.event(&item, &told);
        api.create(&PostParams::default(), &event).await?;
        let name = event.metadata.name.unwrap_or_default();
        self.recent.written(&told, name);
        Ok(())
    }

    fn event(&self, item: &Item, told: &Told) -> Event {
        let about = item.about.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{about}.{:x}",
                    uuid::Uuid::new_v4().as_u64_pair().0
                )),
                namespace: Some(item.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: item.about.clone(),
            type_: Some(severity(&item.note).to_owned()),
            reason: Some(item.note.reason.clone().into_owned()),
            message: Some(told.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(seconds_of(item.at))),
            last_timestamp: Some(Time(seconds_of(item.at))),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}

fn severity(note: &Note) -> &'static str {
    match note.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    }
}

/// The API's times are whole seconds.
pub fn seconds_of(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn seconds(at: Timestamp) -> String {
    seconds_of(at).to_string()
}
