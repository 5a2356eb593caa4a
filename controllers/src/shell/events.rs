//! Events: what the controllers tell people, `kubectl describe` shows it.
//!
//! Recorded without waiting: a bounded channel to one task that writes them, as the correlator of
//! [`peapod_api::events`] decides.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch};
use kube::{Api, Client, Resource};
use peapod_api::events::{COMBINED, Correlator, Occurrence};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use super::write;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 512;
/// Events remembered for counting; beyond, those that were told longest ago are forgotten.
const REMEMBERED: usize = 1024;
/// The longest message, as the API's validation has it, with what may precede it.
const MESSAGE_MAX: usize = 1024 - COMBINED.len();

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// What happens in good order.
    Normal,
    /// What someone should look at.
    Warning,
}

impl Grade {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How grave it is.
    pub grade: Grade,
    /// One word, as `ScalingReplicaSet`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Note {
    /// A normal event.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            grade: Grade::Normal,
            reason,
            message: message.into(),
        }
    }

    /// A warning.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            grade: Grade::Warning,
            reason,
            message: message.into(),
        }
    }
}

struct Entry {
    component: &'static str,
    about: ObjectReference,
    note: Note,
    at: Timestamp,
}

/// Where loops leave their events.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Entry>);

/// The task that writes them.
pub struct Writer {
    client: Client,
    entries: mpsc::Receiver<Entry>,
    seen: Correlator,
}

/// A recorder and the task that writes what it records.
pub fn channel(client: Client) -> (Events, Writer) {
    let (sender, entries) = mpsc::channel(QUEUE);
    let writer = Writer {
        client,
        entries,
        seen: Correlator::new(REMEMBERED),
    };
    (Events(sender), writer)
}

/// A reference to an object, as events carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Events {
    /// Records what a component has to say about an object.
    pub fn record<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        mut note: Note,
    ) {
        let fits = (0..=MESSAGE_MAX)
            .rev()
            .find(|&at| note.message.is_char_boundary(at));
        if note.message.len() > MESSAGE_MAX {
            note.message.truncate(fits.unwrap_or(0));
        }
        let entry = Entry {
            component,
            about: reference(about),
            note,
            at: Timestamp::now(),
        };
        if self.0.try_send(entry).is_err() {
            debug!(component, "event dropped: too many are waiting");
        }
    }
}

impl Writer {
    /// Writes events until every recorder is gone.
    pub async fn run(mut self) {
        while let Some(entry) = self.entries.recv().await {
            let (component, reason) = (entry.component, entry.note.reason);
            if let Err(error) = self.write(entry).await {
                debug!(component, reason, %error, "event not written");
            }
        }
    }

    async fn write(&mut self, mut entry: Entry) -> kube::Result<()> {
        let namespace = entry
            .about
            .namespace
            .as_deref()
            .unwrap_or("default")
            .to_owned();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let occurrence = Occurrence {
            source: entry.component,
            about: entry.about.uid.as_deref().unwrap_or_default(),
            part: "",
            kind: entry.note.grade.text(),
            reason: entry.note.reason,
            message: &entry.note.message,
        };
        let Some(mut told) = self.seen.observe(&occurrence, entry.at) else {
            return Ok(());
        };
        if let Some(name) = &told.name {
            let patch = json!({
                "count": told.count, "lastTimestamp": Time(entry.at), "message": told.message,
            });
            match api
                .patch(name, &write::patch_params(), &Patch::Merge(patch))
                .await
            {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => return result.map(drop),
            }
            told = self.seen.gone(told);
        }
        entry.note.message.clone_from(&told.message);
        let created = api.create(&write::post(), &event(entry, namespace)).await?;
        let name = created.metadata.name.unwrap_or_default();
        self.seen.written(&told, name);
        Ok(())
    }
}

fn event(entry: Entry, namespace: String) -> Event {
    let about = entry.about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace),
            name: Some(format!("{about}.{:x}", entry.at.as_nanosecond())),
            ..Default::default()
        },
        involved_object: entry.about,
        reason: Some(entry.note.reason.to_owned()),
        message: Some(entry.note.message),
        type_: Some(entry.note.grade.text().to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(entry.at)),
        last_timestamp: Some(Time(entry.at)),
        source: Some(EventSource {
            component: Some(entry.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(entry.component.to_owned()),
        ..Default::default()
    }
}
