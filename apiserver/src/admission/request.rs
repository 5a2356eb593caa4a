//! A write as webhooks and expressions are told of it: the `request` of an `AdmissionReview`.

use std::fmt;
use std::sync::Arc;

use peapod_cel::Value as CelValue;
use peapod_cel::value::HostObject;
use serde_json::{Value, json};

use super::expressions::Subject;
use super::matching::{Matched, name_of};
use super::{Attributes, Operation, find};
use crate::api::Api;
use crate::random;
use crate::registry::{Kind, Resource};

/// The write, as what was asked for: the object and the old one in the version that matched.
pub struct Asked {
    /// `request` of the review, without the objects.
    pub request: Value,
    /// The object; null on deletions.
    pub object: Value,
    /// The old object; null on creations.
    pub old: Value,
}

/// The namespace that a write is in.
pub fn namespace(api: &Api, write: &Attributes<'_>) -> Option<Value> {
    match write.namespace {
        "" => None,
        name => find(api, "", "namespaces", "", name),
    }
}

/// Tells of a write.
pub fn asked(write: &Attributes<'_>, object: &Value, matched: &Matched) -> Asked {
    let deletes = write.operation == Operation::Delete;
    let as_asked = |object: &Value| match matched {
        Matched::Own => object.clone(),
        Matched::As(other) => viewed(write.resource, other, object),
    };
    let kind = match matched {
        Matched::Own => &write.resource.kind,
        Matched::As(other) => &other.kind,
    };
    let own = &write.resource.kind;
    let mut request = json!({
        "uid": random::uid(),
        "kind": gvk(kind, write),
        "resource": gvr(kind),
        "requestKind": gvk(own, write),
        "requestResource": gvr(own),
        "operation": name_of(write.operation),
        "userInfo": write.user.to_value(),
        "dryRun": write.dry_run,
        "options": options(write),
    });
    // A namespace counts as being in itself.
    let namespace = match own.plural == "namespaces" && own.group.is_empty() {
        true => write.name,
        false => write.namespace,
    };
    for (field, text) in [
        ("name", write.name),
        ("namespace", namespace),
        ("subResource", write.subresource),
        ("requestSubResource", write.subresource),
    ] {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    Asked {
        request,
        object: if deletes {
            Value::Null
        } else {
            as_asked(object)
        },
        old: write.old.map(as_asked).unwrap_or_default(),
    }
}

/// An object as another version of its kind shows it.
pub fn viewed(from: &Resource, to: &Resource, object: &Value) -> Value {
    let mut out = object.clone();
    if from.kind.stored_as.is_some() {
        from.kind.rules.to_stored(&mut out);
    }
    if to.kind.stored_as.is_some() {
        to.kind.rules.from_stored(&mut out);
    }
    out["apiVersion"] = to.api_version.as_str().into();
    out["kind"] = to.kind.kind.as_str().into();
    out
}

fn gvk(kind: &Kind, write: &Attributes<'_>) -> Value {
    let subresource = kind.find_subresource(write.subresource);
    let (group, version, name) = match subresource.and_then(|one| one.kind()) {
        // What is changed through `/scale` is the object itself here.
        Some(spoken) if write.subresource != "scale" => spoken,
        _ => (
            kind.group.as_str(),
            kind.version.as_str(),
            kind.kind.as_str(),
        ),
    };
    json!({"group": group, "version": version, "kind": name})
}

fn gvr(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "resource": kind.plural})
}

