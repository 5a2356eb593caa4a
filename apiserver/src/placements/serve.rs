//! `placements` in the API: get, list and watch, in every form that other kinds have.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use peapod_api::selector::FieldSelector;
use serde_json::{Value, json};

use super::Placements;
use super::follow;
use super::index::{Field, Sieve, Slot, seconds};
use super::log::LogError;
use super::segment::Line;
use crate::api::Api;
use crate::registry::Kind;
use crate::rest::call::{Call, Reply};
use crate::rest::computed;
use crate::rest::target::Verb;
use crate::rest::{respond, table};
use crate::status::{Result, Status};

/// Most placements of one page, also when no limit is asked for.
const PAGE_MAX: usize = 10_000;
/// How many are read under one lock.
const READ_AT_ONCE: usize = 500;

/// Whether a kind's objects are placements.
pub fn serves(kind: &Kind) -> bool {
    kind.plural == "placements" && kind.group == peapod_api::net::GROUP
}

/// Answers a request.
pub async fn serve(api: &Api, call: &Call) -> Result<Reply> {
    let placements = &api.placements;
    match call.verb {
        Verb::Get => get(api, placements, call).await,
        Verb::List => list(api, placements, call).await,
        Verb::Watch => follow::watch(api, placements, call),
        _ => Err(Status::method_not_allowed()),
    }
}

