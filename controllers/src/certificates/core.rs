//! What is to be done about a certificate request. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::request::Asked;

/// The signer of certificates for clients of the API.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of the nodes' client certificates.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of the nodes' serving certificates.
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";

const HOUR_S: u64 = 3600;
/// How long a request that is decided stays.
const DECIDED: Duration = Duration::from_secs(HOUR_S);
/// How long a request waits for a decision, or for its signer.
const PENDING: Duration = Duration::from_secs(24 * HOUR_S);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing now.
    Nothing,
    /// See whether it may be approved.
    Approve,
    /// Sign it.
    Sign,
    /// Delete it: it is old.
    Delete,
}

/// A reason for which a node's request is approved.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The subresource of requests that who asks must be permitted to create.
    pub permission: &'static str,
    /// For the condition.
    pub message: &'static str,
}

const RENEWAL: Verdict = Verdict {
    permission: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NEW: Verdict = Verdict {
    permission: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// The reasons to try, in their order: a node that `renews` its own certificate has one more.
pub fn approvals(renews: bool) -> &'static [Verdict] {
    match renews {
        true => &[RENEWAL, NEW],
        false => &[NEW],
    }
}

const SERVING: Verdict = Verdict {
    permission: "",
    message: "Auto approving kubelet serving certificate of a node for its own name and addresses.",
};

/// Whether a node may have a serving certificate: it asks itself, by its own name, for nothing
/// but its name and the addresses that its Node has.
pub fn may_serve(asked: &Asked, username: &str, usages: &[String], node: Option<&Node>) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let own = |name: &String| {
        let mut all = addresses.unwrap_or_default().iter();
        all.any(|one| one.address == *name)
    };
    asked.fault_as_node_serving(usages).is_none()
        && asked.name == username
        && asked.names.iter().all(own)
}

/// For the condition of an approved serving certificate.
pub fn serving() -> &'static Verdict {
    &SERVING
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == kind))
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    let certificate = status.and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

/// Whether this is the business of one of the signers here.
fn is_ours(request: &CertificateSigningRequest) -> bool {
    [CLIENT, NODE_CLIENT, NODE_SERVING].contains(&request.spec.signer_name.as_str())
}

/// Decides.
pub fn next(request: &CertificateSigningRequest, now: Timestamp) -> Next {
    if due(request, now).is_some_and(|left| left.is_zero()) {
        return Next::Delete;
    }
    let (approved, denied, failed) = (
        has(request, "Approved"),
        has(request, "Denied"),
        has(request, "Failed"),
    );
    if denied || failed || is_issued(request) || !is_ours(request) {
        return Next::Nothing;
    }
    match (approved, request.spec.signer_name.as_str()) {
        (true, _) => Next::Sign,
        (false, NODE_CLIENT | NODE_SERVING) => Next::Approve,
        (false, _) => Next::Nothing,
    }
}

/// How long a request still stays; `None` when its age is not known.
pub fn due(request: &CertificateSigningRequest, now: Timestamp) -> Option<Duration> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let conditions = request
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let decided = conditions
        .filter(|one| matches!(one.type_.as_str(), "Approved" | "Denied" | "Failed"))
        .filter_map(|one| one.last_update_time.as_ref().map(|time| time.0))
        .max();
    let unsigned = has(request, "Approved") && !is_issued(request) && !has(request, "Failed");
    let until = match decided {
        Some(at) if !unsigned => at + DECIDED,
        _ => created + PENDING,
    };
    let left = until.as_second() - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// Checks what an approved request asks for against what its signer signs.
