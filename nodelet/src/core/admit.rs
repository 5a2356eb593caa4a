//! Whether this node takes a pod that was bound to it: the scheduler's view may be old, and
//! pods may be bound by hand.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod};
use peapod_api::k8s_openapi;
use peapod_api::selector::{Requirement, Selector};
use peapod_api::sysctl;

use super::resize::Judgement;
use super::{qos, spec};

/// From this priority on a pod is the system's.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Why a pod is refused; the pod fails with these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `OutOfcpu`, `NodePorts`, `NodeAffinity` ...
    pub reason: String,
    /// The sentence.
    pub message: String,
}

/// Checks a pod against the node and the pods that occupy it. `known` are those of them that the
/// API still has: what others hold for the moment that their end takes, the scheduler has given
/// away already, as kube-scheduler does; but a port cannot be had twice.
pub fn admit<'a>(
    pod: &Pod,
    node: &Node,
    known: impl Iterator<Item = &'a Pod> + Clone,
    all: impl Iterator<Item = &'a Pod>,
) -> Result<(), Refusal> {
    fits(pod, node, known)?;
    selected(pod, node)?;
    ports_free(pod, all)
}

/// Refuses any pod on a machine that is about to go down.
pub fn staying(going: bool) -> Result<(), Refusal> {
    match going {
        false => Ok(()),
        true => Err(Refusal {
            reason: "NodeShutdown".to_owned(),
            message: "Pod was rejected as the node is shutting down.".to_owned(),
        }),
    }
}

/// What only pods that need no memory of their own are kept from.
const MEMORY_PRESSURE: &str = "MemoryPressure";
/// The other conditions of a node that is short of something.
const OTHER_PRESSURE: [&str; 2] = ["DiskPressure", "PIDPressure"];
/// The taint of a node that is short of memory.
const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Refuses a pod on a node that is short of something, as upstream's eviction manager: it would be among the
/// first to go. Short of memory, the node still takes what has asked for some, or tolerates it.
pub fn pressure(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let short: Vec<&str> = conditions
        .unwrap_or_default()
        .iter()
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.type_.as_str())
        .filter(|kind| *kind == MEMORY_PRESSURE || OTHER_PRESSURE.contains(kind))
        .collect();
    let spec = spec::of(pod);
    let critical = spec.priority >= Some(CRITICAL_PRIORITY);
    let fits_memory = || qos::class(spec) != "BestEffort" || tolerates_memory_pressure(pod);
    let taken = critical || short.is_empty() || (short == [MEMORY_PRESSURE] && fits_memory());
    if taken {
        return Ok(());
    }
    Err(Refusal {
        reason: super::end::EVICTED.to_owned(),
        message: format!("The node had condition: [{}]. ", short.join(" ")),
    })
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let mut all = spec::of(pod).tolerations.iter().flatten();
    all.any(|toleration| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (key, effect) = (text(&toleration.key), text(&toleration.effect));
        let exists = toleration.operator.as_deref() == Some("Exists");
        let named = key == MEMORY_TAINT && (exists || text(&toleration.value).is_empty());
        (named || (exists && key.is_empty())) && (effect.is_empty() || effect == "NoSchedule")
    })
}

/// Refuses a pod that wants AppArmor on a host that has none: it would run unconfined.
pub fn apparmor(pod: &Pod, enabled: bool) -> Result<(), Refusal> {
    let spec = spec::of(pod);
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|s| s.app_armor_profile.as_ref());
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let own = containers.filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    let confined = of_pod
        .into_iter()
        .chain(own)
        .any(|profile| profile.type_ != "Unconfined");
    if enabled || !confined {
        return Ok(());
    }
    Err(Refusal {
        reason: "AppArmor".to_owned(),
        message: "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned(),
    })
}

/// Checks the sysctls of a pod: safe ones, and those that this node allows beside them (names, or
/// prefixes with `*`).
pub fn sysctls(pod: &Pod, allowed: &[String]) -> Result<(), Refusal> {
    let spec = spec::of(pod);
    let declared = spec
        .security_context
        .as_ref()
        .and_then(|s| s.sysctls.as_ref());
    for wanted in declared.into_iter().flatten() {
        let name = wanted.name.replace('/', ".");
        let listed = allowed
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == *pattern,
            });
        let host = spec.host_network == Some(true) && name.starts_with("net.")
            || spec.host_ipc == Some(true) && name.starts_with("kernel.");
        let why = match (host, listed || sysctl::is_safe(&name)) {
            (false, true) => continue,
            (true, _) => "not allowed with host namespaces",
            (false, false) => "not allowlisted",
        };
        return Err(Refusal {
            reason: "SysctlForbidden".to_owned(),
            message: format!("forbidden sysctl: {name:?} {why}"),
        });
    }
    Ok(())
}

