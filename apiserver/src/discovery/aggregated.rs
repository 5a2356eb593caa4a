//! All that is served in one answer: `apidiscovery.k8s.io/v2` `APIGroupDiscoveryList`, with a tag
//! by which clients keep it.

use http::{HeaderMap, HeaderValue, StatusCode, header::VARY};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Served, verbs};
use crate::aggregation;
use crate::etag::Tag;
use crate::registry::{Kind, Subresource};
use crate::rest::call::Reply;
use crate::rest::encode;
use crate::rest::negotiate::Accept;
use crate::status::Result;

/// The answer for groups, each with its versions.
pub fn reply(
    served: Served<'_>,
    groups: &[(String, Vec<String>)],
    accept: Accept,
    headers: &HeaderMap,
) -> Result<Reply> {
    let groups = groups.iter().map(|(name, versions)| {
        let versions = versions
            .iter()
            .map(|version| of_version(served, name, version));
        let mut meta = Map::new();
        if !name.is_empty() {
            meta.insert("name".into(), name.as_str().into());
        }
        json!({"metadata": meta, "versions": versions.collect::<Vec<_>>()})
    });
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups.collect::<Vec<_>>(),
    });
    let content_type = format!(
        "{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        accept.encoding.content_type()
    );
    // One tag for all encodings: which of them a client keeps is said by `Vary`.
    let tag = Tag::of(&Sha256::digest(encode::json(&document)?));
    let mut reply = match tag.is_known_to(headers) {
        true => tag.unchanged(&content_type),
        false => {
            let body = encode::value(&document, accept)?;
            tag.put_on(Reply::of(StatusCode::OK, &content_type, body))
        }
    };
    let accept = HeaderValue::from_static("Accept");
    reply.headers.push((VARY, accept));
    Ok(reply)
}

fn of_version(served: Served<'_>, group: &str, version: &str) -> Value {
    let mut remotes = served.remotes.iter();
    let other = remotes.find(|one| one.group == group && one.version == version);
    let (resources, fresh): (Vec<Value>, bool) = match other {
        None => {
            let own = served.registry.of_version(group, version);
            (own.iter().map(|r| nested(&r.kind)).collect(), true)
        }
        Some(remote) => match &remote.resources {
            Some(list) => (aggregation::nested(list, group, version), true),
            None => (Vec::new(), false),
        },
    };
    json!({
        "version": version,
        "freshness": if fresh { "Current" } else { "Stale" },
        "resources": resources,
    })
}

/// A resource with its subresources inside, as the aggregated list has it.
fn nested(kind: &Kind) -> Value {
    let own = |name: &str| gvk(&kind.group, &kind.version, name);
    let mut document = json!({
        "resource": kind.plural,
        "responseKind": own(&kind.kind),
        "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(&kind.verbs),
    });
    for (field, names) in [
        ("shortNames", &kind.short_names),
        ("categories", &kind.categories),
    ] {
        if !names.is_empty() {
            document[field] = names.clone().into();
        }
    }
    if !kind.subresources.is_empty() {
        let all = kind.subresources.iter().map(|one| subresource(kind, one));
        document["subresources"] = all.collect::<Vec<_>>().into();
    }
    document
}

fn subresource(kind: &Kind, subresource: &Subresource) -> Value {
    let response = match subresource.kind() {
        Some((group, version, name)) => gvk(group, version, name),
        None => gvk(&kind.group, &kind.version, &kind.kind),
    };
    json!({
        "subresource": subresource.name(),
        "responseKind": response,
        "verbs": verbs(subresource.verbs()),
    })
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
