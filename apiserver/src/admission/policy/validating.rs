//! `ValidatingAdmissionPolicy`: refuses, warns of, or records what does not hold.

use std::collections::BTreeMap;

use async_trait::async_trait;
use peapod_cel::Value as CelValue;
use serde_json::{Value, json};

use super::compiled::Validation;
use super::{Bound, Policies};
use crate::admission::expressions::{Evaluation, all_hold};
use crate::admission::{Attributes, Plugin};
use crate::api::Api;
use crate::registry::value;
use crate::remarks;
use crate::status::{Result, Status};

/// Longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;
/// The audit annotation of findings that are recorded.
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The plugin.
pub struct Validating(Policies);

/// What does not hold.
struct Finding {
    message: String,
    reason: String,
    /// Which of the policy's validations it is.
    index: usize,
}

/// What all policies make of a write.
#[derive(Default)]
struct Verdict {
    /// The first refusal.
    refusal: Option<Status>,
    /// Findings that are recorded only.
    failures: Vec<Value>,
    /// What the policies' audit annotations say.
    annotations: BTreeMap<String, Vec<String>>,
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
        let mut verdict = Verdict::default();
        for pair in self.0.pairs(api) {
            let Some(bound) = pair.bound(api, write, object) else {
                continue;
            };
            for finding in findings(api, write, &bound, &mut verdict) {
                act(write, &bound, &finding, &mut verdict);
            }
        }
        verdict.settle()
    }
}

// === impl Verdict ===

impl Verdict {
    /// Notes what a policy wants to be said of the write; several bindings may say several things.
    fn annotate(&mut self, key: String, text: &str) {
        let said = self.annotations.entry(key).or_default();
        if !said.iter().any(|known| known == text) {
            said.push(text.to_owned());
        }
    }

    /// Writes down what is to be recorded, and tells the first refusal.
    fn settle(self) -> Result<()> {
        for (key, said) in self.annotations {
            remarks::annotate(key, said.join(", "));
        }
        if !self.failures.is_empty() {
            remarks::annotate(FAILURE, Value::Array(self.failures).to_string());
        }
        self.refusal.map_or(Ok(()), Err)
    }
}

fn findings(
    api: &Api,
    write: &Attributes<'_>,
    bound: &Bound,
    verdict: &mut Verdict,
) -> Vec<Finding> {
    let fault = |message: String| match bound.policy.ignores_faults {
        true => Vec::new(),
        false => vec![Finding {
            message,
            reason: String::new(),
            index: 0,
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
            Ok(true) => out.extend(evaluate(bound, one, verdict)),
            Ok(false) => {}
            Err((name, why)) => out.extend(fault(format!(
                "matchCondition {name:?} could not be evaluated: {why}"
            ))),
        }
    }
    out
}

fn evaluate(bound: &Bound, params: CelValue, verdict: &mut Verdict) -> Vec<Finding> {
    let policy = &bound.policy;
    let evaluation = Evaluation::new(&bound.subject, &policy.variables, params);
    let mut out = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
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
        out.push(Finding {
            message,
            reason,
            index,
        });
    }
    for (key, program) in &policy.annotations {
        if let Ok(CelValue::String(text)) = evaluation.eval(program) {
            verdict.annotate(format!("{}/{key}", bound.policy_name), &text);
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
fn act(write: &Attributes<'_>, bound: &Bound, finding: &Finding, verdict: &mut Verdict) {
    let (policy, binding) = (&bound.policy_name, bound.binding_name());
    let message = &finding.message;
    let actions = value::list(&bound.binding, "spec.validationActions");
    for action in actions.iter().filter_map(Value::as_str) {
        match action {
            "Deny" => {
                let why = format!(
                    "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"
                );
                let reason = match finding.reason.as_str() {
                    "" => "Invalid",
                    reason => reason,
                };
                let refusal = || Status::refused_by_policy(write.forbid(&why), reason, &why);
                verdict.refusal.get_or_insert_with(refusal);
            }
            "Warn" => remarks::warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
            )),
            _ => verdict.failures.push(json!({
                "message": message,
                "policy": policy,
                "binding": binding,
                "expressionIndex": finding.index,
                "validationActions": actions,
            })),
        }
    }
}
