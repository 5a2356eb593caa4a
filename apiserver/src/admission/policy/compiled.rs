//! A policy that is ready to be evaluated.

use peapod_cel::Program;
use serde_json::Value;

use super::params::ParamKind;
use crate::admission::expressions::{self, Variables, Wanted};
use crate::registry::value;

/// A compiled policy, of either kind.
pub struct Compiled {
    /// The kind of its parameters, if it has some.
    pub param_kind: Option<ParamKind>,
    /// Whether a fault lets the write pass.
    pub ignores_faults: bool,
    /// The conditions under which it is evaluated.
    pub conditions: Vec<(String, Program)>,
    /// Its variables.
    pub variables: Variables,
    /// What must hold.
    pub validations: Vec<Validation>,
    /// What is changed.
    pub mutations: Vec<Mutation>,
    /// What goes into the audit log: key and value.
    pub annotations: Vec<(String, Program)>,
    /// Why it cannot be evaluated.
    pub faults: Vec<String>,
    /// Whether it wishes to see what others changed after it.
    pub reinvoked: bool,
}

/// What must hold.
pub struct Validation {
    /// The expression as it was written.
    pub source: String,
    /// The expression.
    pub program: Program,
    /// What is told when it is false.
    pub message: String,
    /// The expression that makes that text.
    pub message_program: Option<Program>,
    /// `Invalid` and the like; empty for that.
    pub reason: String,
}

/// What is changed.
pub struct Mutation {
    /// The expression.
    pub program: Program,
    /// Whether it is worth a list of `JSONPatch`; else an `Object` that is merged in.
    pub is_patch: bool,
}

// === impl Compiled ===

impl Compiled {
    /// Compiles a policy. What was accepted when it was written compiles.
    pub fn of(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let text = |value: &Value, field: &str| value::text(value, field).to_owned();
        let param_kind = value::at(spec, "paramKind").map(|kind| ParamKind {
            api_version: text(kind, "apiVersion"),
            kind: text(kind, "kind"),
        });
        let variables = Variables::of(policy);
        let mut faults: Vec<String> = variables.faults().map(|(_, why)| why.clone()).collect();
        let params = param_kind.is_some();
        let mut compile =
            |source: &str, wanted| match expressions::check(source, &variables, params, wanted) {
                Ok(program) => Some(program),
                Err(why) => {
                    faults.push(why);
                    None
                }
            };
        let validations = value::list(spec, "validations").iter().filter_map(|one| {
            let message = value::text(one, "messageExpression");
            Some(Validation {
                source: text(one, "expression"),
                program: compile(value::text(one, "expression"), Wanted::Bool)?,
                message: text(one, "message"),
                message_program: match message {
                    "" => None,
                    source => compile(source, Wanted::Text),
                },
                reason: text(one, "reason"),
            })
        });
        let validations = validations.collect();
        let mutations = value::list(spec, "mutations").iter().filter_map(|one| {
            let is_patch = value::text(one, "patchType") == "JSONPatch";
            let (path, wanted) = match is_patch {
                true => ("jsonPatch.expression", Wanted::Patches),
                false => ("applyConfiguration.expression", Wanted::Object),
            };
            let program = compile(value::text(one, path), wanted)?;
            Some(Mutation { program, is_patch })
        });
        let mutations = mutations.collect();
        let annotations = value::list(spec, "auditAnnotations")
            .iter()
            .filter_map(|one| {
                let program = compile(value::text(one, "valueExpression"), Wanted::TextOrNull)?;
                Some((text(one, "key"), program))
            });
        let annotations = annotations.collect();
        let mut conditions = Vec::new();
        for one in value::list(spec, "matchConditions") {
            match expressions::check_condition(value::text(one, "expression"), true) {
                Ok(program) => conditions.push((text(one, "name"), program)),
                Err(why) => faults.push(why),
            }
        }
        Self {
            param_kind,
            ignores_faults: value::text(spec, "failurePolicy") == "Ignore",
            conditions,
            validations,
            mutations,
            annotations,
            faults,
            reinvoked: value::text(spec, "reinvocationPolicy") == "IfNeeded",
            variables,
        }
    }
}
