//! Conversion between the versions of a custom kind by its webhook.
//!
//! What is stored is in one version; a reader of another gets what the webhook makes of it. The
//! pipeline decodes objects where it stands, so a conversion holds up its thread, within the
//! webhook's time; what was converted once is remembered.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::api::Api;
use crate::outbound::Destination;
use crate::random;
use crate::registry::value;

/// How long a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many converted objects are remembered.
const REMEMBERED_MAX: usize = 1024;

/// A definition's conversion webhook.
pub struct Webhook {
    api: Weak<Api>,
    /// The definition, for messages.
    name: String,
    client_config: Value,
    remembered: Mutex<HashMap<(String, String, String), Value>>,
}

// === impl Webhook ===

impl Webhook {
    /// The webhook of a definition; none where versions only differ in name.
    pub fn of(definition: &Value, api: Weak<Api>) -> Option<Self> {
        if value::text(definition, "spec.conversion.strategy") != "Webhook" {
            return None;
        }
        Some(Self {
            api,
            name: value::text(definition, "metadata.name").to_owned(),
            client_config: value::at(definition, "spec.conversion.webhook.clientConfig")?.clone(),
            remembered: Mutex::default(),
        })
    }

    /// Converts an object to another version of its group.
    ///
    /// # Errors
    /// Says why the webhook did not.
    pub fn convert(&self, object: &mut Value, version: &str) -> Result<(), String> {
        if value::text(object, "apiVersion") == version {
            return Ok(());
        }
        let text = |path| value::text(object, path).to_owned();
        let key = (
            text("metadata.uid"),
            text("metadata.resourceVersion"),
            version.to_owned(),
        );
        if let Some(known) = self.remembered.lock().get(&key) {
            *object = known.clone();
            return Ok(());
        }
        let from = text("apiVersion");
        let converted = blocking(self.ask(object, version));
        let converted = converted.map_err(|why| {
            format!(
                "conversion webhook for {from}, Kind={} failed: {why} ({})",
                value::text(object, "kind"),
                self.name
            )
        })?;
        // What has no revision yet may change and be asked about again.
        if !key.1.is_empty() {
            let mut remembered = self.remembered.lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(key, converted.clone());
        }
        *object = converted;
        Ok(())
    }

    async fn ask(&self, object: &Value, version: &str) -> Result<Value, String> {
        let api = self.api.upgrade().ok_or("the server is shutting down")?;
        let there = Destination::of_client_config(&api, &self.client_config).await;
        let there = there.map_err(|fault| fault.to_string())?;
        let review = review(object, version);
        let answer = there.post(&review, TIMEOUT).await;
        let answer =
            answer.map_err(|fault| format!("Post {:?}: {fault}", there.url_within(TIMEOUT)))?;
        read(object, version, &review, &answer)
    }
}

/// Runs a future to its end on a thread of its own, while this one waits.
fn blocking<T: Send>(work: impl Future<Output = Result<T, String>> + Send) -> Result<T, String> {
    let run = || {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.map_err(|fault| fault.to_string())?.block_on(work)
            });
            thread
                .join()
                .unwrap_or_else(|_| Err("the conversion panicked".to_owned()))
        })
    };
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        // Other tasks of this thread go on elsewhere.
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

fn review(object: &Value, version: &str) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": "apiextensions.k8s.io/v1",
        "request": {"uid": random::uid(), "desiredAPIVersion": version, "objects": [object]},
    })
}

/// Reads what the webhook made of an object. Of its metadata only labels and annotations may
/// change.
fn read(object: &Value, version: &str, review: &Value, answer: &Value) -> Result<Value, String> {
    let response = &answer["response"];
    if response["uid"] != review["request"]["uid"] {
        return Err(format!(
            "expected response.uid={}, got {}",
            review["request"]["uid"], response["uid"]
        ));
    }
    if value::text(response, "result.status") != "Success" {
        let told = match value::text(response, "result.message") {
            "" => "the webhook gave no reason",
            told => told,
        };
        return Err(told.to_owned());
    }
    let [converted] = value::list(response, "convertedObjects") else {
        let count = value::list(response, "convertedObjects").len();
        return Err(format!("webhook returned {count} objects, expected 1"));
    };
    let mut converted = converted.clone();
    if value::text(&converted, "apiVersion") != version {
        return Err(format!(
            "webhook returned invalid converted object: invalid apiVersion, expected {version}"
        ));
    }
    if converted["kind"] != object["kind"] {
        return Err("webhook returned invalid converted object: kind changed".to_owned());
    }
    let mut metadata = object["metadata"].clone();
    for field in ["labels", "annotations"] {
        let given = converted["metadata"].get(field).cloned();
        value::set_or_remove(&mut metadata, field, given);
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_and_annotations_may_change() {
        let object = json!({"apiVersion": "a.b/v1", "kind": "X", "metadata": {"name": "n", "uid": "u", "labels": {"a": "1"}}, "host": "h:1"});
        let review = review(&object, "a.b/v2");
        let converted = json!({"apiVersion": "a.b/v2", "kind": "X", "metadata": {"name": "other", "labels": {"a": "2"}}, "host": "h", "port": "1"});
        let answer = |status: &str, object: &Value| json!({"response": {"uid": review["request"]["uid"], "result": {"status": status, "message": "no"}, "convertedObjects": [object]}});
        let read = |answer: Value| super::read(&object, "a.b/v2", &review, &answer);
        let good = read(answer("Success", &converted)).unwrap();
        assert_eq!(
            good["metadata"],
            json!({"name": "n", "uid": "u", "labels": {"a": "2"}})
        );
        assert_eq!(good["port"], "1");
        assert_eq!(read(answer("Failure", &converted)).unwrap_err(), "no");
        assert!(read(answer("Success", &object)).is_err());
    }
}
