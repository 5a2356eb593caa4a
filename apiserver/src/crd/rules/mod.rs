//! `x-kubernetes-validations`: the rules of a definition's schema, compiled once, bounded in what
//! they may cost, and evaluated over each object.

mod types;
mod values;

use std::collections::BTreeMap;

use peapod_cel::eval::Bindings;
use peapod_cel::{Budget, Env, EvalError, Program, Spent, Type, Value as CelValue};
use peapod_schema::custom::validate::correlated;
use peapod_schema::custom::{Additional, JsonType, ListType, Rule, Structural};
use serde_json::Value;

use crate::registry::{FieldError, FieldErrors};

/// The worst that one rule may cost, as often as it can run.
const RULE_MAX: u64 = 10_000_000;
/// The worst that all rules of a schema may cost.
const SCHEMA_MAX: u64 = 100_000_000;
/// What evaluating one rule may cost.
const CALL_MAX: u64 = 1_000_000;
/// What evaluating all rules of an object may cost.
const OBJECT_MAX: u64 = 10_000_000;
/// How many faults of one object are told.
const FAULTS_MAX: usize = 100;

/// The compiled rules of a schema and of its parts.
#[derive(Debug, Default)]
pub struct Rules {
    here: Vec<Compiled>,
    fields: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Program,
    message: Option<Program>,
    /// Whether it compares with the value before.
    transition: bool,
}

// === impl Rules ===

impl Rules {
    /// Compiles the rules of a schema. What cannot be compiled is told in `errors`, at places
    /// below `path`, and left out.
    pub fn compile(schema: &Structural, path: &str, errors: &mut FieldErrors) -> Self {
        let mut compiler = Compiler { errors, total: 0 };
        let place = Place {
            path: path.to_owned(),
            times: 1,
            correlates: true,
            root: true,
        };
        let rules = compiler.schema(schema, &place);
        if compiler.total > SCHEMA_MAX {
            let what =
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            let why = too_costly(what, compiler.total, SCHEMA_MAX);
            errors.push(FieldError::forbidden(path, why));
        }
        rules.unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.fields.is_empty()
            && self.values.is_none()
            && self.items.is_none()
    }

    /// Evaluates the rules over an object.
    pub fn check(
        &self,
        new: &Value,
        old: Option<&Value>,
        schema: &Structural,
        errors: &mut FieldErrors,
    ) {
        if self.is_empty() {
            return;
        }
        let mut run = Run {
            errors,
            budget: Budget::new(OBJECT_MAX, CALL_MAX),
            faults: 0,
            spent: false,
        };
        run.value(self, new, old, schema, String::new());
    }
}

/// Where in a schema the compiler is.
struct Place {
    path: String,
    /// How often a rule here may run.
    times: u64,
    /// Whether the value before is known.
    correlates: bool,
    root: bool,
}

struct Compiler<'a> {
    errors: &'a mut FieldErrors,
    total: u64,
}

