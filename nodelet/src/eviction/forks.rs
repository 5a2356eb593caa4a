//! Pods that want more processes than they may have (`podPidsLimit`): the kernel refuses the rest, and counts.
//! When whoever looks at the pod is told. Pure.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// A pod is told of at most once in this time, however many processes it is refused.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// What is known of the pods that were refused a process, by UID.
#[derive(Debug, Default)]
pub struct Refused(HashMap<String, Pod>);

#[derive(Debug, Default)]
struct Pod {
    /// The count as last seen; it is less when a container with its group has gone.
    count: u64,
    /// It has grown since it was told.
    news: bool,
    told: Option<Timestamp>,
}

// === impl Refused ===

impl Refused {
    /// Takes in a count of now; gives whether to tell of it now. What is not told yet is told at a later look.
    pub fn saw(&mut self, uid: &str, count: u64, now: Timestamp) -> bool {
        if count == 0 && !self.0.contains_key(uid) {
            return false;
        }
        let pod = self.0.entry(uid.to_owned()).or_default();
        pod.news |= count > pod.count;
        pod.count = count;
        let due = pod.told.is_none_or(|at| now.duration_since(at) >= PAUSE);
        if !pod.news || !due {
            return false;
        }
        pod.news = false;
        pod.told = Some(now);
        true
    }

    /// Forgets the pods that are not there any more.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| is_there(uid));
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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn told_when_it_is_more_than_before_and_not_too_often() {
        let mut refused = Refused::default();
        let mut saw = |second, count| refused.saw("a", count, at(second));
        assert!(!saw(0, 0));
        assert!(saw(1, 3));
        assert!(!saw(2, 4), "it was told a moment ago");
        assert!(saw(11, 4), "what was not told then");
        assert!(!saw(30, 4), "nothing new");
        assert!(!saw(31, 0), "the container has gone");
        assert!(saw(32, 1), "the next one's");
    }

    #[test]
    fn a_pod_that_is_gone_is_another_when_it_comes_back() {
        let mut refused = Refused::default();
        assert!(refused.saw("a", 3, at(0)));
        assert!(refused.saw("b", 3, at(0)));
        refused.keep(|uid| uid == "b");
        assert!(refused.saw("a", 2, at(1)));
        assert!(!refused.saw("b", 3, at(20)));
    }
}
