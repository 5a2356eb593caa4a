//! The front door: one service for sockets and for clients in the process. It finds out who
//! asks and what for, holds the bounds (requests at once, time, size), and writes the reply.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::auth::action::{Access, Action};
use crate::auth::authorizer::Decision;
use crate::auth::bearer;
use crate::auth::impersonation::Wish;
use crate::auth::user::User;
use crate::body::{self, Body};
use crate::metrics;
use crate::paths;
use crate::registry::Subresource;
use crate::rest::call::{Call, Reply};
use crate::rest::negotiate::Accept;
use crate::rest::query::Query;
use crate::rest::target::{ResourceTarget, Target, Verb};
use crate::rest::{self, table};
use crate::status::{Result, Status};

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
    },
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    api: Arc<Api>,
    permits: Arc<Semaphore>,
    peer: Peer,
}

// === impl Front ===

impl Front {
    /// A service over `api`; its clones share the bound on requests at once.
    pub fn new(api: Arc<Api>, peer: Peer) -> Self {
        let permits = Arc::new(Semaphore::new(api.config.max_requests));
        Self { api, permits, peer }
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
        let accept = Accept::of(request.headers());
        let worked = AssertUnwindSafe(self.answer(request)).catch_unwind().await;
        let outcome = worked.unwrap_or_else(|_| Err(Status::internal("the handler panicked")));
        match outcome {
            Ok(Answer::Reply(reply)) => {
                let gzip = !local && accept.is_ok_and(|accept| accept.gzip);
                crate::compress::response(reply_response(reply), gzip)
            }
            Ok(Answer::Raw(response)) => response,
            Err(status) => status_response(&status, &accept.unwrap_or_default()),
        }
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display,
    {
        let (mut parts, body) = request.into_parts();
        let user = self.authenticate(&parts.headers)?;
        let user = self.impersonate(user, &parts.headers)?;
        let target = Target::of_path(parts.uri.path())?;
        let query = Query::of(parts.uri.query());
        match target {
            Target::Path(path) => {
                let method = parts.method.as_str().to_ascii_lowercase();
                let action = Action::Path {
                    verb: &method,
                    path: &path,
                };
                self.authorize(&user, &action)?;
                paths::serve(&self.api, &parts, &path, &query)
                    .await
                    .map(Answer::Reply)
            }
            Target::Resource(target) => {
                let verb = target.verb(&parts.method, query.flag("watch")?)?;
                let access = Access::of(verb, &target, &query);
                self.authorize(&user, &Action::Resource(access))?;
                let (resource, subresource) = self.find(&target)?;
                let mut call = Call {
                    accept: Accept::of(&parts.headers)?,
                    user,
                    target,
                    verb,
                    resource,
                    subresource,
                    query,
                    headers: std::mem::take(&mut parts.headers),
                    body: Bytes::new(),
                };
                if is_stream(&call) {
                    parts.headers = call.headers.clone();
                    let answer = crate::proxy::stream(&self.api, &call, parts).await;
                    return answer.map(Answer::Raw);
                }
                let long = verb == Verb::Watch;
                let _permit = self.permit(long)?;
                if parts.method != Method::GET && parts.method != Method::HEAD {
                    call.body = body::read(body).await?;
                }
                self.work(&call, long).await.map(Answer::Reply)
            }
        }
    }

    async fn work(&self, call: &Call, long: bool) -> Result<Reply> {
        let started = Instant::now();
        let timeout = self.api.config.request_timeout;
        let mutating = !matches!(call.verb, Verb::Get | Verb::List | Verb::Watch);
        let _counted = (!long).then(|| self.api.metrics.in_flight(mutating));
        let outcome = tokio::time::timeout(timeout, rest::serve(&self.api, call)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            let why = "Timeout: request did not complete within the allotted timeout";
            Err(Status::timeout(why))
        });
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

    fn permit(&self, long: bool) -> Result<Option<tokio::sync::SemaphorePermit<'_>>> {
        if long {
            return Ok(None);
        }
        let permit = self.permits.try_acquire();
        permit
            .map(Some)
            .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))
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

    fn authenticate(&self, headers: &http::HeaderMap) -> Result<User> {
        let certified = match &self.peer {
            Peer::Inside(user) => return Ok(user.clone()),
            Peer::Socket { user, .. } => user,
        };
        if let Some(user) = certified {
            return Ok(user.clone());
        }
        let Some(header) = headers.get(http::header::AUTHORIZATION) else {
            return match self.api.config.anonymous {
                true => Ok(User::anonymous()),
                false => Err(Status::unauthorized()),
            };
        };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(Status::unauthorized)?;
        let bearer = bearer::authenticate(&self.api, token, &[]).map_err(|fault| {
            tracing::debug!(%fault, "refused a token");
            Status::unauthorized()
        })?;
        Ok(bearer.user)
    }

    /// Who acts: the one who asked, or whom that one may act as.
    fn impersonate(&self, user: User, headers: &http::HeaderMap) -> Result<User> {
        let Some(wish) = Wish::of(headers).map_err(Status::internal)? else {
            return Ok(user);
        };
        for access in wish.takes() {
            self.authorize(&user, &Action::Resource(access))?;
        }
        Ok(wish.user())
    }

    fn authorize(&self, user: &User, action: &Action<'_>) -> Result<()> {
        match self.api.authorizer.decide(user, action) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                tracing::debug!(user = user.name(), ?action, why, "refused");
                Err(Status::not_allowed(user, action, &why))
            }
        }
    }
}

fn is_stream(call: &Call) -> bool {
    matches!(
        call.subresource,
        Some(Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward)
    )
}

/// What is sent back.
enum Answer {
    Reply(Reply),
    /// A response that is passed on as it is: a tunnel to a node.
    Raw(Response<Body>),
}

fn reply_response(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.code;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(value) = HeaderValue::from_str(&reply.content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    for (name, value) in reply.headers {
        headers.insert(name, value);
    }
    for warning in reply.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(WARNING, value);
        }
    }
    response
}

fn status_response(status: &Status, accept: &Accept) -> Response<Body> {
    let encoding = accept.encoding;
    let body = table::encode(&status.to_value(), encoding).unwrap_or_default();
    let reply = Reply::of(status.code, encoding.content_type(), body);
    let mut response = reply_response(reply);
    let delay = status.retry_delay();
    if let Some(delay) = delay.filter(|_| status.code != StatusCode::GATEWAY_TIMEOUT) {
        let seconds = HeaderValue::from(delay.as_secs());
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
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
