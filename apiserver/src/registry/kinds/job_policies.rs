//! What a job may say of failed pods and of success, in upstream's words.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::registry::{At, FieldError, FieldErrors, value};

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;

/// Checks `podFailurePolicy` and what it demands of the rest of the job.
pub(super) fn validate_failure_policy(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.at("podFailurePolicy");
    if !policy.is_set() {
        return;
    }
    let restarts = spec.at("template.spec.restartPolicy");
    if restarts.text() != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        restarts.invalid(errors, why);
    }
    let rules = policy.at("rules");
    let count = rules.items().count();
    if count > RULES_MAX {
        errors.push(FieldError::too_many(rules, count, RULES_MAX));
    }
    for rule in rules.items() {
        let action = rule.at("action");
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        action.require_one_of(errors, &actions);
        if action.text() == "FailIndex" && !spec.at("backoffLimitPerIndex").is_set() {
            action.invalid(errors, "requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.at("onExitCodes"), rule.at("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => rule.invalid(
                errors,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            ),
            (false, false) => rule.invalid(
                errors,
                "specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (true, false) => validate_exit_codes(spec, &codes, errors),
            (false, true) => validate_conditions(&conditions, errors),
        }
    }
}

fn validate_exit_codes(spec: &At<'_>, rule: &At<'_>, errors: &mut FieldErrors) {
    let operator = rule.at("operator");
    operator.require_one_of(errors, &["In", "NotIn"]);
    let container = rule.at("containerName");
    if container.is_set() && !has_container(spec.value(), container.text()) {
        let why = "must be one of the container or initContainer names in the pod template";
        container.invalid(errors, why);
    }
    let values = rule.at("values");
    let count = values.items().count();
    if count == 0 {
        values.invalid(errors, "at least one value is required");
    } else if count > CODES_MAX {
        errors.push(FieldError::too_many(values, count, CODES_MAX));
    }
    let (mut seen, mut ordered, mut last) = (BTreeSet::new(), true, i64::MIN);
    for value in values.items() {
        let code = value.int().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(errors);
        }
        ordered &= code >= last;
        last = code;
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

fn has_container(spec: &Value, name: &str) -> bool {
    let of = |list| value::list(spec, list).iter();
    let own = of("template.spec.containers");
    let mut all = own.chain(of("template.spec.initContainers"));
    all.any(|one| value::text(one, "name") == name)
}

fn validate_conditions(patterns: &At<'_>, errors: &mut FieldErrors) {
    let count = patterns.items().count();
    if count > PATTERNS_MAX {
        errors.push(FieldError::too_many(patterns, count, PATTERNS_MAX));
    }
    for pattern in patterns.items() {
        pattern.at("type").required(errors);
        let status = pattern.at("status");
        status.require_one_of(errors, &["False", "True", "Unknown"]);
    }
}

/// Checks `successPolicy`.
pub(super) fn validate_success_policy(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.at("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.at("completionMode").text() != "Indexed" {
        return policy.invalid(errors, "requires indexed completion mode");
    }
    let rules = policy.at("rules");
    let count = rules.items().count();
    if count == 0 {
        rules.missing(
            errors,
            "at least one rules must be specified when the successPolicy is specified",
        );
    } else if count > RULES_MAX {
        errors.push(FieldError::too_many(rules, count, RULES_MAX));
    }
    let completions = spec.at("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (number, indexes) = (rule.at("succeededCount"), rule.at("succeededIndexes"));
        if !number.is_set() && !indexes.is_set() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            rule.missing(errors, why);
        }
        number.not_negative(errors);
        if number.int().is_some_and(|count| count > completions) {
            let why = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            number.invalid(errors, why);
        }
        if let Err(why) = parse_indexes(indexes.text(), completions) {
            indexes.invalid(errors, format!("error parsing succeededIndexes: {why}"));
        }
    }
}

/// Checks `1,3-5`: indexes in rising order, all below the completions.
fn parse_indexes(text: &str, completions: i64) -> Result<(), String> {
    let number = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!(
            "cannot convert string to integer for index: {text:?}"
        )),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let mut previous = -1;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part
            .split_once('-')
            .map_or((part, None), |(a, b)| (a, Some(b)));
        for current in [Some(first), last].into_iter().flatten() {
            let current = number(current)?;
            if current <= previous {
                return Err(format!(
                    "non-increasing order, previous: {previous}, current: {current}"
                ));
            }
            previous = current;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes() {
        for good in ["", "0", "0,2-4", "1-2,4"] {
            assert_eq!(parse_indexes(good, 5), Ok(()), "{good}");
        }
        for bad in ["x", "5", "2,1", "3-2", "1,1"] {
            assert!(parse_indexes(bad, 5).is_err(), "{bad}");
        }
    }
}
