//! One request's trail in the audit log: from who asked to how it ended.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::request::Parts;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::Api;
use crate::audit::Record;
use crate::audit::event::{Asked, Event, reference};
use crate::audit::policy::Stage;
use crate::auth::action::Action;
use crate::auth::authorizer::Decision;
use crate::auth::user::User;
use crate::body::Body;
use crate::random;
use crate::status::Status;

/// The header that carries a request's number.
pub const AUDIT_ID: &str = "audit-id";
/// The longest number that a client may give.
const ID_MAX: usize = 64;
/// Largest body that is recorded, in bytes; of larger ones the rest is.
const BODY_MAX: usize = 1 << 20;

/// Who asks.
pub struct Who {
    /// Who proved to be someone.
    pub proved: User,
    /// As whom that one acts.
    pub acting_as: Option<User>,
}

/// The trail of a request; dropped without an answer while panicking, it says so.
pub struct Trail {
    record: Option<Arc<Record>>,
    decision: Option<(&'static str, String)>,
    annotations: BTreeMap<String, String>,
    request: Bytes,
    over: bool,
}

/// Notes the end of a response that goes on, when its body is dropped.
struct End {
    record: Arc<Record>,
    code: u16,
}

/// A request's number: the client's own, or a new one.
pub fn id(headers: &http::HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= ID_MAX);
    given.map_or_else(random::uid, str::to_owned)
}

// === impl Who ===

impl Who {
    /// Who acts.
    pub fn user(&self) -> &User {
        self.acting_as.as_ref().unwrap_or(&self.proved)
    }
}

// === impl Trail ===

impl Trail {
    /// Begins, and records that the request came in.
    pub fn begin(
        api: &Api,
        who: &Who,
        action: &Action<'_>,
        parts: &Parts,
        (id, from): (&str, Option<IpAddr>),
    ) -> Self {
        let record = api.audit.as_ref().and_then(|audit| {
            let agent = parts.headers.get(http::header::USER_AGENT);
            let asked = || Asked {
                id: id.to_owned(),
                at: api.now(),
                uri: parts
                    .uri
                    .path_and_query()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                verb: match action {
                    Action::Resource(access) => access.verb.to_owned(),
                    Action::Path { verb, .. } => (*verb).to_owned(),
                },
                user: who.proved.clone(),
                acting_as: who.acting_as.clone(),
                from,
                user_agent: agent
                    .and_then(|one| one.to_str().ok())
                    .unwrap_or_default()
                    .to_owned(),
                object: match action {
                    Action::Resource(access) => Some(reference(access)),
                    Action::Path { .. } => None,
                },
            };
            audit.begin(who.user(), action, asked)
        });
        if let Some(record) = &record {
            record.stage(Stage::RequestReceived, |_| ());
        }
        Self {
            record: record.map(Arc::new),
            decision: None,
            annotations: BTreeMap::new(),
            request: Bytes::new(),
            over: false,
        }
    }

    /// Notes whether the request may be.
    pub fn decided(&mut self, decision: &Decision) {
        if self.record.is_some() {
            self.decision = Some(match decision {
                Decision::Allow(why) => ("allow", why.clone()),
                Decision::Deny(why) | Decision::NoOpinion(why) => ("forbid", why.clone()),
            });
        }
    }

    /// Notes what was said on the request's way.
    pub fn annotated(&mut self, annotations: BTreeMap<String, String>) {
        self.annotations.extend(annotations);
    }

    /// Notes the request's body.
    pub fn read(&mut self, body: &Bytes) {
        let wanted = self
            .record
            .as_ref()
            .is_some_and(|record| record.wants_bodies().0);
        if wanted && body.len() <= BODY_MAX {
            self.request = body.clone();
        }
    }

    /// Records an answer; one whose body goes on is followed to its end.
    pub fn answered(&mut self, code: u16, body: &mut Body) {
        self.over = true;
        let Some(record) = self.record.take() else {
            return;
        };
        if let Body::Stream(_) = body {
            record.stage(Stage::ResponseStarted, |event| {
                self.tell(event);
                event.answered(code, None);
            });
            let Body::Stream(stream) = std::mem::replace(body, Body::empty()) else {
                return;
            };
            let end = End { record, code };
            *body = Body::stream(stream.inspect(move |_| {
                let _held = &end;
            }));
            return;
        }
        if record.wants_bodies().1 {
            let made = std::mem::replace(body, Body::empty()).settle(BODY_MAX + 1);
            *body = made.unwrap_or_else(|cut| Body::lazy(std::iter::once(Err(cut)), None));
        }
        record.stage(Stage::ResponseComplete, |event| {
            self.tell(event);
            event.answered(code, None);
            if record.wants_bodies().1 {
                event.response(&whole(body));
            }
        });
    }

    /// Records a refusal.
    pub fn refused(&mut self, status: &Status) {
        self.over = true;
        let Some(record) = self.record.take() else {
            return;
        };
        record.stage(Stage::ResponseComplete, |event| {
            self.tell(event);
            event.answered(status.code.as_u16(), Some(status.to_value()));
        });
    }

    fn tell(&self, event: &mut Event) {
        if let Some((decision, reason)) = &self.decision {
            event.decided(decision, reason);
        }
        for (key, text) in &self.annotations {
            event.annotate(key, text);
        }
        if !self.request.is_empty() {
            event.request(&self.request);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && !self.over
            && std::thread::panicking()
        {
            record.stage(Stage::Panic, |event| {
                self.tell(event);
                event.answered(500, None);
            });
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.record.stage(Stage::ResponseComplete, |event| {
            event.answered(self.code, None)
        });
    }
}

/// A body whose pieces are all there, if it is not too large.
fn whole(body: &Body) -> Bytes {
    match body {
        Body::Pieces(pieces) if body.size().is_some_and(|size| size <= BODY_MAX as u64) => {
            let mut all = BytesMut::new();
            for piece in pieces {
                all.extend_from_slice(piece);
            }
            all.freeze()
        }
        _ => Bytes::new(),
    }
}