fn options(write: &Attributes<'_>) -> Value {
    let kind = match write.operation {
        // What is asked of the other side is the object itself.
        Operation::Connect => return Value::Null,
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if write.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// The values that expressions see of a write.
pub fn subject(
    api: &Api,
    write: &Attributes<'_>,
    asked: &Asked,
    namespace: Option<&Value>,
) -> Subject {
    let checks = Authorizer {
        authorizer: api.authorizer.clone(),
        user: write.user.clone(),
        access: Check::default(),
        request: Check {
            path: None,
            group: Some(write.resource.kind.group.clone()),
            resource: Some(write.resource.kind.plural.clone()),
            subresource: write.subresource.to_owned(),
            namespace: write.namespace.to_owned(),
            name: write.name.to_owned(),
        },
    };
    Subject {
        object: CelValue::of_json(&asked.object),
        old: CelValue::of_json(&asked.old),
        request: CelValue::of_json(&with_texts(&asked.request)),
        namespace: namespace.map_or(CelValue::Null, CelValue::of_json),
        authorizer: CelValue::Host(Arc::new(checks)),
    }
}

/// The request with its empty texts, which expressions may ask for.
fn with_texts(request: &Value) -> Value {
    let mut out = request.clone();
    for field in ["name", "namespace", "subResource", "requestSubResource"] {
        if out.get(field).is_none() {
            out[field] = "".into();
        }
    }
    out
}

/// `authorizer` of expressions: whether the one who writes may do something else too.
struct Authorizer {
    authorizer: Arc<dyn crate::auth::authorizer::Authorizer>,
    user: crate::auth::user::User,
    access: Check,
    /// What the request itself is about.
    request: Check,
}

/// What is asked about.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// A path that is no resource.
    pub path: Option<String>,
    /// A group.
    pub group: Option<String>,
    /// A plural of it.
    pub resource: Option<String>,
    /// A subresource.
    pub subresource: String,
    /// A namespace.
    pub namespace: String,
    /// A name.
    pub name: String,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Authorizer {
    fn with(&self, change: impl FnOnce(&mut Check)) -> CelValue {
        let mut access = self.access.clone();
        change(&mut access);
        CelValue::Host(Arc::new(Self {
            authorizer: self.authorizer.clone(),
            user: self.user.clone(),
            access,
            request: self.request.clone(),
        }))
    }

    fn decide(&self, verb: &str) -> CelValue {
        let decision = super::access::decide(&*self.authorizer, &self.user, verb, &self.access);
        CelValue::Host(Arc::new(decision))
    }
}

impl HostObject for Authorizer {
    fn type_name(&self) -> &'static str {
        match (&self.access.path, &self.access.group, &self.access.resource) {
            (Some(_), ..) => "kubernetes.authorization.PathCheck",
            (None, Some(_), Some(_)) => "kubernetes.authorization.ResourceCheck",
            (None, Some(_), None) => "kubernetes.authorization.GroupCheck",
            (None, None, _) => "kubernetes.authorization.Authorizer",
        }
    }

    fn call(&self, function: &str, args: &[CelValue]) -> Result<CelValue, String> {
        let text = |index: usize| match args.get(index) {
            Some(CelValue::String(text)) => Ok(text.to_string()),
            _ => Err(format!("no such overload: {}.{function}", self.type_name())),
        };
        if function == "requestResource" && args.is_empty() {
            let request = self.request.clone();
            return Ok(self.with(|check| *check = request));
        }
        let first = text(0)?;
        Ok(match function {
            "path" => self.with(|check| check.path = Some(first)),
            "group" => self.with(|check| check.group = Some(first)),
            "resource" => self.with(|check| check.resource = Some(first)),
            "subresource" => self.with(|check| check.subresource = first),
            "namespace" => self.with(|check| check.namespace = first),
            "name" => self.with(|check| check.name = first),
            "fieldSelector" | "labelSelector" => self.with(|_| {}),
            "serviceAccount" => {
                let name = text(1)?;
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{first}"),
                ];
                CelValue::Host(Arc::new(Self {
                    authorizer: self.authorizer.clone(),
                    user: crate::auth::user::User::authenticated(
                        &format!("system:serviceaccount:{first}:{name}"),
                        groups,
                    ),
                    access: Check::default(),
                    request: self.request.clone(),
                }))
            }
            "check" => self.decide(&first),
            _ => return Err(format!("no such overload: {}.{function}", self.type_name())),
        })
    }
}
