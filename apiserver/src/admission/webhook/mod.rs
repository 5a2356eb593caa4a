//! Admission webhooks: other servers that change or refuse writes.
//!
//! Mutating ones run one after the other, each on what the last one made, and those that wish so
//! once more when a later one changed something. Validating ones run at the same time, and the
//! first refusal counts. One that does not answer in its time fails by its policy.

mod review;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use peapod_cel::{Program, Value as CelValue};
use peapod_schema::{FieldValidation, check, default, patch};
use serde_json::{Value, json};

use super::collection::Collection;
use super::expressions::{all_hold, check_condition};
use super::matching::{Criteria, Matched};
use super::request::{self, asked, viewed};
use super::{Attributes, Operation, Plugin};
use crate::api::Api;
use crate::outbound::{Destination, OutboundError};
use crate::registry::value;
use crate::remarks;
use crate::status::{Result, Status};
use review::Answer;

const GROUP: &str = "admissionregistration.k8s.io";
/// Most webhooks that one write asks.
const HOOKS_MAX: usize = 128;

/// The mutating webhooks.
pub struct Mutating(Collection<Vec<Hook>>);
/// The validating webhooks.
pub struct Validating(Collection<Vec<Hook>>);

/// A webhook, as its configuration has it, with its conditions compiled.
struct Hook {
    /// The configuration's name.
    configuration: String,
    config: Value,
    conditions: Vec<(String, Program)>,
}

/// As what a webhook is asked.
#[derive(Clone, Copy)]
enum Asking {
    Mutating(Turn),
    /// Which of the validating webhooks it is.
    Validating(usize),
}

/// A webhook that is asked about a write.
struct Call<'a> {
    hook: &'a Hook,
    matched: Matched,
}

// === impl Hook ===

impl Hook {
    fn of(configuration: &str, config: Value) -> Self {
        let conditions = value::list(&config, "matchConditions").iter();
        let conditions = conditions.filter_map(|condition| {
            // What was accepted when it was written compiles.
            let program = check_condition(value::text(condition, "expression"), false).ok()?;
            Some((value::text(condition, "name").to_owned(), program))
        });
        Self {
            configuration: configuration.to_owned(),
            conditions: conditions.collect(),
            config,
        }
    }

    fn name(&self) -> &str {
        value::text(&self.config, "name")
    }

    fn ignores_faults(&self) -> bool {
        value::text(&self.config, "failurePolicy") == "Ignore"
    }
}

// === impl Asking ===

impl Asking {
    /// The audit annotation of one that failed, and was passed over.
    fn failed_open(self) -> String {
        let (sort, round, index) = match self {
            Self::Mutating((round, index)) => ("mutating", round, index),
            Self::Validating(index) => ("validating", 0, index),
        };
        format!("failed-open.{sort}.webhook.admission.k8s.io/round_{round}_index_{index}")
    }
}

/// The webhooks of all configurations, in the order of those's names.
fn hooks(configurations: Vec<Value>) -> Vec<Hook> {
    let hooks = configurations.into_iter().flat_map(|mut configuration| {
        let hooks = match configuration["webhooks"].take() {
            Value::Array(hooks) => hooks,
            _ => Vec::new(),
        };
        let name = value::text(&configuration, "metadata.name");
        let hooks = hooks.into_iter().map(|hook| Hook::of(name, hook));
        hooks.collect::<Vec<_>>()
    });
    hooks.take(HOOKS_MAX).collect()
}

// === impl Mutating ===

impl Default for Mutating {
    fn default() -> Self {
        Self(Collection::new(
            GROUP,
            "mutatingwebhookconfigurations",
            hooks,
        ))
    }
}

#[async_trait]
impl Plugin for Mutating {
    async fn rewrite(&self, api: &Api, write: &Attributes<'_>, object: &mut Value) -> Result<bool> {
        let Some(hooks) = self.0.read(api) else {
            return Ok(false);
        };
        let mut last_change = None;
        for (index, hook) in hooks.iter().enumerate() {
            if run(api, write, object, hook, (0, index)).await? {
                last_change = Some(index);
            }
        }
        for (index, hook) in hooks.iter().enumerate() {
            let wishes = value::text(&hook.config, "reinvocationPolicy") == "IfNeeded";
            if wishes && last_change.is_some_and(|last| last > index) {
                run(api, write, object, hook, (1, index)).await?;
            }
        }
        Ok(last_change.is_some())
    }
}

/// The round of asking mutating webhooks, and which of them it is.
type Turn = (usize, usize);

/// Asks one mutating webhook, if the write is one it asks for; says whether it changed the
/// object.
async fn run(
    api: &Api,
    write: &Attributes<'_>,
    object: &mut Value,
    hook: &Hook,
    turn: Turn,
) -> Result<bool> {
    let Some(call) = called(api, write, object, hook)? else {
        return Ok(false);
    };
    let Some(answer) = ask(api, write, object, &call, Asking::Mutating(turn)).await? else {
        return Ok(false);
    };
    let Some(operations) = answer.patch else {
        note_mutation(hook, turn, false);
        return Ok(false);
    };
    if write.operation == Operation::Delete {
        return Err(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name()
        )));
    }
    let before = object.clone();
    let shown = match &call.matched {
        Matched::Own => before.clone(),
        Matched::As(other) => viewed(write.resource, other, &before),
    };
    let name = hook.name();
    let patched = patch::json(shown, operations).map_err(|fault| {
        Status::internal(format!(
            "failed applying the patch of webhook {name:?}: {fault}"
        ))
    })?;
    *object = match &call.matched {
        Matched::Own => patched,
        Matched::As(other) => viewed(other, write.resource, &patched),
    };
    settle(write, object)?;
    let changed = *object != before;
    note_mutation(hook, turn, changed);
    Ok(changed)
}

