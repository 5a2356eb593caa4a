//! The paths of a resource and what may be done at each.

use serde_json::{Map as JsonMap, Value, json};

use super::shapes::{name_of, published};
use super::{Form, Gvk, Resource, Subresource};

const MEDIA: [&str; 2] = ["application/json", "application/yaml"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// What an operation is, by the verb that allows it.
struct Action {
    verb: &'static str,
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    /// How its identifier begins.
    prefix: &'static str,
    parameters: &'static [(&'static str, &'static str)],
}

const fn action(
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    prefix: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Action {
    Action {
        verb,
        method,
        action,
        prefix,
        parameters,
    }
}

const ON_COLLECTION: &[Action] = &[
    action("list", "get", "list", "list", LIST),
    action("create", "post", "post", "create", WRITE),
    action(
        "deletecollection",
        "delete",
        "deletecollection",
        "deleteCollection",
        LIST,
    ),
];
const ON_ITEM: &[Action] = &[
    action("get", "get", "get", "read", &[]),
    action("update", "put", "put", "replace", WRITE),
    action("patch", "patch", "patch", "patch", PATCH),
    action("delete", "delete", "delete", "delete", DELETE),
];
const ON_SUBRESOURCE: &[Action] = &[
    action("get", "get", "get", "read", &[]),
    action("create", "post", "post", "create", WRITE),
    action("update", "put", "put", "replace", WRITE),
    action("patch", "patch", "patch", "patch", PATCH),
    action("delete", "delete", "delete", "delete", DELETE),
];

/// One path: what stands there and how it is named.
struct Place<'a> {
    form: Form,
    gvk: Gvk<'a>,
    /// Published name of the type; none for streams and text.
    shape: Option<String>,
    /// Parameters that stand in the path.
    in_path: &'a [&'a str],
    /// What identifiers end in, as `CoreV1NamespacedPod`.
    suffix: String,
}

/// Adds the paths of a resource and of its subresources.
pub(super) fn add(form: Form, resource: &Resource<'_>, out: &mut JsonMap<String, Value>) {
    let Gvk { group, version, .. } = resource.gvk;
    let base = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let plural = resource.plural;
    let (home, in_home): (String, &[&str]) = match resource.namespaced {
        true => (
            format!("{base}/namespaces/{{namespace}}/{plural}"),
            &["namespace"],
        ),
        false => (format!("{base}/{plural}"), &[]),
    };
    let in_item: Vec<&str> = ["name"].iter().chain(in_home).copied().collect();
    let collection = Place {
        form,
        gvk: resource.gvk,
        shape: name_of(resource.schema),
        in_path: in_home,
        suffix: suffix(resource, ""),
    };
    if resource.namespaced && resource.verbs.contains(&"list") {
        let everywhere = Place {
            in_path: &[],
            suffix: format!("{}ForAllNamespaces", suffix(resource, "")).replace("Namespaced", ""),
            ..collection.clone_shape()
        };
        let list = everywhere.operations(ON_COLLECTION, &["list"]);
        insert(out, format!("{base}/{plural}"), list);
    }
    let operations = collection.operations(ON_COLLECTION, &resource.verbs);
    insert(out, home.clone(), operations);
    let item = Place {
        in_path: &in_item,
        ..collection.clone_shape()
    };
    let operations = item.operations(ON_ITEM, &resource.verbs);
    insert(out, format!("{home}/{{name}}"), operations);
    for sub in &resource.subresources {
        let place = subresource(form, resource, sub, &in_item);
        let operations = place.operations(ON_SUBRESOURCE, &sub.verbs);
        insert(out, format!("{home}/{{name}}/{}", sub.name), operations);
    }
}

fn insert(out: &mut JsonMap<String, Value>, path: String, operations: JsonMap<String, Value>) {
    if !operations.is_empty() {
        out.insert(path, Value::Object(operations));
    }
}

fn subresource<'a>(
    form: Form,
    resource: &Resource<'_>,
    sub: &Subresource<'a>,
    in_path: &'a [&'a str],
) -> Place<'a> {
    Place {
        form,
        gvk: sub.gvk,
        shape: sub.schema.as_ref().and_then(name_of),
        in_path,
        suffix: suffix(resource, sub.name),
    }
}

