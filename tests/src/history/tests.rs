//! Histories known to be good and bad, and the search against all orders tried one by one.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn operation(begin: u64, end: u64, call: Call, outcome: Outcome) -> Operation {
    Operation {
        key: "k".to_owned(),
        call,
        outcome,
        version: None,
        begin,
        end,
    }
}

fn swap(from: Value, to: Value) -> Call {
    Call::Swap { from, to }
}

use Call::{Create, Delete, Get};
use Outcome::{Absent, Done, Other, Read, Unknown};

#[test]
fn good_histories_are_explained() {
    for (name, lines) in [
        ("nothing", vec![]),
        (
            "one after the other",
            vec![
                (1, 2, Get, Absent),
                (3, 4, Create(1), Done),
                (5, 6, Create(2), Other),
                (7, 8, swap(1, 2), Done),
                (9, 10, swap(1, 3), Other),
                (11, 12, Delete(2), Done),
                (13, 14, Get, Absent),
                (15, 16, Create(4), Done),
                (17, 18, Get, Read(4)),
            ],
        ),
        (
            "a read during a write may see either",
            vec![
                (1, 2, Create(1), Done),
                (3, 10, swap(1, 2), Done),
                (4, 5, Get, Read(1)),
                (6, 7, Get, Read(2)),
            ],
        ),
        (
            "of two creations at once one is refused",
            vec![
                (1, 4, Create(1), Done),
                (2, 3, Create(2), Other),
                (5, 6, Get, Read(1)),
            ],
        ),
        (
            "an unknown write that shows much later",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, swap(1, 2), Unknown),
                (5, 6, Get, Read(1)),
                (7, 8, Get, Read(2)),
            ],
        ),
        (
            "an unknown write that never happened",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, swap(1, 2), Unknown),
                (5, 6, swap(1, 3), Done),
                (7, 8, Get, Read(3)),
            ],
        ),
        (
            "an unknown deletion between two creations",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, Delete(1), Unknown),
                (5, 6, Create(2), Done),
            ],
        ),
    ] {
        let history: Vec<_> = lines
            .into_iter()
            .map(|(b, e, c, o)| operation(b, e, c, o))
            .collect();
        assert_eq!(check(&history), Ok(()), "{name}");
    }
}

#[test]
fn bad_histories_are_not() {
    for (name, lines) in [
        ("what was never written", vec![(1, 2, Get, Read(1))]),
        (
            "a stale read",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, swap(1, 2), Done),
                (5, 6, Get, Read(1)),
            ],
        ),
        (
            "a lost write",
            vec![(1, 2, Create(1), Done), (3, 4, Get, Absent)],
        ),
        (
            "two swaps of one value",
            vec![
                (1, 2, Create(1), Done),
                (3, 6, swap(1, 2), Done),
                (4, 5, swap(1, 3), Done),
            ],
        ),
        (
            "two creations",
            vec![(1, 4, Create(1), Done), (2, 3, Create(2), Done)],
        ),
        (
            "a write that shows and is gone again",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, swap(1, 2), Unknown),
                (5, 6, Get, Read(2)),
                (7, 8, Get, Read(1)),
            ],
        ),
        (
            "an unknown write before it was asked for",
            vec![
                (1, 2, Create(1), Done),
                (3, 4, Get, Read(2)),
                (5, 6, swap(1, 2), Unknown),
            ],
        ),
        (
            "reads that disagree on the order",
            vec![
                (1, 2, Create(1), Done),
                (3, 20, swap(1, 2), Done),
                (4, 5, Get, Read(2)),
                (6, 7, Get, Read(1)),
            ],
        ),
        (
            "a conflict with nobody",
            vec![(1, 2, Create(1), Done), (3, 4, swap(1, 2), Other)],
        ),
    ] {
        let history: Vec<_> = lines
            .into_iter()
            .map(|(b, e, c, o)| operation(b, e, c, o))
            .collect();
        assert!(check(&history).is_err(), "{name}");
    }
}

#[test]
fn versions_grow_and_are_of_one_write() {
    let write = |begin, end, value, version| Operation {
        version: Some(version),
        key: format!("k{value}"),
        ..operation(begin, end, Create(value), Done)
    };
    let read = |begin, end, value, version| Operation {
        version: Some(version),
        ..operation(begin, end, Get, Read(value))
    };
    assert_eq!(versions(&[write(1, 2, 1, 5), write(3, 4, 2, 6)]), Ok(()));
    // At the same time, in either order.
    assert_eq!(versions(&[write(1, 4, 1, 6), write(2, 3, 2, 5)]), Ok(()));
    assert!(versions(&[write(1, 2, 1, 6), write(3, 4, 2, 5)]).is_err());
    assert!(versions(&[write(1, 2, 1, 5), read(3, 4, 1, 6)]).is_err());
    assert!(versions(&[write(1, 4, 1, 5), write(2, 3, 2, 5)]).is_err());
}

/// Whether some order explains all: by trying them all.
fn by_force(operations: &[Operation], done: u32, state: State) -> bool {
    let open = |at: &usize| done & (1 << at) == 0;
    let known = |at: &usize| operations[*at].outcome != Unknown;
    let all: Vec<usize> = (0..operations.len()).filter(open).collect();
    if !all.iter().any(known) {
        return true;
    }
    all.iter().any(|&at| {
        let one = &operations[at];
        // Whatever ended before this began has its place before it.
        let first = all
            .iter()
            .filter(|other| known(other))
            .all(|&other| other == at || operations[other].end > one.begin);
        let next = apply(state, one.call, one.outcome);
        first && next.is_some_and(|next| by_force(operations, done | 1 << at, next))
    })
}

#[test]
fn the_search_agrees_with_trying_everything() {
    let rounds = crate::rounds::rounds(3) * 1000;
    let seed: u64 =
        std::env::var("SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..rounds {
        let history: Vec<Operation> = (0..rng.random_range(1..7))
            .map(|at| any(at, &mut rng))
            .collect();
        let explained = by_force(&history, 0, None);
        assert_eq!(check(&history).is_ok(), explained, "{history:#?}");
        *(if explained { &mut good } else { &mut bad }) += 1;
    }
    assert!(
        good > rounds / 50 && bad > rounds / 50,
        "{good} good, {bad} bad"
    );
}

/// Any operation of few values, so that some histories are good.
fn any(at: u64, rng: &mut StdRng) -> Operation {
    let value = rng.random_range(0..3);
    let (call, outcomes): (_, &[Outcome]) = match rng.random_range(0..4) {
        0 => (Create(at + 10), &[Done, Done, Other, Unknown]),
        1 => (
            swap(10 + value, at + 10),
            &[Done, Done, Other, Absent, Unknown],
        ),
        2 => (Delete(10 + value), &[Done, Other, Absent, Unknown]),
        _ => (Get, &[Absent, Read(10), Read(11), Read(12)]),
    };
    let begin = rng.random_range(0..20);
    let outcome = outcomes[rng.random_range(0..outcomes.len())];
    // Times of begins and ends differ, as those of a recorder do.
    let (begin, end) = (
        begin * 20 + at,
        (begin + rng.random_range(1..8)) * 20 + 10 + at,
    );
    operation(begin, end, call, outcome)
}
