//! What is said of a container's restarts: its own policy, the rules for its exit codes, and what a change of its
//! resources does.

use super::Known;
use super::containers::Part;
use crate::registry::at::At;
use crate::registry::field_error::{FieldError, FieldErrors};

/// Rules of one container.
const RULES_MAX: usize = 20;
/// Exit codes of one rule.
const CODES_MAX: usize = 255;

/// Validates it.
pub(super) fn validate(
    container: &At<'_>,
    part: Part,
    known: &Known<'_>,
    errors: &mut FieldErrors,
) {
    let policy = container.at("restartPolicy");
    let policies: &[&str] = match part {
        Part::Ephemeral if policy.is_set() => {
            return policy.forbidden(errors, "cannot be set for an Ephemeral Container");
        }
        Part::Ephemeral => return,
        Part::Main | Part::Init => &["Always", "Never", "OnFailure"],
    };
    policy.one_of(errors, policies);
    let rules = container.at("restartPolicyRules");
    if !rules.is_empty() && !policy.is_set() {
        let why = "must specify restartPolicy when restart rules are used";
        policy.missing(errors, why);
    }
    at_most(&rules, RULES_MAX, errors);
    rules.items().for_each(|rule| validate_rule(&rule, errors));
    let resize = container.at("resizePolicy");
    for policy in resize.items() {
        let name = policy.at("resourceName");
        name.require_one_of(errors, &["cpu", "memory"]);
        let restart = policy.at("restartPolicy");
        restart.require_one_of(errors, &["NotRequired", "RestartContainer"]);
        if known.restart_policy == "Never" && restart.text() != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            restart.invalid(errors, why);
        }
    }
}

fn validate_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    rule.at("action")
        .require_one_of(errors, &["Restart", "RestartAllContainers"]);
    let codes = rule.at("exitCodes");
    if !codes.is_set() {
        return codes.missing(errors, "must be specified");
    }
    codes
        .at("operator")
        .require_one_of(errors, &["In", "NotIn"]);
    at_most(&codes.at("values"), CODES_MAX, errors);
}

fn at_most(list: &At<'_>, max: usize, errors: &mut FieldErrors) {
    let count = list.items().count();
    if count > max {
        errors.push(FieldError::too_many(list, count, max));
    }
}
