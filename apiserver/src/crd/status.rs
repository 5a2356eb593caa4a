//! The status that a definition should have: its accepted names and its conditions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::names::{self, Conflict, Taken};
use crate::registry::{object_meta, value};

/// The status of a definition, which is to be written where it differs from the present one.
pub fn next(definition: &Value, taken: &Taken, now: Timestamp) -> Value {
    let (accepted, conflict) = names::accept(definition, taken);
    let mut status = definition["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    status["acceptedNames"] = accepted;
    let generation = value::integer(definition, "metadata.generation");
    let mut conditions = value::list(&status, "conditions").to_vec();
    for (kind, outcome) in [
        ("NamesAccepted", named(conflict.as_ref())),
        ("Established", established(definition, conflict.as_ref())),
    ] {
        set(&mut conditions, kind, outcome, generation, now);
    }
    status["conditions"] = conditions.into();
    if let Some(generation) = generation {
        status["observedGeneration"] = generation.into();
    }
    status
}

/// Whether there is nothing to do: all names were accepted, of the present generation.
pub fn is_settled(definition: &Value) -> bool {
    let observed = value::integer(definition, "status.observedGeneration");
    observed.is_some()
        && observed == value::integer(definition, "metadata.generation")
        && super::is_true(definition, "NamesAccepted")
        && super::is_true(definition, "Established")
}

type Outcome = (bool, &'static str, String);

fn named(conflict: Option<&Conflict>) -> Outcome {
    match conflict {
        None => (true, "NoConflicts", "no conflicts found".to_owned()),
        Some(conflict) => (false, conflict.reason, conflict.message.clone()),
    }
}

/// Once established, a definition stays so: its objects are there.
fn established(definition: &Value, conflict: Option<&Conflict>) -> Outcome {
    let done = (
        true,
        "InitialNamesAccepted",
        "the initial names have been accepted".to_owned(),
    );
    match conflict {
        None => done,
        Some(_) if super::is_true(definition, "Established") => done,
        Some(_) => (
            false,
            "NotAccepted",
            "not all names are accepted".to_owned(),
        ),
    }
}

/// Sets a condition; its time changes with its status only.
pub fn set(
    conditions: &mut Vec<Value>,
    kind: &str,
    outcome: Outcome,
    generation: Option<i64>,
    now: Timestamp,
) {
    let (holds, reason, message) = outcome;
    let status = if holds { "True" } else { "False" };
    let mut new = json!({
        "type": kind,
        "status": status,
        "lastTransitionTime": object_meta::time(now),
        "reason": reason,
        "message": message,
    });
    if let Some(generation) = generation {
        new["observedGeneration"] = generation.into();
    }
    match conditions
        .iter_mut()
        .find(|one| value::text(one, "type") == kind)
    {
        Some(old) => {
            if value::text(old, "status") == status {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_then_it_is_established() {
        let names = json!({"plural": "foos", "kind": "Foo"});
        let definition = json!({"metadata": {"name": "foos.a.b", "generation": 1}, "spec": {"group": "a.b", "names": names}});
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let status = next(&definition, &Taken::default(), now);
        assert_eq!(status["acceptedNames"], names);
        let mut after = definition.clone();
        after["status"] = status.clone();
        assert!(super::super::is_true(&after, "Established"));
        let later = Timestamp::from_second(1_700_000_100).unwrap();
        assert_eq!(next(&after, &Taken::default(), later), status);
    }
}
