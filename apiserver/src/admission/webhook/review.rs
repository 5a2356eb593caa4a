//! The conversation with a webhook: the review that it is sent, and what it answers. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::admission::request::Asked;
use crate::registry::value;

/// What a webhook answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Whether the write may be.
    pub allowed: bool,
    /// Why not, as a `Status`.
    pub status: Value,
    /// The operations of a JSON patch.
    pub patch: Option<Value>,
    /// What the client is warned of.
    pub warnings: Vec<String>,
    /// What the audit event is to say.
    pub annotations: BTreeMap<String, String>,
}

/// The review of a write, in the first version that the webhook speaks of those we do.
pub fn of(asked: &Asked, hook: &Value) -> Value {
    let versions = value::list(hook, "admissionReviewVersions")
        .iter()
        .filter_map(Value::as_str);
    let version = versions
        .into_iter()
        .find(|version| matches!(*version, "v1" | "v1beta1"));
    let mut request = asked.request.clone();
    request["object"] = asked.object.clone();
    request["oldObject"] = asked.old.clone();
    json!({
        "kind": "AdmissionReview",
        "apiVersion": format!("admission.k8s.io/{}", version.unwrap_or("v1")),
        "request": request,
    })
}

/// Reads what is answered to a review.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(review: &Value, answer: &Value, mutating: bool) -> Result<Answer, String> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    for field in ["kind", "apiVersion"] {
        if answer[field] != review[field] {
            return Err(format!(
                "expected webhook response of {}, got {}",
                review[field], answer[field]
            ));
        }
    }
    if response["uid"] != review["request"]["uid"] {
        return Err(format!(
            "expected response.uid={}, got {}",
            review["request"]["uid"], response["uid"]
        ));
    }
    let patch = value::text(response, "patch");
    let kind = value::text(response, "patchType");
    let patch = match (patch, kind) {
        ("", "") => None,
        ("", _) => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        (_, "JSONPatch") if mutating => Some(patch_of(patch)?),
        (_, "JSONPatch") => return Err("validating webhooks may not return a patch".to_owned()),
        (_, "") => {
            return Err("webhook returned response.patch but not response.patchType".to_owned());
        }
        (_, other) => {
            return Err(format!(
                "webhook returned invalid response.patchType of {other:?}"
            ));
        }
    };
    let warnings = value::list(response, "warnings").iter();
    let annotations = value::map(response, "auditAnnotations")
        .into_iter()
        .flatten();
    Ok(Answer {
        allowed: value::truth(response, "allowed"),
        status: response.get("status").cloned().unwrap_or_default(),
        patch,
        warnings: warnings
            .filter_map(|one| Some(one.as_str()?.to_owned()))
            .collect(),
        annotations: annotations
            .filter_map(|(key, text)| Some((key.clone(), text.as_str()?.to_owned())))
            .collect(),
    })
}

fn patch_of(text: &str) -> Result<Value, String> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|fault| format!("webhook returned an invalid response.patch: {fault}"))?;
    serde_json::from_slice(&bytes)
        .map_err(|fault| format!("webhook returned an invalid response.patch: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            request: json!({"uid": "u"}),
            object: json!({"a": 1}),
            old: Value::Null,
        }
    }

    #[test]
    fn answers_are_read() {
        let review = of(&asked(), &json!({"admissionReviewVersions": ["v2", "v1"]}));
        assert_eq!(review["request"]["object"], json!({"a": 1}));
        let with = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/b","value":2}]"#);
        let good = with(
            json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["w"], "auditAnnotations": {"k": "v"}}),
        );
        let answer = read(&review, &good, true).unwrap();
        assert!(answer.allowed && answer.patch.is_some());
        assert_eq!(answer.warnings, ["w"]);
        assert_eq!(answer.annotations["k"], "v");
        for (bad, told) in [
            (good.clone(), "validating webhooks may not return a patch"),
            (
                with(json!({"uid": "x", "allowed": true})),
                r#"expected response.uid="u", got "x""#,
            ),
            (json!({}), "webhook response was absent"),
        ] {
            assert_eq!(read(&review, &bad, false).unwrap_err(), told);
        }
    }
}