/// Judges whether the node can give a pod that it runs what the pod now asks for.
pub fn resize<'a>(
    pod: &Pod,
    node: &Node,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Judgement {
    let text = |refusal: Refusal, what: &str| {
        let message = refusal.message.replacen("Pod was rejected: ", "", 1);
        message.replacen("enough resource", &format!("enough {what}"), 1)
    };
    match (fits(pod, node, std::iter::empty()), fits(pod, node, others)) {
        (Err(alone), _) => Judgement::Infeasible(text(alone, "capacity")),
        (Ok(()), Err(beside)) => Judgement::Deferred(text(beside, "resource")),
        (Ok(()), Ok(())) => Judgement::Fits,
    }
}

fn fits<'a>(
    pod: &Pod,
    node: &Node,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Result<(), Refusal> {
    let status = node.status.as_ref();
    let allocatable = qos::amounts(status.and_then(|s| s.allocatable.as_ref()));
    let mut used = qos::Amounts::new();
    let mut count = 0_i64;
    for other in others {
        count += 1;
        for (name, amount) in qos::requests(spec::of(other)) {
            let sum = used.get(&name).map_or(amount, |old| old.plus(amount));
            used.insert(name, sum);
        }
    }
    if let Some(capacity) = allocatable.get("pods").map(|pods| pods.units())
        && count >= capacity
    {
        return Err(out_of("pods", 1, count, capacity));
    }
    for (name, amount) in qos::requests(spec::of(pod)) {
        if amount.is_zero() {
            continue;
        }
        let none = peapod_api::quantity::Quantity::from_units(0);
        let in_use = used.get(&name).copied().unwrap_or(none);
        let capacity = allocatable.get(&name).copied().unwrap_or(none);
        if in_use.plus(amount) > capacity {
            let number = |quantity: peapod_api::quantity::Quantity| match name.as_str() {
                "cpu" => quantity.milli(),
                _ => quantity.units(),
            };
            return Err(out_of(
                &name,
                number(amount),
                number(in_use),
                number(capacity),
            ));
        }
    }
    Ok(())
}

fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> Refusal {
    Refusal {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, \
             requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

fn selected(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let spec = spec::of(pod);
    let plain = spec.node_selector.iter().flatten();
    let by_selector = Selector::from_map(plain).matches(labels);
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let by_affinity = required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, labels, name))
    });
    if by_selector && by_affinity {
        return Ok(());
    }
    Err(Refusal {
        reason: "NodeAffinity".to_owned(),
        message: "Pod was rejected: Predicate NodeAffinity failed: \
                  node(s) didn't match Pod's node affinity/selector"
            .to_owned(),
    })
}

fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |requirement: Result<Requirement, _>, labels: &BTreeMap<String, String>| {
        requirement.is_ok_and(|r| Selector::all(vec![r]).matches(labels))
    };
    let named = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    let of = |r: &k8s_openapi::api::core::v1::NodeSelectorRequirement| {
        Requirement::of(&r.key, &r.operator, r.values.as_deref().unwrap_or_default())
    };
    expressions.iter().all(|r| holds(of(r), labels)) && fields.iter().all(|r| holds(of(r), &named))
}

/// Address, protocol and port of every host port; a wildcard address is an empty one.
fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let spec = spec::of(pod);
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    all.flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|&number| number > 0)?;
            let ip = port
                .host_ip
                .clone()
                .filter(|ip| ip != "0.0.0.0")
                .unwrap_or_default();
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((ip, protocol, host_port))
        })
        .collect()
}

