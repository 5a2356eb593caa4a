//! Certificate requests: who asks is written down by the server; who approves or signs needs the
//! permission for that signer; and nobody becomes `system:masters` by a request.
//!
//! Upstream's `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`.

use async_trait::async_trait;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::api::Api;
use crate::auth::action::{Access, Action};
use crate::auth::user::{MASTERS, User};
use crate::registry::kinds::certificates::{GROUP, PLURAL, pem};
use crate::registry::{object_meta, value};
use crate::status::Result;

/// The signer of certificates for clients of the API.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

pub struct Certificates;

#[async_trait]
impl Plugin for Certificates {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, object: &mut Value) -> Result<()> {
        if !is_request(write) {
            return Ok(());
        }
        if write.creates(GROUP, PLURAL) {
            sign_in(write.user, object);
        }
        stamp(object, write.old, &object_meta::time(api.now()));
        Ok(())
    }

    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        if !is_request(write) {
            return Ok(());
        }
        let signer = value::text(object, "spec.signerName");
        let (verb, doing) = match (write.subresource, write.operation) {
            ("", Operation::Create) if signer == CLIENT && asks_for_masters(object) => {
                return Err(write.forbid(format!(
                    "use of {CLIENT} signer with {MASTERS} group is not allowed"
                )));
            }
            ("approval", _) => ("approve", "approve"),
            ("status", _) if signs(object, write.old) => ("sign", "sign"),
            _ => return Ok(()),
        };
        match may(api, write.user, verb, signer) {
            true => Ok(()),
            false => Err(write.forbid(format!(
                "user not permitted to {doing} requests with signerName {signer:?}"
            ))),
        }
    }
}

fn is_request(write: &Attributes<'_>) -> bool {
    let kind = &write.resource.kind;
    kind.group == GROUP && kind.plural == PLURAL
}

/// Writes down who asks, whatever the request says.
fn sign_in(user: &User, request: &mut Value) {
    let told = user.to_value();
    value::set(request, "spec.username", user.name());
    value::set(request, "spec.groups", user.groups().to_vec());
    let uid = told.get("uid").cloned();
    value::set_or_remove(request, "spec.uid", uid);
    value::set_or_remove(request, "spec.extra", told.get("extra").cloned());
}

/// Gives conditions that are new, or that changed, the time.
fn stamp(request: &mut Value, old: Option<&Value>, now: &str) {
    let before = old.map_or(&[][..], |old| value::list(old, "status.conditions"));
    let Some(Value::Array(all)) = value::at_mut(request, "status.conditions") else {
        return;
    };
    for condition in all {
        let kind = value::text(condition, "type").to_owned();
        let known = before.iter().find(|one| value::text(one, "type") == kind);
        let same = known.is_some_and(|one| one["status"] == condition["status"]);
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            let kept = known.filter(|_| same).map(|one| one[field].clone());
            if condition[field].is_null() {
                condition[field] = kept.filter(|at| !at.is_null()).unwrap_or(json!(now));
            }
        }
    }
}

/// Whether a write of the status gives the certificate, or says why there will be none.
fn signs(new: &Value, old: Option<&Value>) -> bool {
    let failed = |request: &Value| {
        let all = value::list(request, "status.conditions").iter();
        all.filter(|one| value::text(one, "type") == "Failed")
            .count()
    };
    let empty = Value::Null;
    let old = old.unwrap_or(&empty);
    let certificate = |request| value::text(request, "status.certificate");
    certificate(new) != certificate(old) || failed(new) != failed(old)
}

fn asks_for_masters(request: &Value) -> bool {
    let blocks = pem(value::text(request, "spec.request")).unwrap_or_default();
    blocks.iter().any(|block| {
        let parsed = X509CertificationRequest::from_der(&block.contents);
        parsed.is_ok_and(|(_, parsed)| {
            let subject = &parsed.certification_request_info.subject;
            let mut groups = subject.iter_organization();
            groups.any(|group| group.as_str() == Ok(MASTERS))
        })
    })
}

/// Whether someone may approve or sign for a signer, or for all of its domain.
fn may(api: &Api, user: &User, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")]
        .iter()
        .any(|name| {
            let action = Action::Resource(Access {
                verb,
                group: GROUP,
                version: "*",
                resource: "signers",
                name,
                ..Access::default()
            });
            api.authorizer.decide(user, &action).is_allowed()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_keep_their_times_while_they_are_the_same() {
        let old = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True", "lastUpdateTime": "u", "lastTransitionTime": "t"},
        ]}});
        let mut new = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True"},
            {"type": "Failed", "status": "True", "lastUpdateTime": "own"},
        ]}});
        stamp(&mut new, Some(&old), "now");
        assert_eq!(
            new["status"]["conditions"],
            json!([
                {"type": "Approved", "status": "True", "lastUpdateTime": "u", "lastTransitionTime": "t"},
                {"type": "Failed", "status": "True", "lastUpdateTime": "own", "lastTransitionTime": "now"},
            ])
        );
        assert!(signs(&new, Some(&old)));
        assert!(!signs(&old, Some(&old)));
    }
}
