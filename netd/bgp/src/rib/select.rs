//! Path selection (RFC 4271 section 9.1.2): step by step, all but the best are put aside. The
//! step at which the last rival went is the reason why a path won.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::paths::{Choice, Path};
use super::route::SourceKind;
use crate::config::Selection;

/// The step of selection at which a path lost, or at which the winner's last rival did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// There is no other.
    OnlyPath,
    /// Not usable: refused, or its next hop is out of reach.
    Eligible,
    /// Not kept for long after its peer went (RFC 9494).
    Fresh,
    /// The higher LOCAL_PREF.
    LocalPref,
    /// It originates here.
    Local,
    /// The shorter AS path.
    AsPathLength,
    /// The lower ORIGIN.
    Origin,
    /// The lower MED.
    Med,
    /// eBGP before iBGP.
    External,
    /// The nearer next hop.
    IgpMetric,
    /// It was chosen before (RFC 5004).
    Existing,
    /// The lower router id.
    RouterId,
    /// The shorter CLUSTER_LIST.
    ClusterListLength,
    /// The lower peer address.
    PeerAddress,
    /// The lower path identifier.
    PathId,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::OnlyPath => "only path",
            Reason::Eligible => "eligible",
            Reason::Fresh => "not long-lived stale",
            Reason::LocalPref => "local preference",
            Reason::Local => "local",
            Reason::AsPathLength => "AS path length",
            Reason::Origin => "origin",
            Reason::Med => "MED",
            Reason::External => "external",
            Reason::IgpMetric => "IGP metric",
            Reason::Existing => "chosen before",
            Reason::RouterId => "router id",
            Reason::ClusterListLength => "cluster list length",
            Reason::PeerAddress => "peer address",
            Reason::PathId => "path id",
        })
    }
}

/// What selection found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Position of the best path, if one is usable.
    pub best: Option<usize>,
    /// Why it won.
    pub reason: Reason,
    /// For each path the step at which it was put aside; the winner's own is `reason`.
    pub lost_at: Vec<Reason>,
    /// Positions of the paths that forward, the best among them.
    pub multipath: Vec<usize>,
}

/// Chooses among the paths of one prefix, explaining itself.
pub fn explain(paths: &[Path], rules: &Selection) -> Verdict {
    let mut contest = Contest {
        paths,
        left: (0..paths.len()).collect(),
        lost_at: vec![Reason::OnlyPath; paths.len()],
        last: Reason::OnlyPath,
    };
    contest.run_to_metric(rules);
    let equal = contest.left.clone();
    contest.run_tie_breaks(rules);
    let best = contest.left.first().copied();
    let mut multipath = best.map_or(Vec::new(), |best| vec![best]);
    if let Some(best) = best {
        contest.lost_at[best] = contest.last;
        let rivals = equal.into_iter().filter(|at| *at != best);
        let fit = rivals.filter(|at| rules.multipath_relax || same_as_path(paths, best, *at));
        multipath.extend(fit.take(usize::from(rules.multipath.saturating_sub(1))));
        multipath.sort_unstable();
    }
    Verdict {
        best,
        reason: contest.last,
        lost_at: contest.lost_at,
        multipath,
    }
}

/// Chooses among the paths of one prefix and marks them.
pub fn choose(paths: &mut [Path], rules: &Selection) {
    if let [only] = paths {
        only.choice = if only.route.eligible() {
            Choice::Best
        } else {
            Choice::Unused
        };
        return;
    }
    let verdict = explain(paths, rules);
    for (at, path) in paths.iter_mut().enumerate() {
        path.choice = match verdict.best {
            Some(best) if best == at => Choice::Best,
            _ if verdict.multipath.contains(&at) => Choice::Multipath,
            _ => Choice::Unused,
        };
    }
}

fn same_as_path(paths: &[Path], a: usize, b: usize) -> bool {
    paths[a].route.attributes().as_path == paths[b].route.attributes().as_path
}

/// The paths that are still in.
struct Contest<'a> {
    paths: &'a [Path],
    left: Vec<usize>,
    lost_at: Vec<Reason>,
    last: Reason,
}

// === impl Contest ===

impl Contest<'_> {
    fn run_to_metric(&mut self, rules: &Selection) {
        self.keep_if(Reason::Eligible, |path| path.route.eligible());
        let long_lived = |path: &Path| path.freshness == super::paths::Freshness::LongLivedStale;
        self.keep_least(Reason::Fresh, long_lived);
        self.keep_least(Reason::LocalPref, |path| {
            u32::MAX - path.route.merits.local_pref
        });
        self.keep_least(Reason::Local, |path| {
            path.route.source.kind != SourceKind::Local
        });
        self.keep_least(Reason::AsPathLength, |path| path.route.merits.hops);
        self.keep_least(Reason::Origin, |path| path.route.merits.origin);
        self.drop_higher_med(rules);
        self.keep_least(Reason::External, |path| {
            path.route.source.kind == SourceKind::Internal
        });
        self.keep_least(Reason::IgpMetric, |path| path.route.metric());
    }

    fn run_tie_breaks(&mut self, rules: &Selection) {
        if rules.prefer_existing {
            let existing = |path: &Path| {
                path.choice == Choice::Best && path.route.source.kind == SourceKind::External
            };
            self.keep_least(Reason::Existing, |path| !existing(path));
        }
        self.keep_least(Reason::RouterId, |path| path.route.merits.router_id);
        self.keep_least(Reason::ClusterListLength, |path| path.route.merits.clusters);
        self.keep_least(Reason::PeerAddress, |path| path.route.source.address);
        self.keep_least(Reason::PathId, |path| (path.peer(), path.id));
    }

    fn keep_least<K: Ord>(&mut self, step: Reason, key: impl Fn(&Path) -> K) {
        if self.left.len() < 2 {
            return;
        }
        if let Some(least) = self.left.iter().map(|at| key(&self.paths[*at])).min() {
            self.keep_if(step, |path| key(path).cmp(&least) == Ordering::Equal);
        }
    }

    fn keep_if(&mut self, step: Reason, keep: impl Fn(&Path) -> bool) {
        let before = self.left.len();
        let (paths, lost_at) = (self.paths, &mut self.lost_at);
        self.left.retain(|at| {
            let stays = keep(&paths[*at]);
            if !stays {
                lost_at[*at] = step;
            }
            stays
        });
        if self.left.len() < before && !self.left.is_empty() {
            self.last = step;
        }
    }

    /// MED says something only among paths of the same neighbour AS.
    fn drop_higher_med(&mut self, rules: &Selection) {
        if self.left.len() < 2 {
            return;
        }
        let missing = if rules.missing_med_worst { u32::MAX } else { 0 };
        let med = |path: &Path| path.route.merits.med.unwrap_or(missing);
        let group = |path: &Path| {
            if rules.always_compare_med {
                0
            } else {
                path.route.merits.neighbor_as
            }
        };
        let rivals: Vec<(u32, u32)> = self
            .left
            .iter()
            .map(|at| (group(&self.paths[*at]), med(&self.paths[*at])))
            .collect();
        self.keep_if(Reason::Med, |path| {
            !rivals
                .iter()
                .any(|(rival, lower)| *rival == group(path) && *lower < med(path))
        });
    }
}
