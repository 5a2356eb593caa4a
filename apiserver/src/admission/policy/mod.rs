//! Admission policies: expressions, kept in the API, that change or refuse writes.
//!
//! A policy says what it asks for and what must hold; a binding puts it to work, on a part of
//! that, with parameters from other objects. Policies are compiled once and evaluated within a
//! budget.

mod compiled;
mod mutating;
mod params;
pub mod typing;
mod validating;

use std::sync::Arc;

use peapod_cel::Value as CelValue;
use serde_json::Value;

use super::Attributes;
use super::collection::Collection;
use super::expressions::Subject;
use super::matching::Criteria;
use super::request::{self, asked};
use crate::api::Api;
use crate::registry::value;
use compiled::Compiled;
pub use mutating::Mutating;
pub use validating::Validating;

const GROUP: &str = "admissionregistration.k8s.io";

/// The policies of a kind, and what puts them to work.
struct Policies {
    policies: Collection<Vec<Policy>>,
    bindings: Collection<Vec<Arc<Value>>>,
}

/// A policy, compiled.
#[derive(Clone)]
struct Policy {
    object: Arc<Value>,
    compiled: Arc<Compiled>,
}

/// A policy at work: with one of its bindings.
struct Pair {
    policy: Policy,
    binding: Arc<Value>,
}

/// A policy that a write is judged by, through one binding.
struct Bound {
    policy: Arc<Compiled>,
    policy_name: String,
    binding: Arc<Value>,
    subject: Subject,
    namespace: Option<Value>,
}

fn compile_all(policies: Vec<Value>) -> Vec<Policy> {
    let compile = |object| Policy {
        compiled: Arc::new(Compiled::of(&object)),
        object: Arc::new(object),
    };
    policies.into_iter().map(compile).collect()
}

fn share_all(bindings: Vec<Value>) -> Vec<Arc<Value>> {
    bindings.into_iter().map(Arc::new).collect()
}

// === impl Policies ===

impl Policies {
    fn new(policies: &str, bindings: &str) -> Self {
        Self {
            policies: Collection::new(GROUP, policies, compile_all),
            bindings: Collection::new(GROUP, bindings, share_all),
        }
    }

    /// All policies at work, by name.
    fn pairs(&self, api: &Api) -> Vec<Pair> {
        let (Some(policies), Some(bindings)) = (self.policies.read(api), self.bindings.read(api))
        else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for policy in policies.iter() {
            let name = value::text(&policy.object, "metadata.name");
            let named = |binding: &&Arc<Value>| value::text(binding, "spec.policyName") == name;
            out.extend(bindings.iter().filter(named).map(|binding| Pair {
                policy: policy.clone(),
                binding: binding.clone(),
            }));
        }
        out
    }
}

// === impl Pair ===

impl Pair {
    /// The judgement of a write, when it is one that policy and binding ask for.
    fn bound(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Option<Bound> {
        let namespace = request::namespace(api, write);
        let within = namespace.as_ref();
        let constraints = Criteria::of_constraints(&self.policy.object["spec"]["matchConstraints"]);
        let matched = constraints.matched(&api.registry, write, object, within)?;
        let narrowed = Criteria::of_constraints(&self.binding["spec"]["matchResources"]);
        if !narrowed.narrows(write, object, within) {
            return None;
        }
        let asked = asked(write, object, &matched);
        Some(Bound {
            policy: self.policy.compiled.clone(),
            policy_name: value::text(&self.policy.object, "metadata.name").to_owned(),
            binding: self.binding.clone(),
            subject: request::subject(api, write, &asked, within),
            namespace,
        })
    }
}

// === impl Bound ===

impl Bound {
    fn binding_name(&self) -> &str {
        value::text(&self.binding, "metadata.name")
    }

    /// The parameters that the binding names: each one is an evaluation.
    fn params(&self, api: &Api, write: &Attributes<'_>) -> Result<Vec<CelValue>, String> {
        let Some(kind) = &self.policy.param_kind else {
            return Ok(vec![CelValue::Null]);
        };
        let namespace = self.namespace.as_ref().map_or("", |_| write.namespace);
        params::find(api, kind, &self.binding["spec"]["paramRef"], namespace)
    }
}
