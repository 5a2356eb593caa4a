//! How long a request may take: what the server allows, and the client's own wish below it.

use std::time::Duration;

use crate::status::{Result, Status};

/// The time for a request, given the `timeout` of its query (empty for none) and the most that
/// there is.
///
/// # Errors
/// 400 for a `timeout` that is no duration as Go writes them: `30s`, `1m30s`, `500ms`.
pub fn of(wish: &str, most: Duration) -> Result<Duration> {
    if wish.is_empty() {
        return Ok(most);
    }
    let wished = duration(wish).ok_or_else(|| {
        let why = "invalid timeout specified in the request URL";
        Status::bad_request(format!(
            "{why} - parse error: time: invalid duration {wish:?}"
        ))
    })?;
    Ok(match wished {
        // As upstream: none is as if nothing had been said.
        Duration::ZERO => most,
        wished => wished.min(most),
    })
}

/// Reads a duration as Go writes them; none below zero.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        seconds += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_shorten_the_time() {
        let most = Duration::from_secs(60);
        for (wish, expected) in [
            ("", most),
            ("0", most),
            ("0s", most),
            ("30s", Duration::from_secs(30)),
            ("500ms", Duration::from_millis(500)),
            ("1.5s", Duration::from_millis(1500)),
            ("1m30s", most),
            ("24h", most),
        ] {
            assert_eq!(of(wish, most).unwrap(), expected, "{wish}");
        }
        for wish in ["x", "30", "-1s", "1q", ".", "s"] {
            let refused = of(wish, most).unwrap_err();
            assert_eq!(refused.code, 400, "{wish}");
        }
    }
}