fn suffix(resource: &Resource<'_>, sub: &str) -> String {
    let Gvk {
        group,
        version,
        kind,
    } = resource.gvk;
    let group = match group.split('.').next() {
        Some("") | None => "core",
        Some(first) => first,
    };
    let scope = if resource.namespaced {
        "Namespaced"
    } else {
        ""
    };
    let (group, version, sub) = (capital(group), capital(version), capital(sub));
    format!("{group}{version}{scope}{kind}{sub}")
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

impl<'a> Place<'a> {
    fn clone_shape(&self) -> Place<'a> {
        Place {
            form: self.form,
            gvk: self.gvk,
            shape: self.shape.clone(),
            in_path: self.in_path,
            suffix: self.suffix.clone(),
        }
    }

    fn operations(&self, actions: &[Action], verbs: &[&str]) -> JsonMap<String, Value> {
        let allowed = actions.iter().filter(|action| verbs.contains(&action.verb));
        allowed
            .map(|action| (action.method.to_owned(), self.operation(action)))
            .collect()
    }

    fn operation(&self, action: &Action) -> Value {
        let mut operation = json!({
            "operationId": format!("{}{}", action.prefix, self.suffix),
            "x-kubernetes-action": action.action,
            "x-kubernetes-group-version-kind": self.gvk.to_value(),
        });
        let mut parameters = self.parameters(action);
        let shape = self.answer(action);
        match self.form {
            Form::V3 => {
                operation["responses"] = json!({"200": self.v3_response(&shape)});
                if let Some(body) = self.body(action) {
                    let media = self.v3_content(body.media, &body.shape);
                    operation["requestBody"] = json!({"content": media});
                }
            }
            Form::V2 => {
                operation["produces"] = json!(MEDIA);
                operation["responses"] = json!({"200": self.v2_response(&shape)});
                if let Some(body) = self.body(action) {
                    operation["consumes"] = json!(body.media);
                    let reference = json!({"$ref": self.form.reference(&body.shape)});
                    let body = json!({"name": "body", "in": "body", "schema": reference});
                    parameters.push(body);
                }
            }
        }
        operation["parameters"] = Value::Array(parameters);
        operation
    }

    fn parameters(&self, action: &Action) -> Vec<Value> {
        let typed = |mut parameter: Value, kind: &str| {
            match self.form {
                Form::V2 => parameter["type"] = kind.into(),
                Form::V3 => parameter["schema"] = json!({"type": kind}),
            }
            parameter
        };
        let query = action.parameters.iter().chain(&[("pretty", "string")]);
        let query = query.map(|(name, kind)| typed(json!({"name": name, "in": "query"}), kind));
        let path = self.in_path.iter().map(|name| {
            let parameter = json!({"name": name, "in": "path", "required": true});
            typed(parameter, "string")
        });
        query.chain(path).collect()
    }

    /// The published name of what is answered.
    fn answer(&self, action: &Action) -> Option<String> {
        let shape = self.shape.as_ref()?;
        Some(match action.action {
            "list" => format!("{shape}List"),
            "delete" | "deletecollection" => published("meta.v1.Status"),
            _ => shape.clone(),
        })
    }

    fn body(&self, action: &Action) -> Option<Body> {
        let shape = self.shape.clone()?;
        let (media, shape): (&[&str], _) = match action.method {
            "post" | "put" => (&MEDIA, shape),
            "patch" => (&PATCHES, published("meta.v1.Status")),
            "delete" => (&MEDIA, published("meta.v1.DeleteOptions")),
            _ => return None,
        };
        Some(Body { media, shape })
    }

    fn v3_content(&self, media: &[&str], shape: &str) -> Value {
        let schema = json!({"schema": {"$ref": self.form.reference(shape)}});
        let entry = |media: &&str| ((*media).to_owned(), schema.clone());
        Value::Object(media.iter().map(entry).collect())
    }

    fn v3_response(&self, shape: &Option<String>) -> Value {
        let mut response = json!({"description": "OK"});
        if let Some(shape) = shape {
            response["content"] = self.v3_content(&MEDIA, shape);
        }
        response
    }

    fn v2_response(&self, shape: &Option<String>) -> Value {
        let mut response = json!({"description": "OK"});
        if let Some(shape) = shape {
            response["schema"] = json!({"$ref": self.form.reference(shape)});
        }
        response
    }
}

struct Body {
    media: &'static [&'static str],
    shape: String,
}