/// What a list or watch selects.
#[derive(Clone, Debug)]
pub struct Question {
    /// Finds a superset.
    pub sieve: Sieve,
    terms: Vec<(Term, String, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Term {
    Name,
    Field(Field),
}

// === impl Question ===

impl Question {
    /// Reads the selectors and the span of time of a request.
    pub fn of(call: &Call) -> Result<Self> {
        let bad = |why: String| Status::bad_request(why);
        if !call.query.get("labelSelector").is_empty() {
            return Err(bad(
                "labelSelector: placements have no labels; select by fields".to_owned(),
            ));
        }
        let bound = |name: &str, otherwise| match call.query.get(name) {
            "" => Ok(otherwise),
            text => match text.parse::<jiff::Timestamp>() {
                Ok(_) => Ok(seconds(text)),
                Err(fault) => Err(bad(format!(
                    "{name}: Invalid value: {text:?}: must be an RFC 3339 time: {fault}"
                ))),
            },
        };
        let sieve = Sieve::new(bound("since", 0)?, bound("until", u32::MAX)?);
        let selector = call.query.get("fieldSelector");
        let fields: FieldSelector = selector.parse().map_err(|fault| bad(format!("{fault}")))?;
        let mut question = Self {
            sieve,
            terms: Vec::new(),
        };
        for term in fields.terms {
            question.add(term.field.as_str(), &term.value, term.equal)?;
        }
        if !call.target.namespace.is_empty() {
            question.add("metadata.namespace", &call.target.namespace, true)?;
        }
        if !call.target.name.is_empty() {
            question.add("metadata.name", &call.target.name, true)?;
        }
        Ok(question)
    }

    fn add(&mut self, field: &str, value: &str, equal: bool) -> Result<()> {
        let term = match field {
            "metadata.name" => Term::Name,
            other => Term::Field(Field::named(other).ok_or_else(|| {
                Status::bad_request(format!(
                    "field label not supported: {other}: one of metadata.name, metadata.namespace, \
                     spec.podName, spec.podUid, spec.workload, spec.node, spec.rack, spec.ip, spec.leaf"
                ))
            })?),
        };
        if let (Term::Field(field), true) = (term, equal) {
            self.sieve.demand(field, value);
        }
        self.terms.push((term, value.to_owned(), equal));
        Ok(())
    }

    /// Whether a placement is selected.
    pub fn matches(&self, line: &Line) -> bool {
        self.terms.iter().all(|(term, value, equal)| {
            let has = match term {
                Term::Name => name(line) == *value,
                Term::Field(field) => field
                    .values(&line.kept.namespace, &line.kept.spec)
                    .contains(&value.as_str()),
            };
            has == *equal
        })
    }
}

/// The name of a placement: its pod's, and its id.
pub fn name(line: &Line) -> String {
    const POD_MAX: usize = 240;
    let pod = &line.kept.spec.pod_name;
    let pod = pod.get(..POD_MAX).unwrap_or(pod);
    format!("{}.{:x}", pod.trim_end_matches(['.', '-']), line.kept.id)
}

fn id_of(name: &str) -> Option<u32> {
    u32::from_str_radix(name.rsplit_once('.')?.1, 16).ok()
}

/// The object of a placement.
pub fn object(line: &Line) -> Value {
    let spec = &line.kept.spec;
    let created = spec.from.parse::<jiff::Timestamp>().map_or_else(
        |_| spec.from.clone(),
        |from| from.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    // Unique as the pod's own, and the same after every restart.
    let head = spec.pod_uid.get(..24).unwrap_or("00000000-0000-0000-0000-");
    json!({
        "apiVersion": "net.peapod.dev/v1",
        "kind": "Placement",
        "metadata": {
            "name": name(line),
            "namespace": line.kept.namespace,
            "uid": format!("{head}{:012x}", line.kept.id),
            "resourceVersion": line.seq.to_string(),
            "creationTimestamp": created,
        },
        "spec": spec,
    })
}

async fn get(api: &Api, placements: &Placements, call: &Call) -> Result<Reply> {
    let wanted = call.target.name.clone();
    let namespace = call.target.namespace.clone();
    let found = with_log(placements, move |log| {
        let slot = id_of(&wanted).and_then(|id| log.index().find(id).copied());
        let line = slot.map(|slot| log.line(&slot)).transpose()?;
        Ok(line.filter(|line| name(line) == wanted && line.kept.namespace == namespace))
    });
    let line = found
        .await?
        .ok_or_else(|| Status::not_found(call.kind().group_resource(), &call.target.name))?;
    respond::value(api, call, StatusCode::OK, object(&line))
}

async fn list(api: &Api, placements: &Placements, call: &Call) -> Result<Reply> {
    let options = call.query.list_options()?;
    let question = Arc::new(Question::of(call)?);
    let limit = match options.limit {
        0 => PAGE_MAX,
        limit => limit.min(PAGE_MAX),
    };
    let mut after = match options.continue_token.as_str() {
        "" => 0,
        token => continue_after(token)?,
    };
    let newest = *placements.newest.borrow();
    let mut lines: Vec<Line> = Vec::new();
    // One more than asked for tells whether there is more.
    while lines.len() <= limit {
        let question = question.clone();
        let read = with_log(placements, move |log| {
            let slots = log.index().select(&question.sieve, after, READ_AT_ONCE);
            let last = slots.last().map(|slot| slot.id);
            let lines: std::result::Result<Vec<Line>, LogError> =
                slots.iter().map(|slot: &Slot| log.line(slot)).collect();
            let matching = lines?.into_iter().filter(|line| question.matches(line));
            Ok((last, matching.collect::<Vec<_>>()))
        });
        let (last, found) = read.await?;
        lines.extend(found);
        match last {
            Some(last) => after = last,
            None => break,
        }
    }
    let more = lines.len() > limit;
    lines.truncate(limit);
    let token = match lines.last().filter(|_| more) {
        Some(last) => {
            URL_SAFE_NO_PAD.encode(json!({"v": "placements", "after": last.kept.id}).to_string())
        }
        None => String::new(),
    };
    let meta = table::list_meta(newest.into(), &token, None);
    let items: Vec<Value> = lines.iter().map(object).collect();
    computed::list(api, call, meta, items).await
}

fn continue_after(token: &str) -> Result<u32> {
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let token: Value = serde_json::from_slice(&bytes).ok()?;
        (token["v"] == "placements").then_some(())?;
        u32::try_from(token["after"].as_u64()?).ok()
    };
    read().ok_or_else(|| Status::bad_request("continue key is not valid"))
}

/// Does something with the log, on a thread that may wait for the disk.
pub async fn with_log<T: Send + 'static>(
    placements: &Placements,
    work: impl FnOnce(&super::log::Log) -> std::result::Result<T, LogError> + Send + 'static,
) -> Result<T> {
    let log = placements.log.clone();
    let done = tokio::task::spawn_blocking(move || work(&log.lock())).await;
    done.map_err(Status::internal)?.map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_ids() {
        assert_eq!(id_of("web-5d-x.1f"), Some(31));
        assert_eq!(id_of("web"), None);
        assert_eq!(id_of("a.zz"), None);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        assert!(continue_after("x").is_err());
        let foreign = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a"}"#);
        assert!(continue_after(&foreign).is_err());
    }
}
