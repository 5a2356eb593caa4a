//! Requests on resources: the kind is found, the body read within its bounds, and the work handed
//! to who does it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use http_body::Body as HttpBody;

use super::Front;
use crate::admission::{Attributes, Operation};
use crate::aggregation;
use crate::answer::Answer;
use crate::auth::user::User;
use crate::body;
use crate::deadline;
use crate::metrics;
use crate::registry::{Resource, Subresource};
use crate::rest;
use crate::rest::call::{Call, Reply};
use crate::rest::negotiate::{Accept, Offer, is_for_people};
use crate::rest::query::Query;
use crate::rest::target::{ResourceTarget, Verb};
use crate::status::{Result, Status};
use crate::trail::Trail;

/// A request on a resource that is allowed.
pub struct Asked {
    pub user: User,
    pub target: ResourceTarget,
    pub verb: Verb,
    pub query: Query,
}

// === impl Front ===

impl Front {
    pub(super) async fn resource<B>(
        &self,
        asked: Asked,
        mut parts: Parts,
        body: B,
        trail: &mut Trail,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display,
    {
        let (group, version) = (&asked.target.group, &asked.target.version);
        if let Some(remote) = self.api.aggregation.find(group, version) {
            let body = body::read(body).await?;
            trail.read(&body);
            let answer = aggregation::pass(&self.api, &remote, &asked.user, parts, body).await;
            return answer.map(Answer::Raw);
        }
        let (resource, subresource) = self.find(&asked.target)?;
        let mut accept = Accept::of(&parts.headers, Offer::of(&resource))?;
        accept.pretty |= is_for_people(asked.query.get("pretty"), &parts.headers);
        let mut call = Call {
            accept,
            user: asked.user,
            target: asked.target,
            verb: asked.verb,
            resource,
            subresource,
            query: asked.query,
            headers: std::mem::take(&mut parts.headers),
            body: Bytes::new(),
        };
        if is_stream(&call) {
            self.admit_connection(&call).await?;
            parts.headers = call.headers.clone();
            let answer = crate::proxy::stream(&self.api, &call, parts).await;
            return answer.map(Answer::Raw);
        }
        if matches!(call.subresource, Some(Subresource::Proxy(_))) {
            parts.headers = call.headers.clone();
            let body = body::read(body).await?;
            let answer = crate::proxy::through(&self.api, &call, parts, body).await;
            return answer.map(Answer::Raw);
        }
        let started = Instant::now();
        let long = call.verb == Verb::Watch;
        // The start of a watch has a bound too, but not one for the client to choose: its
        // `timeout` is how long the watch is to last.
        let wish = if long { "" } else { call.query.get("timeout") };
        let time = deadline::of(wish, self.api.config.request_timeout)?;
        if parts.method != Method::GET && parts.method != Method::HEAD {
            let reading = tokio::time::timeout(time, body::read(body)).await;
            call.body = reading.unwrap_or_else(|_| Err(late()))?;
            trail.read(&call.body);
        }
        let left = time.saturating_sub(started.elapsed());
        self.work(&call, long, left).await.map(Answer::Reply)
    }

    /// Asks admission whether someone may speak with an object.
    async fn admit_connection(&self, call: &Call) -> Result<()> {
        let spoken = call.subresource.as_ref().and_then(Subresource::kind);
        // Logs are read, not spoken with.
        let Some((_, version, kind)) = spoken else {
            return Ok(());
        };
        let mut options = serde_json::json!({"kind": kind, "apiVersion": version});
        for (name, value) in call.query.pairs() {
            options[name] = match (name, value) {
                ("command", _) => call.query.all("command").collect::<Vec<_>>().into(),
                ("stdin" | "stdout" | "stderr" | "tty", value) => {
                    (value != "false" && value != "0").into()
                }
                (_, value) => value.into(),
            };
        }
        let attributes = Attributes {
            operation: Operation::Connect,
            resource: &call.resource,
            namespace: &call.target.namespace,
            name: &call.target.name,
            subresource: &call.target.subresource,
            user: &call.user,
            old: None,
            dry_run: false,
        };
        self.api
            .admission
            .validate(&self.api, &attributes, &options)
            .await
    }

    async fn work(&self, call: &Call, long: bool, time: Duration) -> Result<Reply> {
        let started = Instant::now();
        let mutating = !matches!(call.verb, Verb::Get | Verb::List | Verb::Watch);
        let _counted = (!long).then(|| self.api.metrics.in_flight(mutating));
        let answering = tokio::time::timeout(time, rest::serve(&self.api, call));
        let outcome = answering.await.unwrap_or_else(|_| Err(late()));
        let code = match &outcome {
            Ok(reply) => reply.code,
            Err(status) => status.code,
        };
        let request = metrics::Request {
            verb: call.verb.metric(),
            group: call.target.group.clone(),
            version: call.target.version.clone(),
            resource: call.target.resource.clone(),
            subresource: call.target.subresource.clone(),
        };
        let seconds = (!long).then(|| started.elapsed().as_secs_f64());
        self.api.metrics.answered(request, code.as_u16(), seconds);
        outcome
    }

    fn find(&self, target: &ResourceTarget) -> Result<(Arc<Resource>, Option<Subresource>)> {
        let registry = &self.api.registry;
        let resource = registry
            .find(&target.group, &target.version, &target.resource)
            .ok_or_else(Status::no_such_path)?;
        if !resource.kind.is_namespaced() && !target.namespace.is_empty() {
            return Err(Status::no_such_path());
        }
        if resource.kind.is_namespaced() && target.namespace.is_empty() && !target.name.is_empty() {
            return Err(Status::no_such_path());
        }
        let subresource = match target.subresource.as_str() {
            "" => None,
            name => Some(
                resource
                    .kind
                    .find_subresource(name)
                    .ok_or_else(Status::no_such_path)?
                    .clone(),
            ),
        };
        Ok((resource.clone(), subresource))
    }
}

fn late() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

fn is_stream(call: &Call) -> bool {
    matches!(
        call.subresource,
        Some(Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward)
    )
}
