//! Expressions over writes: the variables of match conditions and of policies, their types and
//! their values.
//!
//! `object`, `oldObject`, `params` and `namespaceObject` are of no known type: an expression over
//! them is checked when it is evaluated. `request` and `variables` are typed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use peapod_cel::eval::{Bindings, Lazy};
use peapod_cel::{Budget, Env, EvalError, ObjectType, Program, Type, Value as CelValue};
use serde_json::Value;

use crate::registry::value;

/// What evaluating all expressions of one policy, or of one webhook's conditions, may cost.
pub const BUDGET: u64 = 10_000_000;
/// What evaluating one expression may cost.
pub const CALL_MAX: u64 = 1_000_000;
/// The worst that one expression may cost, where that is known.
const ESTIMATE_MAX: u64 = 10_000_000;

/// What an expression must be worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A boolean.
    Bool,
    /// A text.
    Text,
    /// A text, or null.
    TextOrNull,
    /// A list of `JSONPatch`.
    Patches,
    /// An `Object`.
    Object,
}

/// The variables that a policy declares, compiled in their order.
#[derive(Debug, Default)]
pub struct Variables {
    /// The type of the object, where it is known.
    object: Option<Type>,
    programs: Vec<(String, Program)>,
    faults: Vec<(usize, String)>,
    types: BTreeMap<String, Type>,
}

// === impl Variables ===

impl Variables {
    /// Compiles the variables of a policy; each sees those before it.
    pub fn of(policy: &Value) -> Self {
        Self::compiled(policy, Self::default())
    }

    /// As [`Self::of`], over objects of a known type.
    pub fn over(policy: &Value, object: Type) -> Self {
        let typed = Self {
            object: Some(object),
            ..Self::default()
        };
        Self::compiled(policy, typed)
    }

    fn compiled(policy: &Value, mut all: Self) -> Self {
        let params = value::at(policy, "spec.paramKind").is_some();
        for (index, variable) in value::list(policy, "spec.variables").iter().enumerate() {
            let name = value::text(variable, "name");
            match compile(value::text(variable, "expression"), &env(&all, params)) {
                Ok(program) => {
                    all.types.insert(name.to_owned(), program.result().clone());
                    all.programs.push((name.to_owned(), program));
                }
                Err(why) => all.faults.push((index, why)),
            }
        }
        all
    }

    /// The variables that cannot be compiled, by place, and why.
    pub fn faults(&self) -> impl Iterator<Item = &(usize, String)> {
        self.faults.iter()
    }
}

/// The environment of a policy's expressions.
fn env(variables: &Variables, params: bool) -> Env {
    let types = variables
        .types
        .iter()
        .map(|(name, ty)| (name.clone(), ty.clone()));
    let mut env = conditions_env()
        .with("namespaceObject", Type::Dyn)
        .with("variables", Type::object("variables", types));
    if params {
        env = env.with("params", Type::Dyn);
    }
    if let Some(object) = &variables.object {
        env = env
            .with("object", object.clone())
            .with("oldObject", object.clone());
    }
    let patch = ["op", "path", "from"].map(|field| (field.to_owned(), Type::STRING));
    let patch = patch.into_iter().chain([("value".to_owned(), Type::Dyn)]);
    env.objects.insert(
        "JSONPatch".to_owned(),
        Arc::new(ObjectType {
            name: "JSONPatch".to_owned(),
            fields: patch.collect(),
            open: false,
        }),
    );
    env.objects.insert(
        "Object".to_owned(),
        Arc::new(ObjectType {
            name: "Object".to_owned(),
            fields: BTreeMap::new(),
            open: true,
        }),
    );
    env
}

