//! Pods that want more processes than they may have (`podPidsLimit`): the kernel refuses the rest, and counts.
//! Whoever looks at the pod is told. Pure.

use std::collections::HashMap;

/// How often each pod was refused a process, by UID, as it was last told.
#[derive(Debug, Default)]
pub struct Refused(HashMap<String, u64>);

// === impl Refused ===

impl Refused {
    /// Takes in all counts of now; gives the pods that were refused more since the last time.
    pub fn look(&mut self, now: HashMap<String, u64>) -> Vec<String> {
        let before = std::mem::replace(&mut self.0, now);
        let more =
            |(uid, count): &(&String, &u64)| **count > before.get(*uid).copied().unwrap_or(0);
        let mut news: Vec<String> = self
            .0
            .iter()
            .filter(more)
            .map(|(uid, _)| uid.clone())
            .collect();
        news.sort();
        news
    }
}

/// The sentence for a pod with this limit.
pub fn message(limit: i64) -> String {
    format!(
        "Pod has reached its limit of {limit} processes and threads (podPidsLimit); it cannot start more"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_when_it_is_more_than_before() {
        let mut refused = Refused::default();
        let mut look = |counts: &[(&str, u64)]| {
            let owned = counts
                .iter()
                .map(|(uid, count)| ((*uid).to_owned(), *count));
            refused.look(owned.collect()).join(" ")
        };
        assert_eq!(look(&[("a", 0), ("b", 3), ("c", 1)]), "b c");
        assert_eq!(look(&[("a", 0), ("b", 3), ("c", 2)]), "c");
        assert_eq!(look(&[("a", 1), ("b", 3)]), "a");
        assert_eq!(
            look(&[("c", 1)]),
            "c",
            "another pod of this UID has been away"
        );
    }
}