/// Has the audit event say which webhook changed the object.
fn note_mutation(hook: &Hook, (round, index): Turn, mutated: bool) {
    let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
    let said = json!({
        "configuration": hook.configuration, "webhook": hook.name(), "mutated": mutated,
    });
    remarks::annotate(key, said.to_string());
}

/// Makes what a webhook or policy wrote an object of its kind: without unknown fields, defaulted.
pub(super) fn settle(write: &Attributes<'_>, object: &mut Value) -> Result<()> {
    let faults = check::check(object, &write.resource.schema);
    let faults = faults
        .map_err(|fault| Status::internal(format!("admission made no valid object: {fault}")))?;
    // They are dropped, as a webhook's unknown fields are upstream.
    let _ = FieldValidation::Ignore.settle(faults);
    default::default(object, &write.resource.schema);
    write.resource.kind.rules.defaults(object);
    Ok(())
}

// === impl Validating ===

impl Default for Validating {
    fn default() -> Self {
        Self(Collection::new(
            GROUP,
            "validatingwebhookconfigurations",
            hooks,
        ))
    }
}

#[async_trait]
impl Plugin for Validating {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let Some(hooks) = self.0.read(api) else {
            return Ok(());
        };
        let mut calls = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            let call = called(api, write, object, hook)?;
            calls.extend(call.map(|call| (index, call)));
        }
        let mut asked: FuturesUnordered<_> = calls
            .iter()
            .map(|(index, call)| ask(api, write, object, call, Asking::Validating(*index)))
            .collect();
        while let Some(outcome) = asked.next().await {
            outcome?;
        }
        Ok(())
    }
}

/// The call of a webhook, when the write is one that it asks for.
fn called<'a>(
    api: &Api,
    write: &Attributes<'_>,
    object: &Value,
    hook: &'a Hook,
) -> Result<Option<Call<'a>>> {
    let namespace = request::namespace(api, write);
    let criteria = Criteria::of_webhook(&hook.config);
    let Some(matched) = criteria.matched(&api.registry, write, object, namespace.as_ref()) else {
        return Ok(None);
    };
    let holds = hook.conditions.is_empty() || holds(api, write, object, hook, &matched)?;
    Ok(holds.then_some(Call { hook, matched }))
}

/// Whether the conditions of a webhook hold.
fn holds(
    api: &Api,
    write: &Attributes<'_>,
    object: &Value,
    hook: &Hook,
    matched: &Matched,
) -> Result<bool> {
    let asked = asked(write, object, matched);
    let subject = request::subject(api, write, &asked, None);
    match all_hold(&hook.conditions, &subject, CelValue::Null) {
        Ok(holds) => Ok(holds),
        Err(_) if hook.ignores_faults() => Ok(false),
        Err((name, fault)) => Err(write.forbid(format!(
            "matchCondition {name:?} of webhook {:?} could not be evaluated: {fault}",
            hook.name()
        ))),
    }
}

/// Asks a webhook. `None` when it failed, and that is to be ignored.
async fn ask(
    api: &Api,
    write: &Attributes<'_>,
    object: &Value,
    call: &Call<'_>,
    asking: Asking,
) -> Result<Option<Answer>> {
    let name = call.hook.name();
    let told = asked(write, object, &call.matched);
    let review = review::of(&told, &call.hook.config);
    let answer = match post(api, &call.hook.config, &review).await {
        Ok(answer) => {
            let mutating = matches!(asking, Asking::Mutating(_));
            review::read(&review, &answer, mutating)
        }
        Err((url, fault)) => Err(format!("failed to call webhook: Post {url:?}: {fault}")),
    };
    match answer {
        Ok(answer) => {
            for warning in &answer.warnings {
                remarks::warn(warning.clone());
            }
            for (key, text) in &answer.annotations {
                remarks::annotate(format!("{name}/{key}"), text.as_str());
            }
            match answer.allowed {
                true => Ok(Some(answer)),
                false => Err(denied(name, &answer.status)),
            }
        }
        Err(why) if call.hook.ignores_faults() => {
            tracing::warn!(
                webhook = name,
                why,
                "a webhook failed, which its policy ignores"
            );
            remarks::annotate(asking.failed_open(), name);
            Ok(None)
        }
        Err(why) => Err(Status::internal(format!(
            "failed calling webhook {name:?}: {why}"
        ))),
    }
}

async fn post(api: &Api, hook: &Value, review: &Value) -> Result<Value, (String, OutboundError)> {
    let seconds = value::integer(hook, "timeoutSeconds").and_then(|s| u64::try_from(s).ok());
    let timeout = Duration::from_secs(seconds.unwrap_or(10).clamp(1, 30));
    let config = &hook["clientConfig"];
    let there = Destination::of_client_config(api, config).await;
    let there = there.map_err(|fault| (value::text(config, "url").to_owned(), fault))?;
    there
        .post(review, timeout)
        .await
        .map_err(|fault| (there.url_within(timeout), fault))
}

/// A webhook's refusal, as its client is told.
fn denied(name: &str, status: &Value) -> Status {
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (
        value::text(status, "message"),
        value::text(status, "reason"),
    ) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = value::integer(status, "code").and_then(|code| u16::try_from(code).ok());
    Status::denied(code.unwrap_or(0), value::text(status, "reason"), message)
}
