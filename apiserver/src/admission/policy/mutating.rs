//! `MutatingAdmissionPolicy`: changes objects by patches or by what is merged into them.

use async_trait::async_trait;
use peapod_cel::{EvalError, Value as CelValue};
use peapod_schema::{apply, patch};
use serde_json::Value;

use super::compiled::Mutation;
use super::{Bound, Pair, Policies};
use crate::admission::expressions::{Evaluation, all_hold};
use crate::admission::webhook::settle;
use crate::admission::{Attributes, Plugin};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// The plugin.
pub struct Mutating(Policies);

impl Default for Mutating {
    fn default() -> Self {
        let bindings = "mutatingadmissionpolicybindings";
        Self(Policies::new("mutatingadmissionpolicies", bindings))
    }
}

#[async_trait]
impl Plugin for Mutating {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, object: &mut Value) -> Result<()> {
        if write.operation == crate::admission::Operation::Delete {
            return Ok(());
        }
        let pairs = self.0.pairs(api);
        // Each sees what those before it made; those that wish so, what later ones changed.
        let mut last_change = None;
        let mut wish = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            if change(api, write, object, pair)? {
                last_change = Some(index);
            }
            if pair.policy.compiled.reinvoked {
                wish.push(index);
            }
        }
        for index in wish {
            if last_change.is_some_and(|last| last > index) {
                change(api, write, object, &pairs[index])?;
            }
        }
        Ok(())
    }
}

/// Lets one policy change the object, once for each of its parameters; says whether it did.
fn change(api: &Api, write: &Attributes<'_>, object: &mut Value, pair: &Pair) -> Result<bool> {
    let Some(bound) = pair.bound(api, write, object) else {
        return Ok(false);
    };
    match try_change(api, write, object, &bound) {
        Ok(changed) => {
            let before = std::mem::replace(object, changed);
            settle(write, object)?;
            Ok(*object != before)
        }
        Err(why) if bound.policy.ignores_faults => {
            tracing::warn!(
                policy = bound.policy_name,
                why,
                "a policy failed, which it ignores"
            );
            Ok(false)
        }
        Err(why) => Err(write.forbid(format!(
            "policy '{}' with binding '{}' denied request: {why}",
            bound.policy_name,
            bound.binding_name()
        ))),
    }
}

fn try_change(
    api: &Api,
    write: &Attributes<'_>,
    object: &Value,
    bound: &Bound,
) -> Result<Value, String> {
    if let Some(why) = bound.policy.faults.first() {
        return Err(why.clone());
    }
    let mut out = object.clone();
    for params in bound.params(api, write)? {
        match all_hold(&bound.policy.conditions, &bound.subject, params.clone()) {
            Ok(true) => {}
            Ok(false) => continue,
            Err((name, why)) => {
                return Err(format!(
                    "matchCondition {name:?} could not be evaluated: {why}"
                ));
            }
        }
        for mutation in &bound.policy.mutations {
            let mut subject = bound.subject.clone();
            subject.object = CelValue::of_json(&out);
            let evaluation = Evaluation::new(&subject, &bound.policy.variables, params.clone());
            let found = evaluation
                .eval(&mutation.program)
                .map_err(|fault: EvalError| fault.to_string())?;
            out = mutated(write, out, mutation, &found)?;
        }
    }
    Ok(out)
}

fn mutated(
    write: &Attributes<'_>,
    object: Value,
    mutation: &Mutation,
    found: &CelValue,
) -> Result<Value, String> {
    let found = found
        .to_json()
        .ok_or("the expression is worth what has no JSON form")?;
    if mutation.is_patch {
        return patch::json(object, found).map_err(|fault| fault.to_string());
    }
    for field in ["apiVersion", "kind"] {
        if value::at(&found, field).is_some() && found[field] != object[field] {
            return Err(format!("applyConfiguration may not change {field}"));
        }
    }
    Ok(apply::merged(&object, &found, &write.resource.schema))
}
