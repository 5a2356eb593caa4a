//! From the layout of an older release to this one's, step by step. Servers that start at once do each
//! step once: it is a transaction that requires the version before it, and ends with the one after it.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::layout::Names;
use super::members::{Failure, Members};

/// A step: from a version to the next.
struct Step {
    from: u32,
    /// What it is for.
    why: &'static str,
    /// What it writes, beside the version.
    writes: fn(&Names) -> Vec<TxnOp>,
}

/// Every step there is, in order.
const STEPS: [Step; 1] = [Step {
    from: 1,
    why: "revisions may be ahead of etcd's",
    writes: |names| vec![TxnOp::put(names.offset(), "0", None)],
}];

/// Takes the steps from `version` on.
pub(super) async fn run(members: &Members, names: &Names, version: u32) -> Result<(), Failure> {
    for step in steps(version) {
        let unchanged = Compare::value(names.version(), CompareOp::Equal, step.from.to_string());
        let mut writes = (step.writes)(names);
        writes.push(TxnOp::put(
            names.version(),
            (step.from + 1).to_string(),
            None,
        ));
        // Where the comparison does not hold another server has taken the step.
        let taken = members.txn(Txn::new().when([unchanged]).and_then(writes));
        if taken.await?.succeeded() {
            let to = step.from + 1;
            tracing::info!(
                from = step.from,
                to,
                why = step.why,
                "the store's layout is migrated"
            );
        }
    }
    Ok(())
}

fn steps(version: u32) -> impl Iterator<Item = &'static Step> {
    STEPS.iter().filter(move |step| step.from >= version)
}

#[cfg(test)]
mod tests {
    use super::super::layout::VERSION;
    use super::*;

    #[test]
    fn every_older_version_comes_to_this_one() {
        for version in 1..=VERSION {
            let taken: Vec<u32> = steps(version).map(|step| step.from).collect();
            assert_eq!(taken, (version..VERSION).collect::<Vec<_>>());
        }
    }
}
