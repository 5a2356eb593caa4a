//! CPUs that a container has for itself (`cpuManagerPolicy: static`): containers of Guaranteed pods
//! that ask for whole CPUs. All others share what is left, and move when that changes.
//!
//! [`pool`] decides, purely; here are the machine's topology, what is kept on disk, and the writes to
//! running containers. Without the policy nothing of it happens.

pub mod pool;
pub mod set;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use peapod_api::k8s_openapi;

use self::pool::{Assignment, Machine, Pool};
use self::set::CpuSet;
use crate::core::{Kind, qos, spec_of, view};
use crate::kubelet_config::{CpuManagerPolicy, KubeletConfiguration};
use crate::runtime::{ContainerState, Resources, Runtime};
use crate::whole_file::write_json;

const SYSFS: &str = "/sys/devices/system/cpu";

/// The node's CPUs; empty without the static policy.
pub struct Cpus {
    path: PathBuf,
    pool: Option<Mutex<Pool>>,
    /// One change at a time, with the writes that follow from it.
    change: tokio::sync::Mutex<()>,
}

// === impl Cpus ===

impl Cpus {
    /// The CPUs of this machine; `path` keeps who has which.
    pub fn open(config: &KubeletConfiguration, path: PathBuf) -> Self {
        let pool = (config.cpu_manager_policy == CpuManagerPolicy::Static).then(|| {
            let machine = Machine {
                cores: cores(Path::new(SYSFS)),
                reserved: config.reserved_system_cpus.clone(),
            };
            Mutex::new(Pool::new(machine, read(&path)))
        });
        Self {
            path,
            pool,
            change: tokio::sync::Mutex::default(),
        }
    }

    /// Whether a pod has CPUs of its own.
    pub fn has(&self, pod_uid: &str) -> bool {
        self.pool
            .as_ref()
            .is_some_and(|pool| pool.lock().has(pod_uid))
    }

    /// The CPUs that a container has for itself.
    pub fn own(&self, pod_uid: &str, container: &str) -> Vec<i64> {
        let own = self
            .pool
            .as_ref()
            .and_then(|pool| pool.lock().of(pod_uid, container).cloned());
        numbers(&own.unwrap_or_default())
    }

    /// The CPUs that containers may have for themselves, given away or not; none without the static policy.
    pub fn allocatable(&self) -> Vec<i64> {
        let all = self.pool.as_ref().map(|pool| pool.lock().allocatable());
        numbers(&all.unwrap_or_default())
    }

    /// The CPUs that a container starts on; `None` for any. Where it gets its own, the others have left
    /// them when this returns.
    pub async fn assign(
        &self,
        runtime: &dyn Runtime,
        pod: &Pod,
        container: &Container,
    ) -> Result<Option<String>, String> {
        let Some(pool) = &self.pool else {
            return Ok(None);
        };
        let _change = self.change.lock().await;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(count) = whole_cpus(pod, container) else {
            return Ok(Some(pool.lock().shared().to_string()));
        };
        let init = view(pod).filter(|view| view.kind == Kind::Init);
        let earlier: Vec<String> = init.map(|view| view.name.to_owned()).collect();
        let cpus = pool.lock().take(uid, &container.name, &earlier, count)?;
        self.changed(pool, runtime).await?;
        Ok(Some(cpus.to_string()))
    }

    /// Takes back what a pod has.
    pub async fn release(&self, runtime: &dyn Runtime, pod_uid: &str) {
        if self.has(pod_uid) {
            self.change(runtime, |pool| pool.release(pod_uid)).await;
        }
    }

    /// Takes back what pods have that are not among these.
    pub async fn retain(&self, runtime: &dyn Runtime, pods: &HashSet<String>) {
        self.change(runtime, |pool| pool.retain(pods)).await;
    }

    async fn change(&self, runtime: &dyn Runtime, change: impl FnOnce(&mut Pool)) {
        let Some(pool) = &self.pool else { return };
        let _change = self.change.lock().await;
        change(&mut pool.lock());
        if let Err(error) = self.changed(pool, runtime).await {
            tracing::warn!(error, "CPUs are not shared as they should be");
        }
    }

    /// Keeps who has which, and moves the containers that share.
    async fn changed(&self, pool: &Mutex<Pool>, runtime: &dyn Runtime) -> Result<(), String> {
        let (kept, shared) = {
            let pool = pool.lock();
            (pool.assignments.clone(), pool.shared().to_string())
        };
        write_json(&self.path, &kept).map_err(|e| format!("{}: {e}", self.path.display()))?;
        let limits = Resources {
            cpuset_cpus: Some(shared),
            ..Resources::default()
        };
        let containers = runtime.containers().await.map_err(|e| e.to_string())?;
        for container in containers {
            let own = pool
                .lock()
                .of(&container.pod_uid, &container.name)
                .is_some();
            if own || !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            // One that ends meanwhile needs no CPUs.
            if let Err(error) = runtime.update_container(&container.id, &limits).await {
                tracing::debug!(container.id = %container.id, %error, "a container stays on its CPUs");
            }
        }
        Ok(())
    }
}

fn numbers(cpus: &CpuSet) -> Vec<i64> {
    cpus.0.iter().map(|cpu| i64::from(*cpu)).collect()
}

/// How many CPUs a container wants for itself.
fn whole_cpus(pod: &Pod, container: &Container) -> Option<usize> {
    if qos::class(spec_of(pod)) != "Guaranteed" {
        return None;
    }
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let milli = qos::amounts(limits).get("cpu")?.milli();
    let whole = milli > 0 && milli % 1000 == 0;
    usize::try_from(milli / 1000).ok().filter(|_| whole)
}

/// The hardware threads of each core.
fn cores(sysfs: &Path) -> Vec<CpuSet> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        CpuSet::try_from(text).ok()
    };
    let mut cores: Vec<CpuSet> = Vec::new();
    for cpu in read(sysfs.join("online")).unwrap_or_default().0 {
        let siblings = format!("cpu{cpu}/topology/thread_siblings_list");
        let core = read(sysfs.join(siblings));
        let core = core.unwrap_or_else(|| CpuSet::from_iter([cpu]));
        if !cores.contains(&core) {
            cores.push(core);
        }
    }
    cores
}

fn read(path: &Path) -> Vec<Assignment> {
    let Ok(text) = std::fs::read(path) else {
        return Vec::new();
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "who has which CPUs is not known");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_cpus_of_guaranteed_pods_only() {
        let wants = |cpu: &str, request: &str| {
            let resources = json!({"limits": {"cpu": cpu, "memory": "1Mi"},
                "requests": {"cpu": request, "memory": "1Mi"}});
            let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
                {"name": "a", "resources": resources}]}}))
            .unwrap();
            whole_cpus(&pod, &pod.spec.as_ref().unwrap().containers[0])
        };
        assert_eq!(wants("2", "2"), Some(2));
        assert_eq!(wants("2000m", "2"), Some(2));
        assert_eq!(wants("1500m", "1500m"), None);
        assert_eq!(wants("2", "1"), None);
    }

    #[test]
    fn the_machines_cores() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("online"), "0-3\n").unwrap();
        for (cpu, siblings) in [(0, "0,2\n"), (1, "1,3\n"), (2, "0,2\n")] {
            let topology = dir.path().join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
        }
        let found: Vec<String> = cores(dir.path()).iter().map(CpuSet::to_string).collect();
        assert_eq!(found, ["0,2", "1,3", "3"]);
    }
}
