//! Audit records: `Event` of `audit.k8s.io/v1`.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::policy::{Level, Stage};
use crate::auth::action::Access;
use crate::auth::user::User;
use crate::registry::value;

/// What is known of a request when it comes in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its number, which the response shows as `Audit-Id`.
    pub id: String,
    /// When it came.
    pub at: Timestamp,
    /// Path and query.
    pub uri: String,
    /// The verb, or for a path the method.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// As whom.
    pub acting_as: Option<User>,
    /// From where; none for clients in this process.
    pub from: Option<IpAddr>,
    /// By what.
    pub user_agent: String,
    /// For what: a resource's reference.
    pub object: Option<Value>,
}

/// A record.
pub struct Event(Value);

/// The reference of what a request is for.
pub fn reference(access: &Access<'_>) -> Value {
    let mut object = json!({});
    for (key, text) in [
        ("resource", access.resource),
        ("namespace", access.namespace),
        ("name", access.name),
        ("apiGroup", access.group),
        ("apiVersion", access.version),
        ("subresource", access.subresource),
    ] {
        if !text.is_empty() {
            object[key] = text.into();
        }
    }
    object
}

// === impl Event ===

impl Event {
    /// The record of a stage.
    pub fn new(asked: &Asked, level: Level, stage: Stage) -> Self {
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": level,
            "auditID": asked.id,
            "stage": stage,
            "requestURI": asked.uri,
            "verb": asked.verb,
            "user": asked.user.to_value(),
            "requestReceivedTimestamp": micros(asked.at),
        });
        if let Some(other) = &asked.acting_as {
            event["impersonatedUser"] = other.to_value();
        }
        if let Some(address) = asked.from {
            event["sourceIPs"] = json!([address]);
        }
        if !asked.user_agent.is_empty() {
            event["userAgent"] = asked.user_agent.as_str().into();
        }
        if let Some(object) = &asked.object {
            event["objectRef"] = object.clone();
        }
        Self(event)
    }

    /// Notes how authorisation decided: `allow` or `forbid`, and why.
    pub fn decided(&mut self, decision: &str, reason: &str) {
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// Notes what something on the request's way says.
    pub fn annotate(&mut self, key: &str, text: &str) {
        self.0["annotations"][key] = text.into();
    }

    /// Notes the code of the answer, and the status when it is a refusal.
    pub fn answered(&mut self, code: u16, refusal: Option<Value>) {
        let mut status = json!({"metadata": {}, "code": code});
        if let Some(refusal) = refusal {
            for field in ["status", "message", "reason", "details"] {
                if let Some(value) = refusal.get(field) {
                    status[field] = value.clone();
                }
            }
        }
        self.0["responseStatus"] = status;
    }

    /// Notes the request's body, if it is JSON.
    pub fn request(&mut self, body: &[u8]) {
        self.body("requestObject", body);
    }

    /// Notes the response's body, if it is JSON.
    pub fn response(&mut self, body: &[u8]) {
        self.body("responseObject", body);
    }

    fn body(&mut self, field: &str, bytes: &[u8]) {
        if let Ok(object @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(bytes) {
            self.0[field] = object;
        }
    }

    /// Takes the record of fields' owners out of the bodies.
    pub fn omit_managed_fields(&mut self) {
        for field in ["requestObject", "responseObject"] {
            let object = &mut self.0[field];
            value::remove(object, "metadata.managedFields");
            for (list, path) in [
                ("items", "metadata.managedFields"),
                ("rows", "object.metadata.managedFields"),
            ] {
                let items = object.get_mut(list).and_then(Value::as_array_mut);
                for item in items.into_iter().flatten() {
                    value::remove(item, path);
                }
            }
            if object.is_null() {
                value::remove(&mut self.0, field);
            }
        }
    }

    /// The line of the log.
    pub fn to_line(mut self, now: Timestamp) -> Vec<u8> {
        self.0["stageTimestamp"] = micros(now).into();
        let mut line = self.0.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// A time as `MicroTime` shows it.
fn micros(at: Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let at: Timestamp = "2026-01-01T00:00:00.25Z".parse().unwrap();
        let access = Access {
            verb: "create",
            version: "v1",
            resource: "pods",
            namespace: "default",
            name: "p",
            ..Access::default()
        };
        let asked = Asked {
            id: "1".into(),
            at,
            uri: "/api/v1/namespaces/default/pods".into(),
            verb: "create".into(),
            user: User::authenticated("jane", ["team"]),
            acting_as: None,
            from: Some([10, 0, 0, 1].into()),
            user_agent: "kubectl".into(),
            object: Some(reference(&access)),
        };
        let mut event = Event::new(&asked, Level::Request, Stage::ResponseComplete);
        event.request(br#"{"metadata":{"name":"p","managedFields":[]}}"#);
        event.response(b"no JSON");
        event.omit_managed_fields();
        event.answered(201, None);
        event.decided("allow", "because");
        let line = event.to_line(at);
        assert_eq!(line.last(), Some(&b'\n'));
        let read: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            read,
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "1",
                "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/default/pods",
                "verb": "create",
                "user": {"username": "jane", "groups": ["team", "system:authenticated"]},
                "sourceIPs": ["10.0.0.1"], "userAgent": "kubectl",
                "objectRef": {"resource": "pods", "namespace": "default", "name": "p", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 201},
                "requestObject": {"metadata": {"name": "p"}},
                "requestReceivedTimestamp": "2026-01-01T00:00:00.250000Z",
                "stageTimestamp": "2026-01-01T00:00:00.250000Z",
                "annotations": {
                    "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "because",
                },
            })
        );
    }
}
