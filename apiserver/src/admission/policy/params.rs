//! The objects that a binding names as parameters.

use peapod_cel::Value as CelValue;
use peapod_store::Scope;
use serde_json::Value;

use crate::api::Api;
use crate::registry::{checks, value};
use crate::rest::table;
use crate::storage;

/// Most parameters of one binding.
const PARAMS_MAX: usize = 1000;

/// `paramKind` of a policy.
#[derive(Clone, Debug)]
pub struct ParamKind {
    /// `v1`, `rules.example.com/v1`.
    pub api_version: String,
    /// `ConfigMap`
    pub kind: String,
}

/// Finds what a reference names; `namespace` is the write's. Nothing found is nothing to evaluate,
/// or a fault, as the reference says.
///
/// # Errors
/// Says why there are no parameters.
pub fn find(
    api: &Api,
    kind: &ParamKind,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<CelValue>, String> {
    if !reference.is_object() {
        return Ok(vec![CelValue::Null]);
    }
    let all = api.registry.all();
    let of_kind = |one: &&std::sync::Arc<crate::registry::Resource>| {
        one.api_version == kind.api_version && one.kind.kind == kind.kind
    };
    let Some(resource) = all.iter().find(of_kind) else {
        return Err(format!(
            "failed to configure policy: failed to find resource referenced by paramKind: '{}, Kind={}'",
            kind.api_version, kind.kind
        ));
    };
    let within = match (
        resource.kind.is_namespaced(),
        value::text(reference, "namespace"),
    ) {
        (false, "") => "",
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                    .to_owned(),
            );
        }
        (true, "") if namespace.is_empty() => {
            return Err("failed to configure binding: cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => namespace,
        (true, own) => own,
    };
    let decoded = |bytes: &[u8]| table::decode(resource, bytes).ok();
    let found: Vec<Value> = match value::text(reference, "name") {
        "" => {
            let selector = &reference["selector"];
            let scope = if within.is_empty() {
                Scope::All
            } else {
                Scope::Namespace(within)
            };
            let snapshot = api.store.snapshot(&storage::range(&resource.kind));
            let entries = snapshot.range(scope, None);
            let objects = entries.filter_map(|entry| decoded(&entry.value));
            let selected =
                objects.filter(|object| checks::selects(selector, &object["metadata"]["labels"]));
            selected.take(PARAMS_MAX).collect()
        }
        name => {
            let entry = storage::key(&resource.kind, within, name)
                .ok()
                .and_then(|key| api.store.get(&key));
            entry
                .and_then(|entry| decoded(&entry.value))
                .into_iter()
                .collect()
        }
    };
    if found.is_empty() && value::text(reference, "parameterNotFoundAction") != "Allow" {
        return Err("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.iter().map(CelValue::of_json).collect())
}
