//! The OpenAPI documents, v2 and v3. They are built from the registry when they are asked for,
//! which is seldom (clients keep them by their hash), and nothing of them stays in memory.

mod descriptions;

use std::sync::Arc;

use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use peapod_schema::openapi::{self, Gvk};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::Remote;
use crate::body::Body;
use crate::paths::git_version;
use crate::registry::{Kind, Registry, Resource, Subresource};
use crate::rest::call::Reply;
use crate::rest::target::Verb;
use crate::status::{Result, Status};
use descriptions::Described;

/// Answers a path below `/openapi/`.
pub async fn serve(
    registry: &Arc<Registry>,
    remotes: &[Remote],
    path: &str,
    headers: &HeaderMap,
) -> Result<Reply> {
    match path {
        "v2" => {
            let protobuf = accepts_protobuf(headers);
            let registry = registry.clone();
            let tag = hash(&registry.all());
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
            let tag = hash(&found);
            let registry = registry.clone();
            let build = move || v3(&registry, &found);
            document(headers, &tag, "application/json", build).await
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
    tag: &str,
    content_type: &str,
    build: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Result<Reply> {
    let quoted = format!("\"{tag}\"");
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut reply = match known.is_some_and(|known| known == quoted) {
        true => Reply::of(StatusCode::NOT_MODIFIED, content_type, Body::empty()),
        false => {
            // Building takes tens of milliseconds: not on a thread that serves.
            let built = tokio::task::spawn_blocking(build).await;
            Reply::of(
                StatusCode::OK,
                content_type,
                built.map_err(Status::internal)?,
            )
        }
    };
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        reply.headers.push((ETAG, value));
    }
    let public = HeaderValue::from_static("public");
    reply.headers.push((CACHE_CONTROL, public));
    Ok(reply)
}

/// What a document is known by: it changes with the version and with what is served.
fn hash(resources: &[Arc<Resource>]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(git_version());
    for resource in resources {
        hasher.update(&resource.api_version);
        hasher.update(&resource.kind.kind);
        hasher.update(&resource.edition);
    }
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn index(registry: &Registry, remotes: &[Remote]) -> Value {
    let mut paths = Map::new();
    for (group, version) in registry.versions() {
        let path = match group.as_str() {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        let hash = hash(&registry.of_version(&group, &version));
        let url = format!("/openapi/v3/{path}?hash={hash}");
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
