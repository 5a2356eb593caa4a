//! `batch/v1 CronJob`

use serde_json::Value;

use super::job;
use crate::registry::cells::{self, NONE};
use crate::registry::{At, Column, FieldErrors, Kind, Rules, columns, value};

/// Longest name, so that the names of its jobs fit.
const NAME_MAX: usize = 52;

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short_names(&["cj"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::path("Schedule", "string", "spec.schedule"),
            Column::computed("Timezone", "string", |object, _| {
                cells::or_none(value::text(object, "spec.timeZone"))
            }),
            Column::computed("Suspend", "string", |object, _| {
                match value::truth(object, "spec.suspend") {
                    true => "True".into(),
                    false => "False".into(),
                }
            }),
            Column::computed("Active", "integer", |object, _| {
                value::list(object, "status.active").len().into()
            }),
            Column::computed("Last Schedule", "string", |object, now| {
                match value::at(object, "status.lastScheduleTime") {
                    Some(_) => columns::age(object, "status.lastScheduleTime", now).into(),
                    None => NONE.into(),
                }
            }),
            Column::age(),
        ])
        .rules(CronJobs)
}

struct CronJobs;

impl Rules for CronJobs {
    fn defaults(&self, object: &mut Value) {
        job::default_spec(object, "spec.jobTemplate.spec");
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let name = root.at("metadata.name");
        if name.text().len() > NAME_MAX {
            name.invalid(errors, "must be no more than 52 characters");
        }
        let schedule = spec.at("schedule");
        if schedule.required(errors) {
            if schedule.text().contains("TZ") {
                let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                schedule.invalid(errors, why);
            } else if let Err(why) = check_schedule(schedule.text()) {
                schedule.invalid(errors, why);
            }
        }
        let policy = spec.at("concurrencyPolicy");
        policy.require_one_of(errors, &["Allow", "Forbid", "Replace"]);
        for field in [
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ] {
            spec.at(field).not_negative(errors);
        }
        job::validate_spec(&spec.at("jobTemplate.spec"), errors);
        let selector = spec.at("jobTemplate.spec.selector");
        if selector.is_set() {
            selector.invalid(errors, "`selector` will be auto-generated");
        }
    }
}

/// The fields of a schedule: lowest and highest number, and names for some of them.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const MACROS: &[&str] = &[
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// Demands the five fields of a cron expression, or one of its macros.
fn check_schedule(text: &str) -> Result<(), String> {
    if MACROS.contains(&text) || text.starts_with("@every ") {
        return Ok(());
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let count = fields.len();
        return Err(format!(
            "expected exactly 5 fields, found {count}: {fields:?}"
        ));
    }
    for (field, (low, high, names)) in fields.iter().zip(FIELDS) {
        for part in field.split(',') {
            check_part(part, low, high, names)
                .ok_or_else(|| format!("failed to parse field {field:?}: expected {low}-{high}"))?;
        }
    }
    Ok(())
}

/// `*`, `?`, `5`, `1-5`, each with `/2`.
fn check_part(part: &str, low: u32, high: u32, names: &[&str]) -> Option<()> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, step.parse::<u32>().ok()?),
        None => (part, 1),
    };
    let number = |text: &str| {
        let named = names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(index) => index as u32 + low,
            None => text.parse().ok()?,
        };
        (low..=high).contains(&number).then_some(number)
    };
    if step == 0 {
        return None;
    }
    if matches!(range, "*" | "?") {
        return Some(());
    }
    match range.split_once('-') {
        Some((from, to)) => (number(from)? <= number(to)?).then_some(()),
        None => number(range).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-mar MON",
            "@daily",
            "@every 5m",
            "0 0 ? * 7",
        ] {
            assert_eq!(check_schedule(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
        ] {
            assert!(check_schedule(bad).is_err(), "{bad}");
        }
    }
}
