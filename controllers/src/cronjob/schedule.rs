//! Cron expressions: which minutes they name. Pure.
//!
//! Five fields (minute, hour, day of month, month, day of week) of `*`, numbers, names, ranges,
//! lists and steps; the macros `@hourly` to `@yearly`; `@every 90m`. When both days are
//! restricted, either one suffices, as crontab(5) has it.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan};

/// No expression that names a time at all leaves more than this between two of them.
const YEARS_MAX: i16 = 5;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Minutes by the calendar.
    Calendar(Box<Calendar>),
    /// So long after each other.
    Every(SignedDuration),
}

/// Sets of numbers, a bit for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Either day suffices: neither field is a star.
    either_day: bool,
}

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {0}: {1}")]
    Fields(usize, String),
    /// A field out of its range, or not understood.
    #[error("failed to parse field {0:?}")]
    Field(String),
    /// A duration after `@every`.
    #[error("failed to parse duration {0:?}")]
    Every(String),
}

/// Lowest and highest number of a field, and names for its numbers from the lowest on.
struct Range {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Range = Range {
    low: 0,
    high: 59,
    names: &[],
};
const HOURS: Range = Range {
    low: 0,
    high: 23,
    names: &[],
};
const DAYS: Range = Range {
    low: 1,
    high: 31,
    names: &[],
};
const MONTHS: Range = Range {
    low: 1,
    high: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Range = Range {
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = text.strip_prefix("@every ") {
            return interval(every).map(Self::Every);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError::Fields(fields.len(), format!("{fields:?}")));
        };
        let is_star = |field: &str| field.starts_with(['*', '?']);
        let mut weekday_set = set(weekdays, &WEEKDAYS)?;
        // 7 is Sunday as 0 is.
        weekday_set |= weekday_set >> 7 & 1;
        Ok(Self::Calendar(Box::new(Calendar {
            minutes: set(minutes, &MINUTES)?,
            hours: set(hours, &HOURS)?,
            days: set(days, &DAYS)?,
            months: set(months, &MONTHS)?,
            weekdays: weekday_set,
            either_day: !is_star(days) && !is_star(weekdays),
        })))
    }

    /// The first time after `after`, by the clocks of a zone; `None` when there is none (the
    /// 30th of February).
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*interval).ok()
            }
            Self::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

fn interval(text: &str) -> Result<SignedDuration, ScheduleError> {
    let wrong = || ScheduleError::Every(text.to_owned());
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let length = SignedDuration::try_from(span).map_err(|_| wrong())?;
    // As upstream: whole seconds, and at least one.
    Ok(SignedDuration::from_secs(length.as_secs().max(1)))
}

fn set(field: &str, range: &Range) -> Result<u64, ScheduleError> {
    let mut parts = field.split(',').map(|part| part_set(part, range));
    let all = parts.try_fold(0, |all, part| Some(all | part?));
    all.ok_or_else(|| ScheduleError::Field(field.to_owned()))
}

/// `*`, `?`, `5`, `1-5`, each with `/2`.
fn part_set(part: &str, range: &Range) -> Option<u64> {
    let (span, step) = match part.split_once('/') {
        Some((span, step)) => (span, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
        None => (part, None),
    };
    let (first, last) = match span.split_once('-') {
        _ if matches!(span, "*" | "?") => (range.low, range.high),
        Some((first, last)) => (number(first, range)?, number(last, range)?),
        None => {
            let first = number(span, range)?;
            // `5/2` goes on to the end.
            (first, if step.is_some() { range.high } else { first })
        }
    };
    if first > last {
        return None;
    }
    let steps = (first..=last).step_by(step.unwrap_or(1) as usize);
    Some(steps.fold(0, |all, number| all | 1 << number))
}

fn number(text: &str, range: &Range) -> Option<u32> {
    let named = range
        .names
        .iter()
        .position(|name| text.eq_ignore_ascii_case(name));
    let number = match named {
        Some(index) => u32::try_from(index).ok()? + range.low,
        None => text.parse().ok()?,
    };
    (range.low..=range.high).contains(&number).then_some(number)
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set >> number & 1 == 1)
}

impl Calendar {
    /// A time that the zone's clocks skip is taken as many minutes later as they skip; of one
    /// that they show twice, the first counts.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = zone.to_datetime(after);
        let last_year = start.year().checked_add(YEARS_MAX)?;
        let mut day = start.date();
        // Clocks may be set back by some hours, so today's earlier times are looked at too.
        while day.year() <= last_year {
            if !has(self.months, day.month()) {
                day = day.first_of_month().checked_add(1.month()).ok()?;
                continue;
            }
            if self.has_day(day) {
                let found = self.times(day).find_map(|time| {
                    let at = zone.to_timestamp(time).ok()?;
                    (at > after).then_some(at)
                });
                if found.is_some() {
                    return found;
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn has_day(&self, day: Date) -> bool {
        let in_month = has(self.days, day.day());
        let in_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        match self.either_day {
            true => in_month || in_week,
            false => in_month && in_week,
        }
    }

    fn times(&self, day: Date) -> impl Iterator<Item = DateTime> {
        let hours = (0..24).filter(|hour| has(self.hours, *hour));
        hours.flat_map(move |hour| {
            let minutes = (0..60).filter(|minute| has(self.minutes, *minute));
            minutes.map(move |minute| day.at(hour, minute, 0, 0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, after: &str, zone: &TimeZone) -> String {
        let schedule = Schedule::parse(expression).unwrap();
        let after: Timestamp = after.parse().unwrap();
        schedule
            .next(after, zone)
            .map_or("never".into(), |time| time.to_string())
    }

    #[test]
    fn next_times() {
        for (expression, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            (
                "*/15 * * * *",
                "2026-01-01T00:15:00Z",
                "2026-01-01T00:30:00Z",
            ),
            (
                "7/20 3 * * *",
                "2026-01-01T03:30:00Z",
                "2026-01-01T03:47:00Z",
            ),
            (
                "0 9 * * mon-fri",
                "2026-01-02T10:00:00Z",
                "2026-01-05T09:00:00Z",
            ),
            ("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (
                "@every 1h30m",
                "2026-01-01T00:00:00Z",
                "2026-01-01T01:30:00Z",
            ),
        ] {
            assert_eq!(
                next(expression, after, &TimeZone::UTC),
                expected,
                "{expression}"
            );
        }
    }

    #[test]
    fn clocks_that_are_changed() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        // 02:30 does not exist on the last Sunday of March, and comes twice in October's.
        let spring = next("30 2 * * *", "2026-03-28T12:00:00Z", &berlin);
        assert_eq!(spring, "2026-03-29T01:30:00Z");
        let autumn = next("30 2 * * *", "2026-10-24T12:00:00Z", &berlin);
        assert_eq!(autumn, "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", &autumn, &berlin), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_cannot_be_read() {
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@every x",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