impl Compiler<'_> {
    /// `None` where there are no rules.
    fn schema(&mut self, schema: &Structural, place: &Place) -> Option<Rules> {
        let mut rules = Rules::default();
        if !schema.rules.is_empty() {
            let ty = types::of(schema, place.root);
            for (index, rule) in schema.rules.iter().enumerate() {
                let path = format!("{}.x-kubernetes-validations[{index}]", place.path);
                rules.here.extend(self.rule(rule, &ty, place, &path));
            }
        }
        let mut below = |inner: &Structural, step: &str, times: u64, correlates: bool| {
            if !inner.has_rules() {
                return None;
            }
            let place = Place {
                path: format!("{}.{step}", place.path),
                times: place.times.saturating_mul(times),
                correlates: place.correlates && correlates,
                root: false,
            };
            self.schema(inner, &place)
        };
        for (name, field) in &schema.properties {
            let compiled = below(field, &format!("properties[{name}]"), 1, true);
            rules
                .fields
                .extend(compiled.map(|compiled| (name.clone(), compiled)));
        }
        if let Additional::Of(values) = &schema.additional {
            let times = types::of(schema, false).size();
            rules.values = below(values, "additionalProperties", times, true).map(Box::new);
        }
        if let Some(item) = schema.items.as_deref() {
            let times = types::of(schema, false).size();
            let correlates = matches!(schema.list, ListType::Map(_));
            rules.items = below(item, "items", times, correlates).map(Box::new);
        }
        (!rules.is_empty()).then_some(rules)
    }

    fn rule(&mut self, rule: &Rule, ty: &Type, place: &Place, path: &str) -> Option<Compiled> {
        let at = format!("{path}.rule");
        if rule.rule.trim().is_empty() {
            self.errors
                .push(FieldError::required(at, "rule is not specified"));
            return None;
        }
        let old = match rule.optional_old_self {
            true => Type::optional(ty.clone()),
            false => ty.clone(),
        };
        let env = Env::default().with("self", ty.clone()).with("oldSelf", old);
        let program = self.program(&rule.rule, &env, &at, place.times)?;
        if !matches!(program.result(), Type::Bool | Type::Dyn) {
            let why = "cel expression must evaluate to a bool";
            self.errors
                .push(FieldError::invalid(&at, rule.rule.as_str(), why));
            return None;
        }
        let transition = program.names("oldSelf");
        if transition && !place.correlates {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            self.errors
                .push(FieldError::invalid(&at, rule.rule.as_str(), why));
            return None;
        }
        let message = match rule.message_expression.as_str() {
            "" => None,
            source => {
                let at = format!("{path}.messageExpression");
                let program = self.program(source, &env, &at, place.times)?;
                if !matches!(program.result(), Type::String(_) | Type::Dyn) {
                    let why = "messageExpression must evaluate to a string";
                    self.errors.push(FieldError::invalid(&at, source, why));
                }
                Some(program)
            }
        };
        self.total = self
            .total
            .saturating_add(program.worst_cost().saturating_mul(place.times));
        Some(Compiled {
            rule: rule.clone(),
            program,
            message,
            transition,
        })
    }

    fn program(&mut self, source: &str, env: &Env, at: &str, times: u64) -> Option<Program> {
        let program = match Program::compile(source, env) {
            Ok(program) => program,
            Err(fault) => {
                let why = format!("compilation failed: {fault}");
                self.errors.push(FieldError::invalid(at, source, why));
                return None;
            }
        };
        let cost = program.worst_cost().saturating_mul(times);
        if cost > RULE_MAX {
            let why = too_costly("estimated rule cost", cost, RULE_MAX);
            self.errors.push(FieldError::forbidden(at, why));
        }
        Some(program)
    }
}

fn too_costly(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let by = match factor {
        100.0.. => " by factor of more than 100x".to_owned(),
        1.5.. => format!(" by factor of {factor:.1}x"),
        _ => String::new(),
    };
    format!(
        "{what} exceeds budget{by} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// One evaluation of all rules over an object.
struct Run<'a> {
    errors: &'a mut FieldErrors,
    budget: Budget,
    faults: usize,
    spent: bool,
}

impl Run<'_> {
    fn value(
        &mut self,
        rules: &Rules,
        new: &Value,
        old: Option<&Value>,
        schema: &Structural,
        path: String,
    ) {
        // What did not change is not held against the new object.
        if self.spent || self.faults >= FAULTS_MAX || new.is_null() || old == Some(new) {
            return;
        }
        self.here(rules, new, old, schema, &path);
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let (inner, known) = match (rules.fields.get(name), schema.properties.get(name))
                    {
                        (Some(inner), _) => (inner, schema.properties.get(name)),
                        (None, Some(_)) => continue,
                        (None, None) => match &rules.values {
                            Some(inner) => (&**inner, schema.child(name)),
                            None => continue,
                        },
                    };
                    let Some(known) = known else {
                        continue;
                    };
                    let before = old.and_then(|old| old.get(name));
                    let step = match schema.properties.contains_key(name) {
                        true if path.is_empty() => name.clone(),
                        true => format!("{path}.{name}"),
                        false => format!("{path}[{name}]"),
                    };
                    self.value(inner, value, before, known, step);
                }
            }
            Value::Array(items) => {
                let (Some(inner), Some(known)) = (&rules.items, schema.items.as_deref()) else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    let before = correlated(item, old, schema);
                    self.value(inner, item, before, known, format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn here(
        &mut self,
        rules: &Rules,
        new: &Value,
        old: Option<&Value>,
        schema: &Structural,
        path: &str,
    ) {
        if rules.here.is_empty() {
            return;
        }
        let root = path.is_empty();
        let value = values::of(new, schema, root);
        let before = old
            .filter(|old| !old.is_null())
            .map(|old| values::of(old, schema, root));
        for compiled in &rules.here {
            let old = match (&before, compiled.rule.optional_old_self) {
                (Some(before), true) => CelValue::some(before.clone()),
                (None, true) => CelValue::Optional(None),
                (Some(before), false) => before.clone(),
                (None, false) if compiled.transition => continue,
                (None, false) => CelValue::Null,
            };
            let bindings = Bindings::default()
                .with("self", value.clone())
                .with("oldSelf", old);
            match compiled.program.eval(&bindings, &mut self.budget) {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => {
                    let message = self.message(compiled, &bindings);
                    self.tell(compiled, schema, path, message);
                }
                Err(EvalError::Spent(spent)) => {
                    self.spent |= spent == Spent::All;
                    self.tell(compiled, schema, path, format!("{spent}"));
                }
                Err(fault) => {
                    let message = format!(
                        "{fault} evaluating rule: {}",
                        default_message(&compiled.rule)
                    );
                    self.tell(compiled, schema, path, message);
                }
            }
            if self.spent {
                return;
            }
        }
    }

    fn message(&mut self, compiled: &Compiled, bindings: &Bindings<'_>) -> String {
        let made = compiled
            .message
            .as_ref()
            .map(|program| program.eval(bindings, &mut self.budget));
        match made {
            Some(Ok(CelValue::String(text))) if is_line(&text) => text.trim().to_owned(),
            _ => default_message(&compiled.rule),
        }
    }

    fn tell(&mut self, compiled: &Compiled, schema: &Structural, path: &str, message: String) {
        self.faults += 1;
        let mut place = format!("{path}{}", compiled.rule.field_path);
        if path.is_empty() {
            place = place.trim_start_matches('.').to_owned();
        }
        if place.is_empty() {
            place = "<nil>".to_owned();
        }
        let shown = schema.ty.map_or("", JsonType::as_str);
        self.errors.push(match compiled.rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(place, message),
            "FieldValueRequired" => FieldError::required(place, message),
            "FieldValueDuplicate" => FieldError::duplicate(place, shown),
            _ => FieldError::invalid(place, shown, message),
        });
    }
}

