//! How many seats a request takes: one, and more where many objects are listed. Pure.

use crate::rest::target::Verb;

/// Objects of a list that one seat stands for.
const OBJECTS_PER_SEAT: usize = 100;
/// Most seats of one request.
const SEATS_MAX: u32 = 10;
/// The part of its level's seats that one request takes at most, in percent.
const PART_MAX: u32 = 15;

/// The width of a request on a resource that holds `objects`, of which `limit` are wanted (0 for
/// all), at a level of `nominal` seats.
pub fn width(verb: Verb, objects: usize, limit: usize, initial: bool, nominal: u32) -> u32 {
    let wanted = match (verb, limit) {
        (Verb::List, 0) => objects,
        (Verb::List, limit) => objects.min(limit),
        // The objects there are, told before what changes.
        (Verb::Watch, _) if initial => objects,
        (Verb::DeleteCollection, _) => objects,
        _ => 1,
    };
    let seats = u32::try_from(wanted.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(SEATS_MAX);
    let most = (nominal * PART_MAX).div_ceil(100).clamp(1, SEATS_MAX);
    seats.clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_more_seats_the_more_they_list() {
        for (verb, objects, limit, initial, nominal, expected) in [
            (Verb::Get, 50_000, 0, false, 600, 1),
            (Verb::Create, 50_000, 0, false, 600, 1),
            (Verb::List, 0, 0, false, 600, 1),
            (Verb::List, 100, 0, false, 600, 1),
            (Verb::List, 101, 0, false, 600, 2),
            (Verb::List, 50_000, 0, false, 600, 10),
            (Verb::List, 50_000, 500, false, 600, 5),
            // A tenth of a request would not get anywhere in a small level.
            (Verb::List, 50_000, 0, false, 13, 2),
            (Verb::List, 50_000, 0, false, 0, 1),
            (Verb::Watch, 50_000, 0, false, 600, 1),
            (Verb::Watch, 350, 0, true, 600, 4),
            (Verb::DeleteCollection, 350, 0, false, 600, 4),
        ] {
            let got = width(verb, objects, limit, initial, nominal);
            assert_eq!(got, expected, "{verb:?} {objects} {limit} {nominal}");
        }
    }
}
