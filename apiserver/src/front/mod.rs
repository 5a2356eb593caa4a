//! The front door: one service for sockets and for clients in the process. It finds out who
//! asks and what for, holds the bounds (flow control, time, size), and writes the reply.

mod may;
mod resource;
mod seats;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body as HttpBody;

use crate::aggregation;
use crate::answer::{Answer, head_only, reply_response, status_response, warn};
use crate::api::Api;
use crate::auth::action::{Access, Action};
use crate::auth::user::User;
use crate::body::Body;
use crate::flow::Route;
use crate::paths;
use crate::remarks;
use crate::rest::negotiate::{Accept, Offer, takes_gzip};
use crate::rest::query::Query;
use crate::rest::target::{Target, Verb};
use crate::status::{Result, Status};
use crate::trail::{self, Trail};
use may::settle;
use resource::Asked;

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
        let is_head = request.method() == Method::HEAD;
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
        match is_head {
            true => head_only(response),
            false => response,
        }
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
}

/// What is sent beside an answer or a refusal.
#[derive(Default)]
struct Beside {
    /// The flow that the request was of.
    route: Option<Arc<Route>>,
    /// What was said on its way.
    warnings: Vec<String>,
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
