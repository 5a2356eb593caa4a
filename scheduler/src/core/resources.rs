//! Amounts of resources: what a pod asks for, what a node has and has given away.
//!
//! Units are fixed: CPU in thousandths of a core, everything else in bytes or whole pieces.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use peapod_api::quantity::Quantity;

/// What a container without a CPU request counts for when nodes are scored, in milli-CPU.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container without a memory request counts for when nodes are scored, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// A vector of amounts. Extended resources and huge pages are `scalars`, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local ephemeral storage.
    pub ephemeral: i64,
    /// Everything else, by name.
    pub scalars: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Reads a resource list; `pods` is not a resource here, and what does not parse counts as
    /// nothing (the API server has validated it).
    pub fn of(list: &BTreeMap<String, Text>) -> Self {
        let mut all = Self::default();
        for (name, text) in list {
            let Ok(quantity) = Quantity::try_from(text) else {
                continue;
            };
            match name.as_str() {
                "cpu" => all.milli_cpu = quantity.milli(),
                "memory" => all.memory = quantity.units(),
                "ephemeral-storage" => all.ephemeral = quantity.units(),
                "pods" => {}
                other => *all.scalar_mut(other) = quantity.units(),
            }
        }
        all
    }

    /// How much of the extended resource `name` there is.
    pub fn scalar(&self, name: &str) -> i64 {
        match self.position(name) {
            Ok(at) => self.scalars[at].1,
            Err(_) => 0,
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.scalars
            .binary_search_by(|(known, _)| (**known).cmp(name))
    }

    fn scalar_mut(&mut self, name: &str) -> &mut i64 {
        let at = match self.position(name) {
            Ok(at) => at,
            Err(at) => {
                self.scalars.insert(at, (Arc::from(name), 0));
                at
            }
        };
        &mut self.scalars[at].1
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
        self.scalars.retain(|(_, amount)| *amount != 0);
    }

    /// Raises every amount to at least that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    /// Replaces the amounts that `list` names; pod-level requests stand above the containers'.
    pub fn replace(&mut self, list: &BTreeMap<String, Text>) {
        let other = Self::of(list);
        if list.contains_key("cpu") {
            self.milli_cpu = other.milli_cpu;
        }
        if list.contains_key("memory") {
            self.memory = other.memory;
        }
        for (name, amount) in &other.scalars {
            *self.scalar_mut(name) = *amount;
        }
    }

    fn merge(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.scalars {
            let own = self.scalar_mut(name);
            *own = with(*own, *amount);
        }
    }
}

/// What one container asks for, and how it runs.
pub struct Demand<'a> {
    /// `resources.requests`.
    pub requests: Option<&'a BTreeMap<String, Text>>,
    /// An init container with `restartPolicy: Always`: it runs beside all that follow.
    pub sidecar: bool,
}

/// What a whole pod asks for: its containers together, or the most that any moment of its
/// initialisation needs, whichever is more; then its overhead.
///
/// With `floor`, a container that names no CPU or memory counts with that much, as scores do.
pub fn of_pod<'a>(
    init: impl Iterator<Item = Demand<'a>>,
    containers: impl Iterator<Item = Demand<'a>>,
    pod_level: Option<&BTreeMap<String, Text>>,
    overhead: Option<&BTreeMap<String, Text>>,
    floor: Option<(i64, i64)>,
) -> Resources {
    let mut running = Resources::default();
    for container in containers {
        running.add(&of_container(&container, floor));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in init {
        let mut moment = of_container(&container, floor);
        if container.sidecar {
            running.add(&moment);
            sidecars.add(&moment);
            peak.raise_to(&sidecars);
        } else {
            moment.add(&sidecars);
            peak.raise_to(&moment);
        }
    }
    running.raise_to(&peak);
    if let Some(list) = pod_level {
        running.replace(list);
    }
    if let Some(list) = overhead {
        running.add(&Resources::of(list));
    }
    running
}

fn of_container(container: &Demand<'_>, floor: Option<(i64, i64)>) -> Resources {
    let mut asked = container.requests.map(Resources::of).unwrap_or_default();
    if let Some((milli_cpu, memory)) = floor {
        let names = |name| container.requests.is_some_and(|l| l.contains_key(name));
        if !names("cpu") {
            asked.milli_cpu = milli_cpu;
        }
        if !names("memory") {
            asked.memory = memory;
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> BTreeMap<String, Text> {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, amount)| (name.to_owned(), Text(amount.to_owned())))
            .collect()
    }

    /// `a=1 b=2` is a container; `!` before it makes it a sidecar.
    fn pod(init: &[&str], containers: &[&str], floor: Option<(i64, i64)>) -> Resources {
        let lists = |texts: &[&str]| -> Vec<(BTreeMap<String, Text>, bool)> {
            texts
                .iter()
                .map(|t| (list(t.trim_start_matches('!')), t.starts_with('!')))
                .collect()
        };
        let (init, containers) = (lists(init), lists(containers));
        let demands = |(requests, sidecar)| Demand {
            requests: Some(requests),
            sidecar,
        };
        of_pod(
            init.iter().map(|(l, s)| demands((l, *s))),
            containers.iter().map(|(l, s)| demands((l, *s))),
            None,
            None,
            floor,
        )
    }

    #[test]
    fn the_larger_of_running_and_starting() {
        for (init, containers, milli_cpu, memory) in [
            (vec![], vec!["cpu=1 memory=1Ki", "cpu=500m"], 1500, 1024),
            (vec!["cpu=2"], vec!["cpu=1 memory=1Ki"], 2000, 1024),
            (vec!["!cpu=1"], vec!["cpu=1"], 2000, 0),
            (vec!["!cpu=1", "cpu=2"], vec!["cpu=1"], 3000, 0),
            (vec!["cpu=2", "!cpu=1"], vec!["cpu=500m"], 2000, 0),
        ] {
            let got = pod(&init, &containers, None);
            assert_eq!(
                (got.milli_cpu, got.memory),
                (milli_cpu, memory),
                "{init:?} {containers:?}"
            );
        }
    }

    #[test]
    fn what_is_not_named_counts_with_the_floor() {
        let got = pod(&[], &["cpu=1", "memory=1Ki", ""], Some((100, 200)));
        assert_eq!((got.milli_cpu, got.memory), (1200, 1424));
    }

    #[test]
    fn scalars_are_kept_by_name() {
        let mut have = Resources::of(&list("example.com/b=2 example.com/a=1 pods=110"));
        have.add(&Resources::of(&list("example.com/a=3")));
        assert_eq!(have.scalar("example.com/a"), 4);
        have.subtract(&Resources::of(&list("example.com/a=4")));
        assert_eq!(have.scalars.len(), 1);
    }
}
