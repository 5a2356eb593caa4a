//! `certificates.k8s.io/v1`: requests for certificates, their approval, and what was signed.

use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, Pem};

use crate::registry::{
    At, Column, FieldError, FieldErrors, Kind, Rules, Subresource, columns, value,
};

/// The group.
pub const GROUP: &str = "certificates.k8s.io";
/// The plural name.
pub const PLURAL: &str = "certificatesigningrequests";
/// The conditions that decide a request's fate; each stays, and is true.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
/// The shortest lifetime that may be asked for, in seconds.
const SHORTEST_SECONDS: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "CertificateSigningRequest", PLURAL)
        .short_names(&["csr"])
        .with_status()
        .subresource(Subresource::Approval)
        .selectable(&["spec.signerName"])
        .columns(vec![
            Column::name(),
            Column::age(),
            Column::path("SignerName", "string", "spec.signerName"),
            Column::path("Requestor", "string", "spec.username"),
            Column::computed("RequestedDuration", "string", |request, _| {
                let seconds = value::integer(request, "spec.expirationSeconds");
                seconds.map_or_else(|| "<none>".into(), |s| columns::human_duration(s).into())
            }),
            Column::computed("Condition", "string", |request, _| {
                condition(request).into()
            }),
        ])
        .rules(Requests)
}

/// What became of a request: `Pending`, or `Approved,Issued`.
fn condition(request: &Value) -> String {
    let all = value::list(request, "status.conditions");
    let has = |kind: &str| all.iter().any(|one| value::text(one, "type") == kind);
    let verdict = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    };
    let mut told = vec![verdict];
    if has("Failed") {
        told.push("Failed");
    }
    if !value::text(request, "status.certificate").is_empty() {
        told.push("Issued");
    }
    told.join(",")
}

struct Requests;

impl Rules for Requests {
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        value::set_or_remove(new, "spec", old.get("spec").cloned());
    }

    /// Only the approval writes verdicts.
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let is_verdict = |one: &&Value| matches!(value::text(one, "type"), "Approved" | "Denied");
        let kept = value::list(old, "status.conditions")
            .iter()
            .filter(is_verdict);
        let others = value::list(new, "status.conditions").iter();
        let others = others.filter(|one| !is_verdict(one));
        let all: Vec<Value> = kept.chain(others).cloned().collect();
        let all = (!all.is_empty()).then_some(Value::Array(all));
        value::set_or_remove(new, "status.conditions", all);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        request(&spec.at("request"), errors);
        usages(&spec.at("usages"), errors);
        signer_name(&spec.at("signerName"), errors);
        let seconds = spec.at("expirationSeconds");
        if seconds
            .int()
            .is_some_and(|seconds| seconds < SHORTEST_SECONDS)
        {
            seconds.invalid(
                errors,
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
        conditions(&root.at("status.conditions"), errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        conditions(&root.at("status.conditions"), errors);
        lasting(&root, old, errors);
        let certificate = root.at("status.certificate");
        let before = value::text(old, "status.certificate");
        if certificate.text() == before {
            return;
        }
        if !before.is_empty() {
            certificate.forbidden(
                errors,
                "updates may not change existing certificate content",
            );
        }
        if !is_certificates(certificate.text()) {
            certificate.invalid(
                errors,
                "must contain one or more PEM blocks of type CERTIFICATE",
            );
        }
    }

    fn validate_approval(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        conditions(&root.at("status.conditions"), errors);
        lasting(&root, old, errors);
    }
}

/// A PEM of the API, which carries it in base64.
pub fn pem(base64: &str) -> Option<Vec<Pem>> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD
        .decode(base64)
        .ok()?;
    let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(&text).collect();
    blocks.ok().filter(|blocks| !blocks.is_empty())
}

/// The common name that a request asks for.
pub fn common_name(request: &str) -> Option<String> {
    let blocks = pem(request)?;
    let (_, request) = X509CertificationRequest::from_der(&blocks.first()?.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}

fn request(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.required(errors) {
        return;
    }
    let blocks = pem(at.text()).unwrap_or_default();
    let [block] = blocks.as_slice() else {
        return at.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    };
    if block.label != "CERTIFICATE REQUEST" {
        return at.invalid(errors, "PEM block type must be CERTIFICATE REQUEST");
    }
    if X509CertificationRequest::from_der(&block.contents).is_err() {
        at.invalid(errors, "it is no certificate request (PKCS #10)");
    }
}

fn is_certificates(text: &str) -> bool {
    let blocks = pem(text).unwrap_or_default();
    !blocks.is_empty()
        && blocks
            .iter()
            .all(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok())
}

fn usages(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        return at.missing(errors, "usages must be specified");
    }
    let mut seen: Vec<&str> = Vec::new();
    for usage in at.items() {
        if seen.contains(&usage.text()) {
            usage.duplicate(errors);
        }
        seen.push(usage.text());
        usage.one_of(errors, &USAGES);
    }
}

