//! Numbers that may be percentages, as `25%`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Where a fraction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next whole number.
    Up,
    /// To the last whole number.
    Down,
}

/// A number, or a percentage of `whole`. What is neither counts as nothing; validation refuses
/// it long before.
pub fn of(value: &IntOrString, whole: i32, round: Round) -> i32 {
    let percent = match value {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|p| p.parse::<u32>().ok()),
    };
    let hundredths = i64::from(percent.unwrap_or(0)) * i64::from(whole.max(0));
    let rounded = match round {
        Round::Up => (hundredths + 99) / 100,
        Round::Down => hundredths / 100,
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// Whether it is a percentage.
pub fn is_percentage(value: &IntOrString) -> bool {
    matches!(value, IntOrString::String(_))
}
