//! The front door: one service for sockets and for clients in the process. It finds out who
//! asks and what for, holds the bounds (flow control, time, size), and writes the reply.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::admission::{Attributes, Operation};
use crate::aggregation;
use crate::answer::{Answer, reply_response, status_response, warn};
use crate::api::Api;
use crate::auth::action::{Access, Action};
use crate::auth::authorizer::Decision;
use crate::auth::bearer;
use crate::auth::impersonation::Wish;
use crate::auth::user::User;
use crate::body::{self, Body};
use crate::deadline;
use crate::flow::{Admitted, Route, width};
use crate::metrics;
use crate::paths;
use crate::registry::Subresource;
use crate::remarks;
use crate::rest;
use crate::rest::call::{Call, Reply};
use crate::rest::negotiate::{Accept, Offer, is_for_people, takes_gzip};
use crate::rest::query::Query;
use crate::rest::target::{ResourceTarget, Target, Verb};
use crate::status::{Result, Status};
use crate::storage;
use crate::trail::{self, Trail, Who};
use bytes::Bytes;
use futures::FutureExt;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;

/// The UID of the FlowSchema that a request was of.
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// The UID of its priority level.
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A client in this process, with an identity given to it.
    Inside(User),
    /// A socket; the user of its client certificate, and whether it is on this machine.
    Socket {
        /// Who the certificate names.
        user: Option<User>,
        /// Whether the other end is on this machine, where compression only costs.
        local: bool,
        /// Where it is.
        address: Option<IpAddr>,
    },
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    api: Arc<Api>,
    peer: Peer,
}

// === impl Peer ===

impl Peer {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Inside(_) => None,
            Self::Socket { address, .. } => *address,
        }
    }
}

// === impl Front ===

impl Front {
    /// A service over `api`.
    pub fn new(api: Arc<Api>, peer: Peer) -> Self {
        Self { api, peer }
    }

    /// The same service for another peer.
    pub fn for_peer(&self, peer: Peer) -> Self {
        Self {
            peer,
            ..self.clone()
        }
    }

