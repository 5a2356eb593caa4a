//! What to do with one object that may have lost its owners. Pure.
//!
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>

use super::graph::{Leaving, Uid, View};

/// What an owner is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// There, and staying.
    Solid,
    /// Being deleted in the foreground: it waits for this object to go.
    Waiting,
    /// Not there.
    Absent,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Strike out these owners; another one is left.
    DropOwners(Vec<Uid>),
    /// Delete it, its own dependents first. `unblock`: two wait for each other; let it not
    /// block its owners any more.
    DeleteForeground {
        /// Whether to break a circle.
        unblock: bool,
    },
    /// Delete it, by the policy that its own finalizers ask for.
    Delete,
}

/// Decides by what the owners are found to be.
pub fn decide(owners: &[(Uid, Owner)], view: &View) -> Verdict {
    let of = |state: Owner| owners.iter().filter(move |(_, is)| *is == state);
    let lost = owners.iter().filter(|(_, is)| *is != Owner::Solid);
    if owners.is_empty() || lost.clone().count() == 0 {
        return Verdict::Keep;
    }
    if of(Owner::Solid).count() > 0 {
        return Verdict::DropOwners(lost.map(|(uid, _)| uid.clone()).collect());
    }
    if of(Owner::Waiting).count() > 0 && !view.dependents.is_empty() {
        let circle = |leaving: Leaving| leaving == Leaving::AfterDependents;
        let unblock = view
            .dependents
            .iter()
            .any(|dependent| circle(dependent.leaving));
        return Verdict::DeleteForeground { unblock };
    }
    Verdict::Delete
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::graph::{Dependent, Place};

    fn view(dependents: &[Leaving]) -> View {
        let place = Place {
            group: "".into(),
            kind: "Thing".into(),
            namespace: "ns".into(),
            name: "x".into(),
        };
        let dependent = |&leaving: &Leaving| Dependent {
            uid: "d".into(),
            place: place.clone(),
            blocks: true,
            leaving,
        };
        View {
            dependents: dependents.iter().map(dependent).collect(),
            place: place.clone(),
            leaving: Leaving::No,
            is_virtual: false,
        }
    }

    #[test]
    fn verdicts() {
        use Owner::{Absent, Solid, Waiting};
        let none: &[Leaving] = &[];
        let drop = |uids: &[&str]| Verdict::DropOwners(uids.iter().map(|u| (*u).into()).collect());
        for (owners, dependents, verdict) in [
            (&[][..], none, Verdict::Keep),
            (&[Solid], none, Verdict::Keep),
            (&[Solid, Absent], none, drop(&["1"])),
            (&[Waiting, Solid, Absent], none, drop(&["0", "2"])),
            (&[Absent], none, Verdict::Delete),
            (&[Absent, Absent], &[Leaving::No], Verdict::Delete),
            (&[Waiting], none, Verdict::Delete),
            (
                &[Waiting],
                &[Leaving::No],
                Verdict::DeleteForeground { unblock: false },
            ),
            (
                &[Waiting, Absent],
                &[Leaving::AfterDependents],
                Verdict::DeleteForeground { unblock: true },
            ),
        ] {
            let named = owners
                .iter()
                .enumerate()
                .map(|(n, &is)| (n.to_string(), is));
            let named: Vec<_> = named.collect();
            assert_eq!(decide(&named, &view(dependents)), verdict, "{owners:?}");
        }
    }
}