fn ports_free<'a>(pod: &Pod, others: impl Iterator<Item = &'a Pod>) -> Result<(), Refusal> {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return Ok(());
    }
    for taken in others.flat_map(host_ports) {
        let clash = |(ip, protocol, port): &(String, String, i32)| {
            let same_address = ip.is_empty() || taken.0.is_empty() || *ip == taken.0;
            same_address && *protocol == taken.1 && *port == taken.2
        };
        if wanted.iter().any(clash) {
            return Err(Refusal {
                reason: "NodePorts".to_owned(),
                message: "Pod was rejected: Predicate NodePorts failed: \
                          node(s) didn't have free ports for the requested pod ports"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}},
        }))
        .unwrap()
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn reason(pod: &Pod, others: &[Pod]) -> String {
        match admit(pod, &node(), others.iter(), others.iter()) {
            Ok(()) => "admitted".to_owned(),
            Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        }
    }

    #[test]
    fn what_the_api_has_no_more_holds_its_ports_only() {
        let large = pod(json!({"containers": [{"name": "a",
            "ports": [{"containerPort": 80, "hostPort": 80}],
            "resources": {"requests": {"cpu": "600m"}}}]}));
        let mut elsewhere = large.clone();
        let containers = &mut elsewhere.spec.as_mut().unwrap().containers;
        containers[0].ports = None;
        let ending = [large.clone()];
        let beside = |pod: &Pod| admit(pod, &node(), [].iter(), ending.iter());
        assert_eq!(beside(&elsewhere), Ok(()));
        let refusal = beside(&large).unwrap_err();
        assert_eq!(refusal.reason, "NodePorts");
        let known = admit(&elsewhere, &node(), ending.iter(), ending.iter());
        assert_eq!(known.unwrap_err().reason, "OutOfcpu");
    }

    #[test]
    fn nobody_runs_unconfined_by_surprise() {
        let with = |kind: &str| {
            pod(json!({"containers": [{"name": "a",
                "securityContext": {"appArmorProfile": {"type": kind}}}]}))
        };
        assert_eq!(apparmor(&with("Unconfined"), false), Ok(()));
        assert_eq!(apparmor(&with("RuntimeDefault"), true), Ok(()));
        let refusal = apparmor(&with("RuntimeDefault"), false).unwrap_err();
        assert_eq!(refusal.reason, "AppArmor");
    }

    #[test]
    fn who_comes_to_a_node_that_is_short_of_something() {
        let node = |short: &[&str]| -> Node {
            let conditions: Vec<_> = short
                .iter()
                .chain(&["Ready"])
                .map(|kind| json!({"type": kind, "status": "True"}))
                .collect();
            serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap()
        };
        let takes = |spec: &serde_json::Value, short: &[&str]| {
            pressure(&pod(spec.clone()), &node(short)).map_err(|refusal| refusal.message)
        };
        let plain = json!({"containers": [{"name": "a"}]});
        let asking = json!({"containers": [{"name": "a",
            "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerant = json!({"containers": [{"name": "a"}], "tolerations": [
            {"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoSchedule"}]});
        let critical = json!({"containers": [{"name": "a"}], "priority": 2_000_000_000});
        let all = ["MemoryPressure", "DiskPressure"];
        assert_eq!(takes(&plain, &[]), Ok(()));
        let said = "The node had condition: [MemoryPressure]. ";
        assert_eq!(takes(&plain, &all[..1]), Err(said.to_owned()));
        assert_eq!(takes(&asking, &all[..1]), Ok(()));
        assert_eq!(takes(&tolerant, &all[..1]), Ok(()));
        let said = "The node had condition: [MemoryPressure DiskPressure]. ";
        assert_eq!(takes(&asking, &all), Err(said.to_owned()));
        assert!(takes(&tolerant, &["PIDPressure"]).is_err());
        assert_eq!(takes(&critical, &all), Ok(()));
    }

    #[test]
    fn sysctls_of_the_pod_only() {
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        let check = |name: &str, host: bool| {
            let pod = pod(json!({"containers": [], "hostNetwork": host,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}));
            sysctls(&pod, &allowed).map_err(|refusal| refusal.message)
        };
        assert_eq!(check("kernel.shm_rmid_forced", false), Ok(()));
        assert_eq!(check("kernel/msgmax", false), Ok(()));
        assert_eq!(check("net.core.somaxconn", false), Ok(()));
        for (name, host, why) in [
            ("net.core.somaxconnx", false, "not allowlisted"),
            ("vm.swappiness", false, "not allowlisted"),
            (
                "net.ipv4.tcp_rmem",
                true,
                "not allowed with host namespaces",
            ),
        ] {
            assert_eq!(
                check(name, host),
                Err(format!("forbidden sysctl: \"{name}\" {why}"))
            );
        }
    }

    fn cpu(amount: &str) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": amount}}}]}))
    }

    #[test]
    fn resources() {
        assert_eq!(reason(&cpu("600m"), &[cpu("400m")]), "admitted");
        assert_eq!(
            reason(&cpu("700m"), &[cpu("400m")]),
            "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, \
             requested: 700, used: 400, capacity: 1000"
        );
        assert!(reason(&cpu("0"), &[cpu("0"), cpu("0")]).starts_with("OutOfpods"));
    }

    #[test]
    fn node_selector_and_ports() {
        let wants = |disk: &str| pod(json!({"nodeSelector": {"disk": disk}, "containers": []}));
        assert_eq!(reason(&wants("ssd"), &[]), "admitted");
        assert!(reason(&wants("tape"), &[]).starts_with("NodeAffinity"));
        let port = |ip: &str| {
            pod(json!({"containers": [{"name": "a",
                "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]}))
        };
        assert_eq!(reason(&port("10.0.0.1"), &[port("10.0.0.2")]), "admitted");
        assert!(reason(&port("10.0.0.1"), &[port("0.0.0.0")]).starts_with("NodePorts"));
    }
}
