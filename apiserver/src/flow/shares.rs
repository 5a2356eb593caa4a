//! How many seats each priority level has, and who lends to whom. Pure.
//!
//! A level's nominal seats are its shares of the server's. Of them it lends a part while it does
//! not need them, and takes them back as soon as it does. Seats move when they are wanted, not
//! at intervals: who is short of one takes it from whoever has the most free that it may lend.
//!
//! Who took a seat back does not interrupt what runs on it: for that long there are more
//! requests in work than seats.

use serde_json::Value;

use crate::registry::value;

/// The seats that a level may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Its own share.
    pub nominal: u32,
    /// What it keeps of it whoever asks.
    pub lower: u32,
    /// What it has at most, with what it borrowed.
    pub upper: u32,
}

/// What a level has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What it may have.
    pub bounds: Bounds,
    /// The seats that it has.
    pub limit: u32,
    /// The seats on which requests are in work.
    pub in_use: u32,
    /// Whether requests wait for seats here.
    pub waits: bool,
}

/// The bounds of each level, from their objects' specs; all to one `total` of seats.
pub fn bounds<'a>(specs: impl Iterator<Item = &'a Value> + Clone, total: u32) -> Vec<Bounds> {
    let part = |spec: &'a Value| match value::text(spec, "type") {
        "Exempt" => value::at(spec, "exempt"),
        _ => value::at(spec, "limited"),
    };
    let number = |spec: &'a Value, field: &str| {
        let number = part(spec).and_then(|part| value::integer(part, field));
        number.and_then(|number| u64::try_from(number).ok())
    };
    let shares = |spec: &'a Value| number(spec, "nominalConcurrencyShares").unwrap_or(0);
    let sum: u64 = specs.clone().map(shares).sum();
    let total = u64::from(total);
    let of = |spec: &'a Value| {
        let nominal = (total * shares(spec)).div_ceil(sum.max(1));
        let percent = |field| number(spec, field).map(|percent| (nominal * percent + 50) / 100);
        let lendable = percent("lendablePercent").unwrap_or(0).min(nominal);
        let upper = match percent("borrowingLimitPercent") {
            Some(borrowed) => nominal + borrowed,
            None => total.max(nominal),
        };
        let seats = |seats: u64| u32::try_from(seats).unwrap_or(u32::MAX);
        Bounds {
            nominal: seats(nominal),
            lower: seats(nominal - lendable),
            upper: seats(upper),
        }
    };
    specs.map(of).collect()
}

/// Finds `wanted` more seats for level `who`: the new limits of those that change, `who` among
/// them, or nothing when there are not as many to be had.
///
/// Its own lent seats come back from whoever has borrowed, in use or not; others' come only from
/// what is free there.
pub fn borrow(levels: &[Holding], who: usize, wanted: u32) -> Option<Vec<(usize, u32)>> {
    let own = levels.get(who)?;
    let room = own.bounds.upper.saturating_sub(own.limit);
    if wanted == 0 || wanted > room {
        return None;
    }
    let owed = own.bounds.nominal.saturating_sub(own.limit);
    let mut offers: Vec<(usize, u32)> = levels
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != who)
        .map(|(index, level)| (index, offer(level, owed > 0)))
        .filter(|(_, seats)| *seats > 0)
        .collect();
    offers.sort_by_key(|(index, seats)| (std::cmp::Reverse(*seats), *index));
    let mut missing = wanted;
    let mut moves = Vec::new();
    for (index, seats) in offers {
        let taken = seats.min(missing);
        moves.push((index, levels.get(index)?.limit - taken));
        missing -= taken;
        if missing == 0 {
            moves.push((who, own.limit + wanted));
            return Some(moves);
        }
    }
    None
}

/// How many seats a level gives away; `back` to someone who takes back their own.
fn offer(level: &Holding, back: bool) -> u32 {
    let borrowed = level.limit.saturating_sub(level.bounds.nominal);
    let free = match level.waits {
        true => 0,
        false => level
            .limit
            .saturating_sub(level.in_use.max(level.bounds.lower)),
    };
    match back {
        true => free.max(borrowed),
        false => free,
    }
}
