//! Which CPUs belong to one container alone, and which to all others. Pure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::set::CpuSet;

/// The CPUs of a container of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// UID of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// The CPUs.
    pub cpus: CpuSet,
}

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Hardware threads, a set for each core.
    pub cores: Vec<CpuSet>,
    /// Those that no container has alone.
    pub reserved: CpuSet,
}

/// The CPUs of a node.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    machine: Machine,
    /// Who has CPUs of its own.
    pub assignments: Vec<Assignment>,
}

// === impl Pool ===

impl Pool {
    /// The CPUs of a machine, some of which have been given away before.
    pub fn new(machine: Machine, assignments: Vec<Assignment>) -> Self {
        Self {
            machine,
            assignments,
        }
    }

    /// Those of everybody who has none of their own.
    pub fn shared(&self) -> CpuSet {
        let all: CpuSet = self
            .machine
            .cores
            .iter()
            .flat_map(|c| c.0.clone())
            .collect();
        self.assignments
            .iter()
            .fold(all, |left, taken| left.without(&taken.cpus))
    }

    /// Those that containers may have for themselves.
    pub fn allocatable(&self) -> CpuSet {
        let all = self.machine.cores.iter().flat_map(|core| core.0.clone());
        all.collect::<CpuSet>().without(&self.machine.reserved)
    }

    /// Those of a container, if it has any.
    pub fn of(&self, pod: &str, container: &str) -> Option<&CpuSet> {
        let mut all = self.assignments.iter();
        let found = all.find(|taken| taken.pod == pod && taken.container == container)?;
        Some(&found.cpus)
    }

    /// Whether a container of this pod has CPUs of its own.
    pub fn has(&self, pod: &str) -> bool {
        self.assignments.iter().any(|taken| taken.pod == pod)
    }

    /// Gives so many CPUs to a container: those that `earlier` containers of its pod, which have
    /// ended, leave behind, then whole cores, then single threads.
    pub fn take(
        &mut self,
        pod: &str,
        container: &str,
        earlier: &[String],
        count: usize,
    ) -> Result<CpuSet, String> {
        if let Some(cpus) = self.of(pod, container) {
            return Ok(cpus.clone());
        }
        let ended = |taken: &Assignment| taken.pod == pod && earlier.contains(&taken.container);
        let left: CpuSet = self
            .assignments
            .iter()
            .filter(|taken| ended(taken))
            .flat_map(|taken| taken.cpus.0.clone())
            .collect();
        let free = self.shared().without(&self.machine.reserved);
        if left.0.len() + free.0.len() < count {
            let all = left.0.len() + free.0.len();
            return Err(format!(
                "{count} CPUs of its own wanted, {all} are left: not enough cpus available"
            ));
        }
        let mut chosen: CpuSet = left.0.into_iter().take(count).collect();
        for core in &self.machine.cores {
            let whole = core.0.iter().all(|cpu| free.0.contains(cpu));
            if whole && chosen.0.len() + core.0.len() <= count {
                chosen.0.extend(&core.0);
            }
        }
        for cpu in &free.0 {
            if chosen.0.len() < count {
                chosen.0.insert(*cpu);
            }
        }
        // What an earlier container had is this one's now.
        for taken in &mut self.assignments {
            if taken.pod == pod {
                taken.cpus = taken.cpus.without(&chosen);
            }
        }
        self.assignments.retain(|taken| !taken.cpus.0.is_empty());
        self.assignments.push(Assignment {
            pod: pod.to_owned(),
            container: container.to_owned(),
            cpus: chosen.clone(),
        });
        Ok(chosen)
    }

    /// Takes back what a pod has.
    pub fn release(&mut self, pod: &str) {
        self.assignments.retain(|taken| taken.pod != pod);
    }

    /// Takes back what pods have that are not among these.
    pub fn retain(&mut self, pods: &HashSet<String>) {
        self.assignments.retain(|taken| pods.contains(&taken.pod));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::try_from(text.to_owned()).unwrap()
    }

    /// Four cores of two threads each; the first core is reserved.
    fn pool() -> Pool {
        let machine = Machine {
            cores: ["0,4", "1,5", "2,6", "3,7"].map(set).to_vec(),
            reserved: set("0,4"),
        };
        Pool::new(machine, Vec::new())
    }

    #[test]
    fn whole_cores_first_and_the_rest_is_shared() {
        let mut pool = pool();
        assert_eq!(pool.take("p", "a", &[], 3), Ok(set("1-2,5")));
        assert_eq!(
            pool.take("p", "a", &[], 3),
            Ok(set("1-2,5")),
            "again the same"
        );
        assert_eq!(pool.shared(), set("0,3-4,6-7"));
        assert_eq!(pool.take("q", "a", &[], 2), Ok(set("3,7")));
        let error = pool.take("r", "a", &[], 2).unwrap_err();
        assert!(error.contains("1 are left"), "{error}");
        assert_eq!(pool.take("r", "a", &[], 1), Ok(set("6")));
        assert_eq!(pool.shared(), set("0,4"), "what is reserved stays");
        pool.release("p");
        assert_eq!(pool.shared(), set("0-2,4-5"));
    }

    #[test]
    fn an_init_container_leaves_its_cpus_to_the_next() {
        let mut pool = pool();
        assert_eq!(pool.take("p", "init", &[], 2), Ok(set("1,5")));
        let earlier = ["init".to_owned()];
        assert_eq!(pool.take("p", "app", &earlier, 4), Ok(set("1-2,5-6")));
        assert_eq!(pool.of("p", "init"), None);
        pool.retain(&HashSet::new());
        assert!(!pool.has("p"));
    }
}
