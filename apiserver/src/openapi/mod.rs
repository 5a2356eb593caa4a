//! The OpenAPI documents, v2 and v3. They are built from the registry when they are asked for,
//! which is seldom (clients keep them by their hash), and nothing of them stays in memory.

mod descriptions;

use std::sync::Arc;

use http::header::{ACCEPT, CACHE_CONTROL, EXPIRES, HeaderName, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use peapod_schema::openapi::{self, Gvk};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::Remote;
use crate::body::Body;
use crate::etag::Tag;
use crate::paths::git_version;
use crate::registry::{Kind, Registry, Resource, Subresource};
use crate::rest::call::Reply;
use crate::rest::target::Verb;
use crate::status::{Result, Status};
use descriptions::Described;

/// Answers a path below `/openapi/`. `hash` is the query's: a document by its hash never changes,
/// and who asks with one that is out of date is led to the present one.
pub async fn serve(
    registry: &Arc<Registry>,
    remotes: &[Remote],
    path: &str,
    headers: &HeaderMap,
    (hash, now): (&str, Timestamp),
) -> Result<Reply> {
    match path {
        "v2" => {
            let protobuf = accepts_protobuf(headers);
            let registry = registry.clone();
            let tag = tag(&registry.all());
            let build = move || v2(&registry, protobuf);
            let kind = if protobuf {
                openapi::PROTOBUF_REPLY
            } else {
                "application/json"
            };
            document(headers, &tag, kind, build).await
        }
        "v3" => Ok(Reply::json(
            StatusCode::OK,
            index(registry, remotes).to_string(),
        )),
        path => {
            let (group, version) = group_version(path).ok_or_else(Status::no_such_path)?;
            let found = registry.of_version(group, version);
            if found.is_empty() {
                return Err(Status::no_such_path());
            }
            let tag = tag(&found);
            if !hash.is_empty() && hash != tag.as_str() {
                return Ok(moved(path, &tag));
            }
            let registry = registry.clone();
            let build = move || v3(&registry, &found);
            let mut reply = document(headers, &tag, "application/json", build).await?;
            if !hash.is_empty() {
                reply.headers.extend(for_ever(now));
            }
            Ok(reply)
        }
    }
}

/// Group and version of `v3/api/v1` or `v3/apis/apps/v1`.
fn group_version(path: &str) -> Option<(&str, &str)> {
    let segments: Vec<&str> = path.split('/').collect();
    match segments[..] {
        ["v3", "api", version] => Some(("", version)),
        ["v3", "apis", group, version] => Some((group, version)),
        _ => None,
    }
}

fn accepts_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let first = accept.unwrap_or_default().split(',').next();
    let first = first.unwrap_or_default().trim();
    first.starts_with(openapi::PROTOBUF) || first.starts_with(openapi::PROTOBUF_REPLY)
}

/// A document with its tag; 304 where the client has it already.
async fn document(
    headers: &HeaderMap,
    tag: &Tag,
    content_type: &str,
    build: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Result<Reply> {
    if tag.is_known_to(headers) {
        return Ok(tag.unchanged(content_type));
    }
    // Building takes tens of milliseconds: not on a thread that serves.
    let built = tokio::task::spawn_blocking(build).await;
    let built = built.map_err(Status::internal)?;
    Ok(tag.put_on(Reply::of(StatusCode::OK, content_type, built)))
}

/// Where a document is now.
fn moved(path: &str, tag: &Tag) -> Reply {
    let code = StatusCode::MOVED_PERMANENTLY;
    let mut reply = Reply::of(code, "text/plain; charset=utf-8", Body::empty());
    if let Ok(place) = HeaderValue::from_str(&url(path, tag)) {
        reply.headers.push((LOCATION, place));
    }
    reply
}

/// Says that a document may be kept: for a year, the longest that HTTP knows.
fn for_ever(now: Timestamp) -> Vec<(HeaderName, HeaderValue)> {
    let year = SignedDuration::from_hours(365 * 24);
    let expires = now.saturating_add(year).unwrap_or(now);
    let expires = expires.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let expires = HeaderValue::from_str(&expires).map(|value| (EXPIRES, value));
    let kept = HeaderValue::from_static("public, immutable");
    let vary = HeaderValue::from_static("Accept");
    [(CACHE_CONTROL, kept), (VARY, vary)]
        .into_iter()
        .chain(expires.ok())
        .collect()
}

/// The address of a v3 document.
fn url(path: &str, tag: &Tag) -> String {
    format!("/openapi/{path}?hash={}", tag.as_str())
}

/// What a document is known by: it changes with the version and with what is served.
fn tag(resources: &[Arc<Resource>]) -> Tag {
    let mut hasher = Sha256::new();
    hasher.update(git_version());
    for resource in resources {
        hasher.update(&resource.api_version);
        hasher.update(&resource.kind.kind);
        hasher.update(&resource.edition);
    }
    Tag::of(&hasher.finalize())
}

fn index(registry: &Registry, remotes: &[Remote]) -> Value {
    let mut paths = Map::new();
    for (group, version) in registry.versions() {
        let path = match group.as_str() {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        let tag = tag(&registry.of_version(&group, &version));
        let url = url(&format!("v3/{path}"), &tag);
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    for remote in remotes.iter().filter(|remote| remote.resources.is_some()) {
        let path = format!("apis/{}/{}", remote.group, remote.version);
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({ "paths": paths })
}

fn v3(registry: &Registry, resources: &[Arc<Resource>]) -> Vec<u8> {
    let shown: Vec<_> = resources
        .iter()
        .map(|one| resource(registry, one))
        .collect();
    let descriptions = Described::all();
    openapi::v3(&shown, &descriptions, &git_version())
        .to_string()
        .into_bytes()
}

fn v2(registry: &Registry, protobuf: bool) -> Vec<u8> {
    let all = registry.all();
    let shown: Vec<_> = all.iter().map(|one| resource(registry, one)).collect();
    let descriptions = Described::all();
    let document = openapi::v2(&shown, &descriptions, &git_version());
    match protobuf {
        true => openapi::protobuf(&document),
        false => document.to_string().into_bytes(),
    }
}

fn resource<'a>(registry: &Registry, resource: &'a Resource) -> openapi::Resource<'a> {
    let kind = &resource.kind;
    openapi::Resource {
        gvk: gvk(kind),
        plural: &kind.plural,
        namespaced: kind.is_namespaced(),
        verbs: names(&kind.verbs),
        schema: &resource.schema,
        subresources: kind
            .subresources
            .iter()
            .map(|one| subresource(registry, resource, one))
            .collect(),
    }
}

fn subresource<'a>(
    registry: &Registry,
    resource: &'a Resource,
    subresource: &'a Subresource,
) -> openapi::Subresource<'a> {
    let spoken = subresource.kind();
    let whole = crate::rest::update::is_whole(subresource);
    let schema = match spoken {
        Some((group, version, kind)) => registry.schema(group, version, kind),
        None => whole.then(|| resource.schema.clone()),
    };
    let gvk = match spoken {
        Some((group, version, kind)) => Gvk {
            group,
            version,
            kind,
        },
        None => gvk(&resource.kind),
    };
    openapi::Subresource {
        name: subresource.name(),
        gvk,
        verbs: names(subresource.verbs()),
        schema,
    }
}

fn gvk(kind: &Kind) -> Gvk<'_> {
    Gvk {
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
    }
}

fn names(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}