pub fn check_for_signer(request: &CertificateSigningRequest) -> Result<(), String> {
    let asked = Asked::of(&request.spec.request.0)?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let fault = match request.spec.signer_name.as_str() {
        NODE_CLIENT => asked.fault_as_node_client(usages),
        NODE_SERVING => asked.fault_as_node_serving(usages),
        _ => asked.fault_as_client(usages),
    };
    fault.map_or(Ok(()), |why| Err(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn request(signer: &str, age: &str, status: serde_json::Value) -> CertificateSigningRequest {
        let request = json!({
            "metadata": {"name": "r", "creationTimestamp": age},
            "spec": {"request": "", "signerName": signer},
            "status": status,
        });
        serde_json::from_value(request).unwrap()
    }

    fn verdict(kind: &str, at: &str) -> serde_json::Value {
        json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at}]})
    }

    #[test]
    fn decides() {
        let soon = "2026-01-01T23:50:00Z";
        let old = "2025-12-31T23:59:59Z";
        let mut issued = verdict("Approved", soon);
        issued["certificate"] = "eA==".into();
        let mut long_issued = verdict("Approved", "2026-01-01T22:00:00Z");
        long_issued["certificate"] = "eA==".into();
        for (signer, age, status, expected) in [
            (NODE_CLIENT, soon, json!({}), Next::Approve),
            (CLIENT, soon, json!({}), Next::Nothing),
            (NODE_SERVING, soon, json!({}), Next::Approve),
            (CLIENT, soon, verdict("Approved", soon), Next::Sign),
            (NODE_SERVING, soon, verdict("Approved", soon), Next::Sign),
            (
                "example.com/x",
                soon,
                verdict("Approved", soon),
                Next::Nothing,
            ),
            (CLIENT, soon, verdict("Denied", soon), Next::Nothing),
            (CLIENT, soon, verdict("Failed", soon), Next::Nothing),
            (CLIENT, soon, issued, Next::Nothing),
            (CLIENT, old, json!({}), Next::Delete),
            (CLIENT, soon, long_issued, Next::Delete),
            (
                CLIENT,
                soon,
                verdict("Denied", "2026-01-01T22:59:59Z"),
                Next::Delete,
            ),
            (
                "example.com/x",
                old,
                verdict("Approved", soon),
                Next::Delete,
            ),
        ] {
            let request = request(signer, age, status.clone());
            assert_eq!(
                next(&request, NOW.parse().unwrap()),
                expected,
                "{signer} {status}"
            );
        }
    }

    #[test]
    fn a_node_may_serve_at_its_own_addresses_only() {
        let node = |addresses: &[&str]| -> Node {
            let addresses: Vec<_> = addresses
                .iter()
                .map(|address| json!({"type": "InternalIP", "address": address}))
                .collect();
            serde_json::from_value(json!({"status": {"addresses": addresses}})).unwrap()
        };
        let asked = Asked {
            name: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            servers: 2,
            names: vec!["n1".to_owned(), "10.0.0.1".to_owned()],
            others: 0,
        };
        let usages = ["digital signature", "server auth"].map(str::to_owned);
        let own = node(&["10.0.0.1", "n1"]);
        let may = |user: &str, node: Option<&Node>| may_serve(&asked, user, &usages, node);
        assert!(may("system:node:n1", Some(&own)));
        assert!(!may("system:node:n2", Some(&own)));
        assert!(!may("system:node:n1", Some(&node(&["10.0.0.2", "n1"]))));
        assert!(!may("system:node:n1", None));
        assert!(!may_serve(
            &asked,
            "system:node:n1",
            &usages[..1],
            Some(&own)
        ));
    }

    #[test]
    fn is_deleted_in_time() {
        let now = NOW.parse().unwrap();
        let fresh = request(CLIENT, "2026-01-01T23:00:00Z", json!({}));
        assert_eq!(due(&fresh, now), Some(Duration::from_secs(23 * HOUR_S)));
        let denied = request(
            CLIENT,
            "2026-01-01T23:00:00Z",
            verdict("Denied", "2026-01-01T23:30:00Z"),
        );
        assert_eq!(due(&denied, now), Some(Duration::from_secs(HOUR_S / 2)));
    }
}