/// The environment of match conditions.
fn conditions_env() -> Env {
    let text = |names: &[&str]| -> Vec<(String, Type)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Type::STRING))
            .collect()
    };
    let gvk = Type::object(
        "kubernetes.GroupVersionKind",
        text(&["group", "version", "kind"]),
    );
    let gvr = Type::object(
        "kubernetes.GroupVersionResource",
        text(&["group", "version", "resource"]),
    );
    let mut user = text(&["username", "uid"]);
    user.push(("groups".to_owned(), Type::list(Type::STRING)));
    user.push((
        "extra".to_owned(),
        Type::map(Type::STRING, Type::list(Type::STRING)),
    ));
    let mut request = text(&[
        "subResource",
        "requestSubResource",
        "name",
        "namespace",
        "operation",
        "uid",
    ]);
    for (field, ty) in [
        ("kind", &gvk),
        ("requestKind", &gvk),
        ("resource", &gvr),
        ("requestResource", &gvr),
        ("userInfo", &Type::object("kubernetes.UserInfo", user)),
        ("dryRun", &Type::Bool),
        ("options", &Type::Dyn),
    ] {
        request.push((field.to_owned(), ty.clone()));
    }
    Env::default()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with(
            "request",
            Type::object("kubernetes.AdmissionRequest", request),
        )
        .with(
            "authorizer",
            Type::Opaque("kubernetes.authorization.Authorizer"),
        )
}

fn compile(source: &str, env: &Env) -> Result<Program, String> {
    let program =
        Program::compile(source, env).map_err(|fault| format!("compilation failed: {fault}"))?;
    // Over values of no known size nothing is known; those are bounded when they are evaluated.
    let known = program.worst_cost() < u64::from(u32::MAX);
    if known && program.worst_cost() > ESTIMATE_MAX {
        return Err(
            "estimated cost of the expression exceeds its budget (try simplifying it)".to_owned(),
        );
    }
    Ok(program)
}

fn is_wanted(found: &Type, wanted: Wanted) -> Result<(), String> {
    let (fits, name) = match wanted {
        Wanted::Bool => (matches!(found, Type::Bool), "bool"),
        Wanted::Text => (matches!(found, Type::String(_)), "string"),
        Wanted::TextOrNull => (
            matches!(found, Type::String(_) | Type::Null),
            "string or null",
        ),
        Wanted::Patches => (matches!(found, Type::List(..)), "[]JSONPatch"),
        Wanted::Object => (matches!(found, Type::Object(_)), "Object"),
    };
    match fits || found.is_dyn() {
        true => Ok(()),
        false => Err(format!("must evaluate to {name}")),
    }
}

/// Compiles an expression of a policy.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(
    source: &str,
    scope: &Variables,
    params: bool,
    wanted: Wanted,
) -> Result<Program, String> {
    let program = compile(source, &env(scope, params))?;
    is_wanted(program.result(), wanted)?;
    Ok(program)
}

/// Compiles a match condition, of a policy or of a webhook.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_condition(source: &str, policy: bool) -> Result<Program, String> {
    let env = match policy {
        true => env(&Variables::default(), true),
        false => conditions_env(),
    };
    let program = compile(source, &env)?;
    is_wanted(program.result(), Wanted::Bool)?;
    Ok(program)
}

/// The values of one write, for all expressions over it.
#[derive(Clone)]
pub struct Subject {
    /// The new object; null on deletions.
    pub object: CelValue,
    /// The old one; null on creations.
    pub old: CelValue,
    /// The request.
    pub request: CelValue,
    /// Its namespace; null for cluster-scoped objects.
    pub namespace: CelValue,
    /// Who may do what.
    pub authorizer: CelValue,
}

// === impl Subject ===

impl Subject {
    fn bindings(&self) -> Bindings<'static> {
        Bindings::default()
            .with("object", self.object.clone())
            .with("oldObject", self.old.clone())
            .with("request", self.request.clone())
            .with("namespaceObject", self.namespace.clone())
            .with("authorizer", self.authorizer.clone())
    }
}

/// The evaluation of one policy over one write, with one parameter.
pub struct Evaluation<'a> {
    subject: &'a Subject,
    params: CelValue,
    variables: &'a Variables,
    found: RefCell<BTreeMap<String, Result<CelValue, EvalError>>>,
    budget: RefCell<Budget>,
}

// === impl Evaluation ===

impl<'a> Evaluation<'a> {
    /// Over a write.
    pub fn new(subject: &'a Subject, variables: &'a Variables, params: CelValue) -> Self {
        Self {
            subject,
            params,
            variables,
            found: RefCell::default(),
            budget: RefCell::new(Budget::new(BUDGET, CALL_MAX)),
        }
    }