fn signer_name(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.required(errors) {
        return;
    }
    if at.text() == "kubernetes.io/legacy-unknown" {
        return at.invalid(
            errors,
            "the legacy signerName is not allowed via this API version",
        );
    }
    let parts: Vec<&str> = at.text().split('/').collect();
    let [domain, path] = parts.as_slice() else {
        return at.invalid(
            errors,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    for part in [*domain, *path] {
        if let Err(fault) = peapod_api::names::dns_subdomain(part) {
            at.invalid(errors, fault.to_string());
        }
    }
    if !domain.contains('.') {
        at.invalid(
            errors,
            "should be a domain with at least two segments separated by dots",
        );
    }
}

fn conditions(at: &At<'_>, errors: &mut FieldErrors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in at.items() {
        let (kind, status) = (condition.at("type"), condition.at("status"));
        let name = value::text(condition.value(), "type");
        kind.required(errors);
        if FINAL.contains(&name) && status.text() != "True" {
            errors.push(FieldError::not_supported(status, status.text(), &["True"]));
        } else {
            status.require_one_of(errors, &["True", "False", "Unknown"]);
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(condition, name));
        }
        let opposite = match name {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && seen.contains(&opposite) {
            kind.invalid(
                errors,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        seen.push(name);
    }
}

/// A verdict is for good.
fn lasting(root: &At<'_>, old: &Value, errors: &mut FieldErrors) {
    let place = root.at("status.conditions");
    let has = |list: &[Value], kind: &str| list.iter().any(|one| value::text(one, "type") == kind);
    let (before, after) = (
        value::list(old, "status.conditions"),
        value::list(root.value(), "status.conditions"),
    );
    for kind in FINAL
        .iter()
        .filter(|kind| has(before, kind) && !has(after, kind))
    {
        place.forbidden(
            errors,
            format!("updates may not remove a condition of type {kind:?}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use serde_json::json;

    fn csr() -> Value {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::default();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"spec": {
            "request": base64::engine::general_purpose::STANDARD.encode(pem),
            "signerName": "example.com/x",
            "usages": ["client auth"],
        }})
    }

    fn told(errors: &FieldErrors) -> String {
        match errors.is_empty() {
            true => String::new(),
            false => errors.to_string(),
        }
    }

    fn faults(change: impl FnOnce(&mut Value)) -> String {
        let mut request = csr();
        change(&mut request);
        let mut errors = FieldErrors::new();
        Requests.validate(&request, &mut errors);
        told(&errors)
    }

    #[test]
    fn new_requests() {
        assert_eq!(faults(|_| ()), "");
        let spec = |field: &'static str, value: Value| {
            faults(move |request| request["spec"][field] = value)
        };
        assert!(
            spec("request", json!("eA==")).contains("PEM block type must be CERTIFICATE REQUEST")
        );
        assert!(spec("signerName", json!("x")).contains("fully qualified domain and path"));
        assert!(spec("signerName", json!("local/x")).contains("at least two segments"));
        assert!(spec("usages", json!([])).contains("usages must be specified"));
        assert!(spec("usages", json!(["fly"])).contains("Unsupported value: \"fly\""));
        assert!(spec("expirationSeconds", json!(599)).contains("less than 600 seconds"));
    }

    #[test]
    fn verdicts_are_for_good() {
        let with = |kinds: &[&str]| {
            let all = kinds
                .iter()
                .map(|kind| json!({"type": kind, "status": "True"}));
            json!({"status": {"conditions": all.collect::<Vec<_>>()}})
        };
        let told = |new: &[&str], old: &[&str]| {
            let mut errors = FieldErrors::new();
            Requests.validate_approval(&with(new), &with(old), &mut errors);
            super::tests::told(&errors)
        };
        assert_eq!(told(&["Approved"], &[]), "");
        assert_eq!(told(&["Approved", "Failed"], &["Approved"]), "");
        assert!(told(&["Denied", "Approved"], &[]).contains("mutually exclusive"));
        assert!(told(&[], &["Denied"]).contains("may not remove a condition of type \"Denied\""));
        let mut new = with(&["Denied"]);
        new["status"]["conditions"][0]["status"] = "False".into();
        let mut errors = FieldErrors::new();
        Requests.validate_approval(&new, &json!({}), &mut errors);
        assert!(
            errors.to_string().contains("supported values: \"True\""),
            "{errors}"
        );
    }

    #[test]
    fn what_a_table_says() {
        for (status, expected) in [
            (json!({}), "Pending"),
            (json!({"conditions": [{"type": "Approved"}]}), "Approved"),
            (
                json!({"conditions": [{"type": "Approved"}], "certificate": "x"}),
                "Approved,Issued",
            ),
            (json!({"conditions": [{"type": "Denied"}]}), "Denied"),
        ] {
            assert_eq!(condition(&json!({"status": status})), expected);
        }
    }
}
