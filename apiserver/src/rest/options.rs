//! The options of requests and their rules. What is wrong with them is told as of an object:
//! `CreateOptions.meta.k8s.io "" is invalid: ...`.

use super::call::Call;
use super::negotiate::PatchType;
use super::query::{ListOptions, WriteOptions};
use super::target::Verb;
use crate::registry::{FieldError, FieldErrors};
use crate::status::{Result, Status};

/// Longest name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;
const MATCH: &str = "resourceVersionMatch";

/// The options of a write.
///
/// # Errors
/// 422 for options that are none, 415 for a patch of an unknown type.
pub fn of(call: &Call) -> Result<WriteOptions> {
    let query = &call.query;
    let mut errors = FieldErrors::new();
    let kind = match call.verb {
        Verb::Update => "UpdateOptions",
        Verb::Patch => {
            of_patch(call, &mut errors)?;
            "PatchOptions"
        }
        _ => "CreateOptions",
    };
    let (manager, mode) = (query.get("fieldManager"), query.get("fieldValidation"));
    check_manager(manager, &mut errors);
    let dry_run = dry_run(&query.all("dryRun").collect::<Vec<_>>(), &mut errors);
    if !["", "Ignore", "Strict", "Warn"].contains(&mode) {
        errors.push(FieldError::not_supported(
            "fieldValidation",
            mode,
            &["", "Ignore", "Strict", "Warn"],
        ));
    }
    settle(kind, &errors)?;
    Ok(WriteOptions {
        dry_run,
        field_manager: manager.to_owned(),
        field_validation: mode.to_owned(),
        force: query.flag("force")?,
    })
}

/// Who applies says who it is; who does not has nothing to force.
fn of_patch(call: &Call, errors: &mut FieldErrors) -> Result<()> {
    let applies = matches!(PatchType::of(&call.headers)?, PatchType::Apply(_));
    if applies && call.query.get("fieldManager").is_empty() {
        let why = "is required for apply patch";
        errors.push(FieldError::required("fieldManager", why));
    }
    if !applies && call.query.has("force") {
        let why = "may not be specified for non-apply patch";
        errors.push(FieldError::forbidden("force", why));
    }
    Ok(())
}

fn check_manager(name: &str, errors: &mut FieldErrors) {
    if name.len() > MANAGER_MAX {
        errors.push(FieldError::too_long("fieldManager", MANAGER_MAX));
    }
    for (at, odd) in name.char_indices().filter(|(_, one)| !is_printable(*one)) {
        let code = u32::from(odd);
        let why = format!("invalid character U+{code:04X} (at position {at})");
        errors.push(FieldError::invalid("fieldManager", name, why));
    }
}

fn is_printable(one: char) -> bool {
    one == ' ' || !(one.is_control() || one.is_whitespace())
}

/// Whether a dry run is asked for; other values are faults.
pub fn dry_run(values: &[&str], errors: &mut FieldErrors) -> bool {
    if values.iter().any(|value| *value != "All") {
        let given = serde_json::Value::from(values);
        errors.push(FieldError::not_supported("dryRun", given, &["All"]));
    }
    !values.is_empty()
}

/// Checks the options of a list.
///
/// # Errors
/// 422 for such as do not go together.
pub fn check_list(options: &ListOptions) -> Result<()> {
    let mut errors = FieldErrors::new();
    let given = options.resource_version_match.as_str();
    let mut forbidden = |why: &str| errors.push(FieldError::forbidden(MATCH, why));
    if !given.is_empty() {
        if options.resource_version.is_empty() {
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            forbidden("resourceVersionMatch is forbidden when continue is provided");
        }
        if given == "Exact" && options.resource_version == "0" {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if !["Exact", "NotOlderThan"].contains(&given) {
            let known = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(MATCH, given, &known));
        }
    }
    if options.send_initial_events.is_some() {
        let why = "sendInitialEvents is forbidden for list";
        errors.push(FieldError::forbidden("sendInitialEvents", why));
    }
    settle("ListOptions", &errors)
}

/// Checks the options of a watch.
///
/// # Errors
/// 422 for such as do not go together.
pub fn check_watch(options: &ListOptions) -> Result<()> {
    let mut errors = FieldErrors::new();
    let given = options.resource_version_match.as_str();
    let mut forbidden = |field, why: &str| errors.push(FieldError::forbidden(field, why));
    match options.send_initial_events {
        Some(_) if given != "NotOlderThan" => {
            forbidden(
                MATCH,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        None if !given.is_empty() => forbidden(
            MATCH,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        _ => {}
    }
    if !options.continue_token.is_empty() {
        forbidden("continue", "continue is forbidden for watch");
    }
    settle("ListOptions", &errors)
}

/// Refuses options of a kind that have faults.
pub fn settle(kind: &str, errors: &FieldErrors) -> Result<()> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("meta.k8s.io", kind, "", errors)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_short_and_printable() {
        let told = |name: &str| {
            let mut errors = FieldErrors::new();
            check_manager(name, &mut errors);
            errors.to_string()
        };
        assert_eq!(told("kubectl create"), "[]");
        assert_eq!(
            told(&"x".repeat(129)),
            "fieldManager: Too long: may not be more than 128 bytes"
        );
        assert!(told("a\u{7}").ends_with("invalid character U+0007 (at position 1)"));
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let list = |version: &str, given: &str| {
            let options = ListOptions {
                resource_version: version.to_owned(),
                resource_version_match: given.to_owned(),
                ..ListOptions::default()
            };
            check_list(&options).map_err(|status| (status.code.as_u16(), status.message))
        };
        assert_eq!(list("7", "Exact"), Ok(()));
        let (code, told) = list("", "Exact").unwrap_err();
        assert_eq!(code, 422);
        assert_eq!(
            told,
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#
        );
        assert!(list("0", "Exact").is_err() && list("7", "exact").is_err());
        let watch = ListOptions {
            send_initial_events: Some(true),
            ..ListOptions::default()
        };
        assert_eq!(check_watch(&watch).unwrap_err().code, 422);
    }

    #[test]
    fn a_dry_run_is_of_all_or_none() {
        let told = |values: &[&str]| {
            let mut errors = FieldErrors::new();
            (dry_run(values, &mut errors), errors.to_string())
        };
        assert_eq!(told(&[]), (false, "[]".to_owned()));
        assert_eq!(told(&["All"]), (true, "[]".to_owned()));
        assert_eq!(
            told(&["Some"]).1,
            r#"dryRun: Unsupported value: ["Some"]: supported values: "All""#
        );
    }
}