    /// What an expression is worth.
    ///
    /// # Errors
    /// [`EvalError`] where it has no value, or costs too much.
    pub fn eval(&self, program: &Program) -> Result<CelValue, EvalError> {
        let mut bindings = self.subject.bindings();
        bindings = bindings.with("params", self.params.clone());
        let bindings: Bindings<'_> = bindings.with_lazy("variables", self);
        // A variable is evaluated inside of an expression, with what is left at its beginning.
        let mut budget = *self.budget.borrow();
        let outcome = program.eval(&bindings, &mut budget);
        let mut left = self.budget.borrow_mut();
        let spent = left.left().min(budget.left());
        *left = Budget::new(spent, CALL_MAX);
        outcome
    }
}

impl Lazy for Evaluation<'_> {
    fn field(&self, name: &str) -> Option<Result<CelValue, EvalError>> {
        if let Some(found) = self.found.borrow().get(name) {
            return Some(found.clone());
        }
        let (_, program) = self
            .variables
            .programs
            .iter()
            .find(|(variable, _)| variable == name)?;
        let outcome = self.eval(program);
        self.found
            .borrow_mut()
            .insert(name.to_owned(), outcome.clone());
        Some(outcome)
    }
}

/// Whether all conditions hold. `Err` is the first that has no value, when none is false.
pub fn all_hold(
    conditions: &[(String, Program)],
    subject: &Subject,
    params: CelValue,
) -> Result<bool, (String, EvalError)> {
    let none = Variables::default();
    let evaluation = Evaluation::new(subject, &none, params);
    let mut failed = None;
    for (name, program) in conditions {
        match evaluation.eval(program) {
            Ok(CelValue::Bool(true)) => {}
            Ok(CelValue::Bool(false)) => return Ok(false),
            Ok(_) => {
                let fault = EvalError::Fault("the condition is no bool".to_owned());
                failed.get_or_insert((name.clone(), fault));
            }
            Err(fault) => {
                failed.get_or_insert((name.clone(), fault));
            }
        }
    }
    failed.map_or(Ok(true), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subject() -> Subject {
        Subject {
            object: CelValue::of_json(&json!({"spec": {"replicas": 7}})),
            old: CelValue::Null,
            request: CelValue::of_json(
                &json!({"operation": "CREATE", "userInfo": {"groups": ["a"]}}),
            ),
            namespace: CelValue::Null,
            authorizer: CelValue::Null,
        }
    }

    #[test]
    fn variables_are_evaluated_once_and_when_asked_for() {
        let policy = json!({"spec": {"paramKind": {"kind": "x"}, "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "int(variables.replicas) * 2"},
            {"name": "bad", "expression": "object.nosuch.field"},
        ]}});
        let variables = Variables::of(&policy);
        assert_eq!(variables.faults().count(), 0);
        let subject = subject();
        let params = CelValue::of_json(&json!({"max": 10}));
        let evaluation = Evaluation::new(&subject, &variables, params);
        let worth = |source: &str| {
            let program = check(source, &variables, true, Wanted::Bool).unwrap();
            evaluation
                .eval(&program)
                .map(|value| value.shown())
                .map_err(|fault| fault.to_string())
        };
        assert_eq!(worth("variables.twice > params.max"), Ok("true".to_owned()));
        assert_eq!(
            worth("request.operation == 'CREATE' && 'a' in request.userInfo.groups"),
            Ok("true".to_owned())
        );
        assert_eq!(
            worth("variables.bad == 1"),
            Err("no such key: nosuch".to_owned())
        );
        assert!(check("variables.nosuch == 1", &variables, true, Wanted::Bool).is_err());
        assert!(check("object.x", &variables, true, Wanted::Bool).is_ok());
        assert!(check("object.x + 'a'", &variables, true, Wanted::Bool).is_err());
        assert!(check("'a'", &variables, true, Wanted::Bool).is_err());
        assert!(
            check(
                "[JSONPatch{op: 'add', path: '/a', value: 1}]",
                &variables,
                false,
                Wanted::Patches
            )
            .is_ok()
        );
        assert!(
            check(
                "Object{spec: Object.spec{replicas: 1}}",
                &variables,
                false,
                Wanted::Object
            )
            .is_ok()
        );
    }
}
