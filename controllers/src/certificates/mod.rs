//! Certificate requests: nodes' own are approved, approved ones are signed, old ones are deleted.
//!
//! Three loops of upstream in one pass over a request: `csrapproving`, `csrsigning` and
//! `csrcleaner`. The cores are [`request::Asked`] (what is asked for, and whether a signer signs
//! such), [`sign`] and [`core`].

pub mod core;
pub mod request;
pub mod sign;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::{Patch, PostParams};
use serde_json::{Value, json};

use self::core::{Next, Verdict};
use crate::common::Key;
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Error, Loop, Outcome, Result, Tasks, write};
use request::Asked;
use sign::Authority;

/// Addresses of nodes change: a request that does not fit may fit later.
const SERVING_AGAIN: Duration = Duration::from_secs(5);

struct Certificates {
    ctx: Context,
    authority: Option<Arc<Authority>>,
}

/// Wires the loop. Without the key of the CA requests are approved and deleted, not signed.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let (certificate, key) = (&ctx.config.root_ca_pem, &ctx.config.signing_key_pem);
    let authority = (!key.is_empty()).then(|| Authority::new(certificate, key));
    let authority = match authority {
        Some(Ok(authority)) => Some(Arc::new(authority)),
        Some(Err(error)) => {
            tracing::error!(%error, "certificate requests are not signed");
            None
        }
        None => None,
    };
    Loop::new(ctx, "certificate")
        .on_self(&ctx.informers.certificate_requests)
        .run(
            tasks,
            Certificates {
                ctx: ctx.clone(),
                authority,
            },
        );
}

impl Controller for Certificates {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(request) = self.ctx.informers.certificate_requests.get(key) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        match core::next(&request, now) {
            Next::Delete => {
                write::delete::<CertificateSigningRequest>(&self.ctx, &request.metadata).await?;
                return Ok(Outcome::Done);
            }
            Next::Approve if request.spec.signer_name == core::NODE_SERVING => {
                if !self.approve_serving(key, &request).await? {
                    return Ok(Outcome::After(SERVING_AGAIN));
                }
            }
            Next::Approve => self.approve(key, &request).await?,
            Next::Sign => self.sign(key, &request, now).await?,
            Next::Nothing => {}
        }
        Ok(Outcome::maybe(core::due(&request, now)))
    }
}

impl Certificates {
    /// Approves a node's request for a client certificate, if who asks may have it.
    async fn approve(&self, key: &Key, request: &CertificateSigningRequest) -> Result<()> {
        let Ok(asked) = Asked::of(&request.spec.request.0) else {
            return Ok(());
        };
        let username = request.spec.username.as_deref().unwrap_or_default();
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        if asked.fault_as_node_client(usages).is_some() {
            return Ok(());
        }
        let renews = username == asked.name;
        for verdict in core::approvals(renews) {
            if self.may(request, verdict.permission).await? {
                return self.write_approval(key, request, verdict).await;
            }
        }
        Ok(())
    }

    /// Approves a node's request for a serving certificate, if it is for the node's own name and
    /// addresses; whether it did. Its Node may not be known yet.
    async fn approve_serving(
        &self,
        key: &Key,
        request: &CertificateSigningRequest,
    ) -> Result<bool> {
        let Ok(asked) = Asked::of(&request.spec.request.0) else {
            return Ok(false);
        };
        let username = request.spec.username.as_deref().unwrap_or_default();
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        let name = username.strip_prefix("system:node:").unwrap_or_default();
        let node = self.ctx.informers.nodes.get(&Key::cluster(name));
        let may = core::may_serve(&asked, username, usages, node.as_deref());
        if may {
            self.write_approval(key, request, core::serving()).await?;
        }
        Ok(may)
    }

    /// Whether who asks may have a certificate of a kind.
    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.ctx.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await;
        let reviewed = reviewed.doing(|| "review who asks for a certificate".to_owned())?;
        Ok(reviewed.status.is_some_and(|status| status.allowed))
    }

    async fn write_approval(
        &self,
        key: &Key,
        request: &CertificateSigningRequest,
        verdict: &Verdict,
    ) -> Result<()> {
        let approved = json!({
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": verdict.message,
        });
        self.write(key, request, "approval", approved, None).await
    }

    async fn sign(
        &self,
        key: &Key,
        request: &CertificateSigningRequest,
        now: Timestamp,
    ) -> Result<()> {
        let Some(authority) = &self.authority else {
            return Ok(());
        };
        let outcome = core::check_for_signer(request)
            .and_then(|()| sign::sign(authority, &request.spec, now).map_err(|e| e.to_string()));
        match outcome {
            Ok(pem) => {
                let certificate = ByteString(pem.into_bytes());
                self.write(key, request, "status", Value::Null, Some(certificate))
                    .await
            }
            Err(why) => {
                let failed = json!({
                    "type": "Failed",
                    "status": "True",
                    "reason": "SignerValidationFailure",
                    "message": why,
                });
                self.write(key, request, "status", failed, None).await
            }
        }
    }

    /// Adds a condition, a certificate, or both, if the request is still as it was.
    async fn write(
        &self,
        key: &Key,
        request: &CertificateSigningRequest,
        subresource: &str,
        condition: Value,
        certificate: Option<ByteString>,
    ) -> Result<()> {
        let status = request.status.clone().unwrap_or_default();
        let conditions = serde_json::to_value(&status.conditions).unwrap_or_default();
        let mut conditions = conditions.as_array().cloned().unwrap_or_default();
        conditions.extend((!condition.is_null()).then_some(condition));
        let mut status = json!({"conditions": conditions});
        if let Some(certificate) = certificate {
            status["certificate"] = serde_json::to_value(certificate).unwrap_or_default();
        }
        let version = &request.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        let api: Api<CertificateSigningRequest> = Api::all(self.ctx.client.clone());
        let written = api
            .patch_subresource(
                subresource,
                &key.name,
                &write::patch_params(),
                &Patch::Merge(patch),
            )
            .await;
        written
            .unless_gone(|| format!("write the {subresource} of the certificate request {key}"))?;
        Ok(())
    }
}

impl From<sign::SignError> for Error {
    fn from(error: sign::SignError) -> Self {
        Self::Config(error.to_string())
    }
}
