//! The objects that are sent: `meta/v1 Status`.

use serde_json::{Map, Value, json};

use super::{Details, GroupResource, Status};
use crate::registry::value;

// === impl Status ===

impl Status {
    /// The object that is sent.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if self.reason.is_empty() {
            value::remove(&mut status, "reason");
        }
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                status["metadata"]["continue"] = details.continue_token.as_str().into();
            }
            status["details"] = details.to_value();
        }
        status
    }
}

// === impl Details ===

impl Details {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            put(&mut out, key, value);
        }
        if !self.causes.is_empty() {
            out.insert("causes".into(), self.causes.iter().map(cause).collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

fn cause((reason, message, field): &(String, String, String)) -> Value {
    let mut out = Map::new();
    put(&mut out, "reason", reason);
    put(&mut out, "message", message);
    put(&mut out, "field", field);
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.to_owned(), value.into());
    }
}

/// The `Success` status that a deletion without a body to show is answered with.
pub fn success(resource: GroupResource<'_>, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.resource.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_value(),
    })
}
