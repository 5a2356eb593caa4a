//! `ValidatingAdmissionPolicy`: refuses, warns of, or records what does not hold.

use async_trait::async_trait;
use peapod_cel::Value as CelValue;
use serde_json::Value;

use super::compiled::Validation;
use super::{Bound, Policies};
use crate::admission::expressions::{Evaluation, all_hold};
use crate::admission::{Attributes, Plugin};
use crate::api::Api;
use crate::registry::value;
use crate::status::{Result, Status};

/// Longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;

/// The plugin.
pub struct Validating(Policies);

/// What does not hold.
struct Finding {
    message: String,
    reason: String,
}

impl Default for Validating {
    fn default() -> Self {
        let bindings = "validatingadmissionpolicybindings";
        Self(Policies::new("validatingadmissionpolicies", bindings))
    }
}

#[async_trait]
impl Plugin for Validating {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        for pair in self.0.pairs(api) {
            let Some(bound) = pair.bound(api, write, object) else {
                continue;
            };
            for finding in findings(api, write, &bound) {
                act(write, &bound, &finding)?;
            }
        }
        Ok(())
    }
}

fn findings(api: &Api, write: &Attributes<'_>, bound: &Bound) -> Vec<Finding> {
    let fault = |message: String| match bound.policy.ignores_faults {
        true => Vec::new(),
        false => vec![Finding {
            message,
            reason: String::new(),
        }],
    };
    if let Some(why) = bound.policy.faults.first() {
        return fault(why.clone());
    }
    let params = match bound.params(api, write) {
        Ok(params) => params,
        Err(why) => return fault(why),
    };
    let mut out = Vec::new();
    for one in params {
        match all_hold(&bound.policy.conditions, &bound.subject, one.clone()) {
            Ok(true) => out.extend(evaluate(bound, one)),
            Ok(false) => {}
            Err((name, why)) => out.extend(fault(format!(
                "matchCondition {name:?} could not be evaluated: {why}"
            ))),
        }
    }
    out
}

fn evaluate(bound: &Bound, params: CelValue) -> Vec<Finding> {
    let policy = &bound.policy;
    let evaluation = Evaluation::new(&bound.subject, &policy.variables, params);
    let mut out = Vec::new();
    for validation in &policy.validations {
        let message = match evaluation.eval(&validation.program) {
            Ok(CelValue::Bool(true)) => continue,
            Ok(_) => message(validation, &evaluation),
            Err(_) if policy.ignores_faults => continue,
            Err(why) => format!(
                "expression '{}' resulted in error: {why}",
                validation.source.trim()
            ),
        };
        let reason = validation.reason.clone();
        out.push(Finding { message, reason });
    }
    for (key, program) in &policy.annotations {
        if let Ok(CelValue::String(text)) = evaluation.eval(program) {
            let policy = &bound.policy_name;
            tracing::info!(target: "audit", annotation = format!("{policy}/{key}"), value = &*text, "audit annotation");
        }
    }
    out
}

fn message(validation: &Validation, evaluation: &Evaluation<'_>) -> String {
    let made = validation
        .message_program
        .as_ref()
        .map(|program| evaluation.eval(program));
    if let Some(Ok(CelValue::String(text))) = made {
        let text = text.trim();
        if !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_MAX {
            return text.to_owned();
        }
    }
    match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.source.trim()),
        message => message.to_owned(),
    }
}

/// What a binding does with a finding.
fn act(write: &Attributes<'_>, bound: &Bound, finding: &Finding) -> Result<()> {
    let (policy, binding) = (&bound.policy_name, bound.binding_name());
    for action in value::list(&bound.binding, "spec.validationActions")
        .iter()
        .filter_map(Value::as_str)
    {
        match action {
            "Deny" => {
                let why = format!(
                    "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
                    finding.message
                );
                let reason = match finding.reason.as_str() {
                    "" => "Invalid",
                    reason => reason,
                };
                return Err(Status::refused_by_policy(write.forbid(&why), reason, &why));
            }
            "Warn" => crate::warnings::add(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                finding.message
            )),
            _ => {
                tracing::info!(target: "audit", policy, binding, message = finding.message, "validation.policy.admission.k8s.io/validation_failure")
            }
        }
    }
    Ok(())
}
