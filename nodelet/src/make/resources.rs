//! From requests and limits to what the kernel understands.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use peapod_api::k8s_openapi;
use peapod_api::quantity::Quantity;

use crate::core::qos::{self, Amounts};
use crate::runtime::{QosClass, Resources};

/// The scheduler's period, microseconds.
const PERIOD_US: i64 = 100_000;
/// The kernel takes no quota below this, microseconds.
const LEAST_QUOTA_US: i64 = 1_000;

/// A container's limits.
pub fn container(resources: Option<&ResourceRequirements>) -> Resources {
    let limits = qos::amounts(resources.and_then(|r| r.limits.as_ref()));
    let mut requests = limits.clone();
    requests.extend(qos::amounts(resources.and_then(|r| r.requests.as_ref())));
    kernel(&requests, &limits)
}

/// The whole pod's: a limit only where every container has one.
pub fn pod(spec: &PodSpec) -> Resources {
    let requests = qos::requests(spec);
    let declared = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let mut limits = qos::amounts(declared);
    for name in ["cpu", "memory"] {
        if !limits.contains_key(name)
            && let Some(sum) = sum_of_limits(spec, name)
        {
            limits.insert(name.to_owned(), sum);
        }
    }
    for (name, more) in qos::amounts(spec.overhead.as_ref()) {
        if let Some(limit) = limits.get_mut(&name) {
            *limit = limit.plus(more);
        }
    }
    kernel(&requests, &limits)
}

/// The sum of the containers' limits, with the largest init container; `None` if one has none.
fn sum_of_limits(spec: &PodSpec, name: &str) -> Option<Quantity> {
    let limit = |resources: Option<&ResourceRequirements>| {
        let amounts = qos::amounts(resources.and_then(|r| r.limits.as_ref()));
        amounts.get(name).copied().filter(|q| !q.is_zero())
    };
    let mut sum = Quantity::from_units(0);
    for app in &spec.containers {
        sum = sum.plus(limit(app.resources.as_ref())?);
    }
    let mut most = sum;
    for init in spec.init_containers.iter().flatten() {
        let own = limit(init.resources.as_ref())?;
        if init.restart_policy.as_deref() == Some("Always") {
            most = most.plus(own);
        } else {
            most = most.max(own);
        }
    }
    Some(most)
}

fn kernel(requests: &Amounts, limits: &Amounts) -> Resources {
    let shares = requests
        .get("cpu")
        .map_or(2, |cpu| (cpu.milli() * 1024 / 1000).max(2));
    let quota = limits.get("cpu").filter(|cpu| !cpu.is_zero());
    let quota = quota.map(|cpu| (cpu.milli() * PERIOD_US / 1000).max(LEAST_QUOTA_US));
    let memory = limits.get("memory").filter(|memory| !memory.is_zero());
    let pages = limits.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix("hugepages-")?;
        let size = format!("{}B", size.strip_suffix('i')?);
        Some((size, u64::try_from(amount.units()).ok()?))
    });
    Resources {
        cpu_shares: u64::try_from(shares.min(262_144)).ok(),
        cpu_quota_us: quota,
        cpu_period_us: quota.and_then(|_| u64::try_from(PERIOD_US).ok()),
        memory_limit_bytes: memory.map(|memory| memory.units()),
        hugepages: pages.collect(),
        ..Resources::default()
    }
}

/// The runtime's word for the class.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    match qos::class(spec) {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        _ => QosClass::BestEffort,
    }
}

/// `oom_score_adj` of a container: the less it asked for, the earlier it goes.
pub fn oom_score(
    spec: &PodSpec,
    resources: Option<&ResourceRequirements>,
    node_memory_bytes: i64,
) -> i32 {
    /// The highest system priority classes are never chosen.
    const CRITICAL_PRIORITY: i32 = 2_000_000_000;
    if spec
        .priority
        .is_some_and(|priority| priority >= CRITICAL_PRIORITY)
    {
        return -997;
    }
    match qos::class(spec) {
        "Guaranteed" => -997,
        "Burstable" => {
            let requests = qos::amounts(resources.and_then(|r| r.requests.as_ref()));
            let asked = requests.get("memory").map_or(0, |memory| memory.units());
            let asked = asked.saturating_add(share_of_rest(spec));
            let share = asked.saturating_mul(1000) / node_memory_bytes.max(1);
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
        _ => 1000,
    }
}

/// What each container has of the memory that the pod requests as a whole and none of them does.
fn share_of_rest(spec: &PodSpec) -> i64 {
    let memory = |resources: Option<&ResourceRequirements>| {
        let requests = qos::amounts(resources.and_then(|r| r.requests.as_ref()));
        requests.get("memory").map(|memory| memory.units())
    };
    let Some(whole) = memory(spec.resources.as_ref()) else {
        return 0;
    };
    let own = spec
        .containers
        .iter()
        .map(|c| memory(c.resources.as_ref()).unwrap_or(0));
    let rest = own.fold(whole, i64::saturating_sub).max(0);
    rest / i64::try_from(spec.containers.len().max(1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kernel_units() {
        let resources: ResourceRequirements = serde_json::from_value(json!({
            "requests": {"cpu": "250m"},
            "limits": {"cpu": "1500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
        }))
        .unwrap();
        let kernel = container(Some(&resources));
        assert_eq!(kernel.cpu_shares, Some(256));
        assert_eq!(kernel.cpu_quota_us, Some(150_000));
        assert_eq!(kernel.memory_limit_bytes, Some(64 << 20));
        assert_eq!(kernel.hugepages["2MB"], 4 << 20);
        assert_eq!(container(None).cpu_shares, Some(2));
    }

    #[test]
    fn memory_of_the_whole_pod_counts_for_each_container() {
        let ask = |memory: &str| json!({"requests": {"memory": memory}});
        let spec: PodSpec =
            serde_json::from_value(json!({"resources": ask("500Mi"), "containers": [
            {"name": "a", "resources": ask("100Mi")}, {"name": "b"}]}))
            .unwrap();
        let score = |n: usize| oom_score(&spec, spec.containers[n].resources.as_ref(), 1000 << 20);
        // Its own, and half of the 400 that no container has asked for.
        assert_eq!((score(0), score(1)), (700, 800));
    }

    #[test]
    fn a_pod_is_limited_only_if_all_of_it_is() {
        let spec = |second: serde_json::Value| -> PodSpec {
            let limit = json!({"limits": {"memory": "10Mi"}});
            serde_json::from_value(json!({"containers": [
                {"name": "a", "resources": limit}, {"name": "b", "resources": second}]}))
            .unwrap()
        };
        assert_eq!(pod(&spec(json!({}))).memory_limit_bytes, None);
        let both = pod(&spec(json!({"limits": {"memory": "5Mi"}})));
        assert_eq!(both.memory_limit_bytes, Some(15 << 20));
        let mut heavy = spec(json!({"limits": {"memory": "5Mi"}}));
        let overhead = json!({"memory": "7Mi", "cpu": "1"});
        heavy.overhead = serde_json::from_value(overhead).unwrap();
        let heavy = pod(&heavy);
        assert_eq!(heavy.memory_limit_bytes, Some(22 << 20));
        assert_eq!((heavy.cpu_shares, heavy.cpu_quota_us), (Some(1024), None));
    }
}
