//! Signals by name.

use nix::sys::signal::Signal;

/// SIGTERM
pub const TERM: i32 = Signal::SIGTERM as i32;
/// SIGKILL
pub const KILL: i32 = Signal::SIGKILL as i32;
/// The first real-time signal, as the C library of containers counts.
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub fn number(name: &str) -> Option<i32> {
    let name = name.trim().to_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let full = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    if let Some(offset) = full.strip_prefix("SIGRTMIN") {
        let offset = if offset.is_empty() {
            0
        } else {
            offset.strip_prefix('+')?.parse().ok()?
        };
        return Some(RTMIN + offset).filter(|number| *number <= RTMAX);
    }
    if let Some(offset) = full.strip_prefix("SIGRTMAX") {
        let offset = if offset.is_empty() {
            0
        } else {
            offset.strip_prefix('-')?.parse().ok()?
        };
        return Some(RTMAX - offset).filter(|number| *number >= RTMIN);
    }
    full.parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        let table = [
            ("SIGTERM", Some(15)),
            ("int", Some(2)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("SIGRTMIN+99", None),
            ("SIGNOPE", None),
        ];
        for (name, expected) in table {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