    async fn handle<B>(self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display,
    {
        let local = match &self.peer {
            Peer::Inside(_) => true,
            Peer::Socket { local, .. } => *local,
        };
        let accept = Accept::of(request.headers(), Offer::Plain).unwrap_or_default();
        let gzip = !local && takes_gzip(request.headers());
        let id = trail::id(request.headers());
        let mut beside = Beside::default();
        let worked = AssertUnwindSafe(self.answer(request, &id, &mut beside))
            .catch_unwind()
            .await;
        let outcome = worked.unwrap_or_else(|_| Err(Status::internal("the handler panicked")));
        let mut response = match outcome {
            Ok(Answer::Reply(reply)) => crate::compress::response(reply_response(reply), gzip),
            Ok(Answer::Raw(response)) => response,
            Err(status) => status_response(&status, accept),
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(trail::AUDIT_ID, id);
        }
        warn(&mut response, beside.warnings);
        if let Some((schema, level)) = beside.route.and_then(|route| route.uids.clone()) {
            response.headers_mut().insert(FLOW_SCHEMA, schema);
            response.headers_mut().insert(PRIORITY_LEVEL, level);
        }
        response
    }

    async fn answer<B>(&self, request: Request<B>, id: &str, beside: &mut Beside) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let who = self.who(&parts).await?;
        let target = Target::of_path(parts.uri.path())?;
        let query = Query::of(parts.uri.query());
        let method = parts.method.as_str().to_ascii_lowercase();
        let verb = match &target {
            Target::Path(_) => Verb::Get,
            Target::Resource(target) => target.verb(&parts.method, query.flag("watch")?)?,
        };
        let action = match &target {
            Target::Path(path) => Action::Path {
                verb: &method,
                path,
            },
            Target::Resource(target) => Action::Resource(Access::of(verb, target, &query)),
        };
        let mut trail = Trail::begin(&self.api, &who, &action, &parts, (id, self.peer.address()));
        beside.route = self.api.flow.route(who.user(), &action);
        let admitted = self.admit(beside.route.clone(), who.user(), &action, (verb, &query));
        let allowed = admitted.await.and_then(|seats| {
            let decision = self.decide(who.user(), &action, &target);
            trail.decided(&decision);
            settle(who.user(), &action, decision).map(|()| seats)
        });
        // Held until there is an answer; the body of a watch is not waited for.
        let (allowed, _seats) = match allowed {
            Ok(seats) => (Ok(()), seats),
            Err(refusal) => (Err(refusal), None),
        };
        let outcome = match (allowed, target) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Target::Path(path)) => match self.remote_path(&path) {
                Some(remote) => {
                    let nothing = Bytes::new();
                    aggregation::pass(&self.api, &remote, who.user(), parts, nothing)
                        .await
                        .map(Answer::Raw)
                }
                None => paths::serve(&self.api, &parts, &path, &query)
                    .await
                    .map(Answer::Reply),
            },
            (Ok(()), Target::Resource(target)) => {
                let asked = Asked {
                    user: who.user().clone(),
                    target,
                    verb,
                    query,
                };
                let worked = self.resource(asked, parts, body, &mut trail);
                let (outcome, said) = remarks::collect(worked).await;
                trail.annotated(said.annotations);
                beside.warnings = said.warnings;
                outcome
            }
        };
        match outcome {
            Ok(mut answer) => {
                let (code, body) = answer.parts();
                trail.answered(code.as_u16(), body);
                Ok(answer)
            }
            Err(refusal) => {
                trail.refused(&refusal);
                Err(refusal)
            }
        }
    }

    async fn resource<B>(
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

    /// Lets a request in, or makes it wait, or turns it away. Streams and proxied requests may
    /// last for ever: they are not counted.
    async fn admit(
        &self,
        route: Option<Arc<Route>>,
        user: &User,
        action: &Action<'_>,
        (verb, query): (Verb, &Query),
    ) -> Result<Option<Admitted>> {
        let Some(route) = route else {
            return Ok(None);
        };
        let seats = match action {
            Action::Path { .. } => 1,
            Action::Resource(access) if is_endless(access.subresource) => return Ok(None),
            Action::Resource(access) => {
                let initial = verb == Verb::Watch
                    && (query.flag("sendInitialEvents")?
                        || query
                            .get("resourceVersion")
                            .trim_start_matches('0')
                            .is_empty());
                let many = matches!(verb, Verb::List | Verb::DeleteCollection) || initial;
                let objects = if many { self.count(access) } else { 0 };
                let limit = query.number("limit")?.unwrap_or(0);
                let limit = usize::try_from(limit).unwrap_or(0);
                width::width(verb, objects, limit, initial, route.nominal())
            }
        };
        let admitted = self.api.flow.admit(route, user, action, seats);
        admitted.await.map(Some)
    }

    /// How many objects of a resource there are in all.
    fn count(&self, access: &Access<'_>) -> usize {
        let registry = &self.api.registry;
        let resource = registry.find(access.group, access.version, access.resource);
        resource.map_or(0, |resource| {
            self.api
                .store
                .snapshot(&storage::range(&resource.kind))
                .len()
        })
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

    /// The server of `/apis/GROUP/VERSION` and of its OpenAPI document, when it is another one.
    fn remote_path(&self, path: &str) -> Option<aggregation::Remote> {
        let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let mut segments = path.trim_matches('/').split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("apis"), Some(group), Some(version), None) => {
                self.api.aggregation.find(group, version)
            }
            _ => None,
        }
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

    fn find(
        &self,
        target: &ResourceTarget,
    ) -> Result<(Arc<crate::registry::Resource>, Option<Subresource>)> {
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

    /// Whether it is allowed: as what it is, or as the finer thing that it is a case of.
    fn decide(&self, user: &User, action: &Action<'_>, target: &Target) -> Decision {
        let decision = self.api.authorizer.decide(user, action);
        match (&decision, action, target) {
            (Decision::NoOpinion(_), Action::Resource(access), Target::Resource(target)) => {
                let finer = access.finer(target).map(Action::Resource);
                let finer = finer.map(|finer| self.api.authorizer.decide(user, &finer));
                finer.filter(Decision::is_allowed).unwrap_or(decision)
            }
            _ => decision,
        }
    }

    /// Who asks, and as whom.
    async fn who(&self, parts: &Parts) -> Result<Who> {
        let proved = self.authenticate(parts).await?;
        let wish = Wish::of(&parts.headers).map_err(Status::internal)?;
        if let Some(wish) = &wish {
            for access in wish.takes() {
                let action = Action::Resource(access);
                let decision = self.api.authorizer.decide(&proved, &action);
                settle(&proved, &action, decision)?;
            }
        }
        Ok(Who {
            acting_as: wish.map(|wish| wish.user()),
            proved,
        })
    }

    async fn authenticate(&self, parts: &Parts) -> Result<User> {
        let certified = match &self.peer {
            Peer::Inside(user) => return Ok(user.clone()),
            Peer::Socket { user, .. } => user,
        };
        if let Some(user) = certified {
            return Ok(user.clone());
        }
        let Some(header) = parts.headers.get(http::header::AUTHORIZATION) else {
            return match self.api.bearers.allows_anonymous(parts.uri.path()) {
                true => Ok(User::anonymous()),
                false => Err(Status::unauthorized()),
            };
        };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(Status::unauthorized)?;
        let bearer = bearer::authenticate(&self.api, token, &[]).await;
        let bearer = bearer.map_err(|fault| {
            tracing::debug!(%fault, "refused a token");
            Status::unauthorized()
        })?;
        Ok(bearer.user)
    }
}

/// What a decision means for a request.
fn settle(user: &User, action: &Action<'_>, decision: Decision) -> Result<()> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => {
            tracing::debug!(user = user.name(), ?action, why, "refused");
            Err(Status::not_allowed(user, action, &why))
        }
    }
}

/// What is sent beside an answer or a refusal.
#[derive(Default)]
struct Beside {
    /// The flow that the request was of.
    route: Option<Arc<Route>>,
    /// What was said on its way.
    warnings: Vec<String>,
}

/// A request on a resource that is allowed.
struct Asked {
    user: User,
    target: ResourceTarget,
    verb: Verb,
    query: Query,
}

/// Whether requests on a subresource are streams, or may be.
fn is_endless(subresource: &str) -> bool {
    matches!(
        subresource,
        "attach" | "exec" | "log" | "portforward" | "proxy"
    )
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

impl<B> tower_service::Service<Request<B>> for Front
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().handle(request).map(Ok))
    }
}
