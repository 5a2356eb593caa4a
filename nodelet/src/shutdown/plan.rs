//! In which order pods end when the machine goes down: the least important first, each group in its time.
//! As upstream's graceful node shutdown.

use std::collections::BTreeMap;

use serde::Deserialize;

/// From this priority on a pod is critical to the cluster or the node.
const CRITICAL: i32 = 2_000_000_000;

/// `ShutdownGracePeriodByPodPriority`: the time of pods of a priority or more, up to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Period {
    /// The least priority.
    pub priority: i32,
    /// Seconds for all of them together.
    pub shutdown_grace_period_seconds: u64,
}

/// Pods that end together.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Their UIDs.
    pub uids: Vec<String>,
    /// The time that they have.
    pub seconds: u64,
}

/// The two periods of the simple settings: a whole, and what of it is kept for critical pods, in seconds.
pub fn periods(whole: u64, critical: u64) -> Vec<Period> {
    let period = |priority, seconds| Period {
        priority,
        shutdown_grace_period_seconds: seconds,
    };
    match whole {
        0 => Vec::new(),
        whole => vec![
            period(0, whole.saturating_sub(critical)),
            period(CRITICAL, critical),
        ],
    }
}

/// The groups, in the order of their end. Who is below all priorities goes with the lowest; who has no
/// group's worth of pods takes no time.
pub fn groups(periods: &[Period], pods: &[(String, i32)]) -> Vec<Group> {
    let mut periods = periods.to_vec();
    periods.sort_by_key(|period| period.priority);
    let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (uid, priority) in pods {
        let above = periods.partition_point(|period| period.priority <= *priority);
        let at = above.saturating_sub(1);
        groups.entry(at).or_default().push(uid.clone());
    }
    let group = |(at, uids): (usize, Vec<String>)| {
        let period = periods.get(at)?;
        Some(Group {
            uids,
            seconds: period.shutdown_grace_period_seconds,
        })
    };
    groups.into_iter().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(periods: &[Period], pods: &[(&str, i32)]) -> Vec<String> {
        let pods: Vec<_> = pods
            .iter()
            .map(|(uid, p)| ((*uid).to_owned(), *p))
            .collect();
        let groups = groups(periods, &pods);
        let line = |group: &Group| format!("{} {}s", group.uids.join(","), group.seconds);
        groups.iter().map(line).collect()
    }

    #[test]
    fn critical_pods_end_last_in_the_time_that_is_kept_for_them() {
        let periods = periods(30, 10);
        let pods = [
            ("dns", 2_000_001_000),
            ("web", 0),
            ("batch", -5),
            ("db", 1000),
        ];
        assert_eq!(shown(&periods, &pods), ["web,batch,db 20s", "dns 10s"]);
        assert_eq!(shown(&periods, &[("dns", CRITICAL)]), ["dns 10s"]);
        assert!(shown(&periods, &[]).is_empty());
    }

    #[test]
    fn each_priority_has_its_period() {
        let period = |priority, seconds| Period {
            priority,
            shutdown_grace_period_seconds: seconds,
        };
        let periods = [period(100_000, 10), period(10_000, 180), period(0, 60)];
        let pods = [
            ("a", 100_000),
            ("b", 99_999),
            ("c", 1),
            ("d", 10_000),
            ("e", -1),
        ];
        assert_eq!(shown(&periods, &pods), ["c,e 60s", "b,d 180s", "a 10s"]);
    }

    #[test]
    fn without_a_period_nothing_is_waited_for() {
        assert!(periods(0, 0).is_empty());
        assert!(shown(&[], &[("a", 0)]).is_empty());
    }
}