fn is_line(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && !text.contains('\n') && text.len() <= 5 * 1024
}

fn default_message(rule: &Rule) -> String {
    match rule.message.as_str() {
        "" => format!("failed rule: {}", rule.rule.trim()),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compiled(schema: &Value) -> (Structural, Rules, String) {
        let schema = Structural::of(schema);
        let mut errors = FieldErrors::new();
        let rules = Rules::compile(&schema, "S", &mut errors);
        (schema, rules, errors.to_string())
    }

    fn spec(schema: Value) -> Value {
        json!({"type": "object", "properties": {"spec": schema}})
    }

    #[test]
    fn rules_are_evaluated() {
        let (schema, rules, refused) = compiled(&spec(json!({
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min is too large"},
                {"rule": "self.min == oldSelf.min", "messageExpression": "'min was %d'.format([oldSelf.min])"},
                {"rule": "self.__namespace__ != 'x'", "reason": "FieldValueForbidden", "fieldPath": ".namespace"},
            ],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "namespace": {"type": "string"},
                "at": {"type": "string", "format": "date-time", "x-kubernetes-validations": [
                    {"rule": "self > timestamp('2020-01-01T00:00:00Z')"}]},
                "list": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5,
                    "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}},
            },
        })));
        assert_eq!(refused, "[]");
        let told = |new: Value, old: Option<Value>| {
            let mut errors = FieldErrors::new();
            let old = old.map(|old| json!({"spec": old}));
            rules.check(&json!({"spec": new}), old.as_ref(), &schema, &mut errors);
            errors.to_string()
        };
        let good = json!({"min": 1, "max": 2, "namespace": "y", "at": "2021-01-01T00:00:00Z", "list": ["ab"]});
        assert_eq!(told(good.clone(), None), "[]");
        let mut bad = good.clone();
        bad["max"] = 0.into();
        assert_eq!(
            told(bad, None),
            r#"spec: Invalid value: "object": min is too large"#
        );
        let mut changed = good.clone();
        changed["min"] = 2.into();
        assert_eq!(
            told(changed, Some(good.clone())),
            r#"spec: Invalid value: "object": min was 1"#
        );
        let mut bad = good.clone();
        bad["namespace"] = "x".into();
        bad["list"] = json!(["b"]);
        assert_eq!(
            told(bad, None),
            r#"[spec.namespace: Forbidden: failed rule: self.__namespace__ != 'x', spec.list[0]: Invalid value: "string": failed rule: self.startsWith('a')]"#
        );
    }

    #[test]
    fn what_is_wrong_or_too_costly_is_refused() {
        let string = json!({"type": "string"});
        for (schema, expected) in [
            (
                spec(
                    json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.nosuch == 1"}]}),
                ),
                "undefined field 'nosuch'",
            ),
            (
                spec(
                    json!({"type": "object", "properties": {"a": string}, "x-kubernetes-validations": [{"rule": "self.a"}]}),
                ),
                "cel expression must evaluate to a bool",
            ),
            (
                spec(
                    json!({"type": "array", "items": string, "x-kubernetes-validations": [
                    {"rule": "self.all(x, self.all(y, x == y))"}]}),
                ),
                "S.properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
            ),
            (
                spec(
                    json!({"type": "array", "maxItems": 3, "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
                ),
                "oldSelf cannot be used on the uncorrelatable portion of the schema",
            ),
        ] {
            let (_, _, refused) = compiled(&schema);
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
