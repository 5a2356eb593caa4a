//! The types of what policies ask for: expressions over a known kind are checked against its
//! schema, and what does not fit is told in the policy's status.

use std::sync::Arc;
use std::time::Duration;

use peapod_cel::Type;
use peapod_schema::graph::{Node, Scalar, Type as Shape};
use peapod_store::{Interest, Scope};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::GROUP;
use crate::admission::expressions::{self, Variables, Wanted};
use crate::api::Api;
use crate::registry::{Resource, value};
use crate::rest::update;
use crate::rest::write::Write;
use crate::status::Status;
use crate::storage;

const PLURAL: &str = "validatingadmissionpolicies";
/// How deep a kind's type goes; what is deeper may be anything.
const DEPTH_MAX: usize = 10;
/// Most kinds that a policy is checked against.
const KINDS_MAX: usize = 10;
/// How long a failed write rests before it is tried again.
const REST: Duration = Duration::from_secs(1);

/// Keeps the status of policies until it is dropped.
pub fn spawn(api: Arc<Api>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api)))
}

async fn run(api: Arc<Api>) {
    let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
        return;
    };
    let range = storage::range(&kind.kind);
    loop {
        let from = api.store.snapshot(&range).revision();
        let Ok(mut events) = api.store.watch(Interest::new(range.clone()), from) else {
            tokio::time::sleep(REST).await;
            continue;
        };
        loop {
            let settled = sync(&api, &kind).await;
            tokio::select! {
                event = events.next() => if event.is_err() { break },
                () = tokio::time::sleep(REST), if settled.is_err() => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn sync(api: &Api, kind: &Resource) -> Result<(), Status> {
    let snapshot = api.store.snapshot(&storage::range(&kind.kind));
    let entries = snapshot.range(Scope::All, None);
    let policies: Vec<Value> = entries
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect();
    for policy in policies {
        let generation = &policy["metadata"]["generation"];
        if policy["status"]["observedGeneration"] == *generation {
            continue;
        }
        let warnings = warnings(api, &policy);
        tell(api, kind, &policy, warnings).await?;
    }
    Ok(())
}

async fn tell(
    api: &Api,
    kind: &Resource,
    policy: &Value,
    warnings: Vec<Value>,
) -> Result<(), Status> {
    let write = Write::by_server(api, kind, "", value::text(policy, "metadata.name"));
    let written = update::assign(&write, |old| {
        let mut new = old.clone();
        if old["metadata"]["generation"] == policy["metadata"]["generation"] {
            let generation = policy["metadata"]["generation"].clone();
            value::set(&mut new, "status.observedGeneration", generation);
            let checking = match warnings.is_empty() {
                true => json!({}),
                false => json!({"expressionWarnings": warnings}),
            };
            value::set(&mut new, "status.typeChecking", checking);
        }
        Ok(new)
    });
    match written.await {
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// What does not fit in a policy's expressions, over the kinds that it names.
fn warnings(api: &Api, policy: &Value) -> Vec<Value> {
    let kinds = kinds(api, policy);
    let params = value::at(policy, "spec.paramKind").is_some();
    let mut out = Vec::new();
    for (index, validation) in value::list(policy, "spec.validations").iter().enumerate() {
        for (field, wanted) in [
            ("expression", Wanted::Bool),
            ("messageExpression", Wanted::Text),
        ] {
            let source = value::text(validation, field);
            if source.is_empty() {
                continue;
            }
            let faults = kinds.iter().filter_map(|resource| {
                let object = type_of(resource.schema.root(), 0, &mut Vec::new());
                let variables = Variables::over(policy, object);
                let why = expressions::check(source, &variables, params, wanted).err()?;
                let kind = &resource.kind.kind;
                Some(format!("{}, Kind={kind}: {why}", resource.api_version))
            });
            let faults: Vec<String> = faults.collect();
            if !faults.is_empty() {
                out.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"),
                    "warning": faults.join("\n"),
                }));
            }
        }
    }
    out
}

/// The kinds that a policy names, without wildcards.
fn kinds(api: &Api, policy: &Value) -> Vec<Arc<Resource>> {
    let mut out = Vec::new();
    for rule in value::list(policy, "spec.matchConstraints.resourceRules") {
        let texts = |field: &str| value::list(rule, field).iter().filter_map(Value::as_str);
        for group in texts("apiGroups") {
            for version in texts("apiVersions") {
                let found = texts("resources")
                    .filter_map(|plural| api.registry.find(group, version, plural));
                out.extend(found);
            }
        }
    }
    out.truncate(KINDS_MAX);
    out
}

/// The type of a shape; `around` are the names of those that it stands in.
fn type_of(node: Node<'_>, depth: usize, around: &mut Vec<String>) -> Type {
    if depth > DEPTH_MAX {
        return Type::Dyn;
    }
    match node.ty() {
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Quantity => Type::STRING,
            Scalar::Bytes => Type::BYTES,
            Scalar::Int32 | Scalar::Int64 => Type::Int,
            Scalar::Number => Type::Double,
            Scalar::Bool => Type::Bool,
            Scalar::IntOrString | Scalar::Int64OrString | Scalar::Any => Type::Dyn,
            Scalar::Time | Scalar::MicroTime => Type::Timestamp,
        },
        Shape::List(list) => Type::list(type_of(node.to(list.item), depth + 1, around)),
        Shape::Map(map) => Type::map(Type::STRING, type_of(node.to(map.value), depth + 1, around)),
        Shape::Object(object) if object.keeps_unknown => Type::Dyn,
        Shape::Object(object) => {
            let name = object.name.to_string();
            if !name.is_empty() && around.contains(&name) {
                return Type::Dyn;
            }
            around.push(name.clone());
            let fields = object.fields.iter().map(|field| {
                let ty = type_of(node.to(field.ty), depth + 1, around);
                (field.name.to_string(), ty)
            });
            let fields: Vec<(String, Type)> = fields.collect();
            around.pop();
            let shown = if name.is_empty() {
                format!("object{depth}")
            } else {
                name
            };
            Type::object(&shown, fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn expressions_over_known_kinds_are_typed() {
        let registry = Registry::builtin().unwrap();
        let deployments = registry.find("apps", "v1", "deployments").unwrap();
        let object = type_of(deployments.schema.root(), 0, &mut Vec::new());
        let variables = Variables::over(&json!({}), object);
        let check = |source: &str| expressions::check(source, &variables, false, Wanted::Bool);
        assert!(check("object.spec.replicas > 1").is_ok());
        assert!(check("object.spec.template.spec.containers.all(c, c.image != '')").is_ok());
        let why = check("object.spec.replicas > '1'").unwrap_err();
        assert!(
            why.contains("found no matching overload for '_>_' applied to '(int, string)'"),
            "{why}"
        );
        assert!(
            check("object.spec.nosuch == 1")
                .unwrap_err()
                .contains("undefined field 'nosuch'")
        );
    }
}
