//! What reaches for the host: its namespaces, paths, ports, kernel parameters and volumes.

use std::collections::BTreeSet;

use peapod_api::sysctl;
use serde_json::Value;

use super::super::pod::{Pod, named, plural, quoted, told, uses};
use crate::registry::value;

/// No namespace is the host's.
pub fn namespaces(pod: &Pod<'_>) -> Option<String> {
    let used = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| value::truth(pod.spec, field))
        .map(|field| format!("{field}=true"));
    let used: Vec<String> = used.collect();
    (!used.is_empty()).then(|| format!("host namespaces ({})", used.join(", ")))
}

/// No volume is a path of the host's.
pub fn paths(pod: &Pod<'_>) -> Option<String> {
    let volumes = value::list(pod.spec, "volumes").iter();
    let names = volumes.filter(|one| one.get("hostPath").is_some());
    let names: Vec<&str> = names.map(|one| value::text(one, "name")).collect();
    (!names.is_empty()).then(|| format!("hostPath volumes ({})", named("volume", &names)))
}

/// No port is one of the host's.
pub fn ports(pod: &Pod<'_>) -> Option<String> {
    let ports = |container: &Value| -> Vec<i64> {
        let ports = value::list(container, "ports").iter();
        let used = ports.filter_map(|port| value::integer(port, "hostPort"));
        used.filter(|port| *port != 0).collect()
    };
    let names = pod.breaking(|one| !ports(one).is_empty());
    let used: BTreeSet<i64> = pod.containers().flat_map(ports).collect();
    let shown: Vec<String> = used.iter().map(ToString::to_string).collect();
    let (verb, many) = (uses(names.len()), plural(used.len()));
    let uses = format!("{verb} hostPort{many} {}", shown.join(", "));
    told("hostPort", &names, &uses)
}

/// No probe or lifecycle handler is sent to a host of the pod's choice.
pub fn probes(pod: &Pod<'_>) -> Option<String> {
    let hosts = |container: &Value| -> BTreeSet<String> {
        let handlers = [
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle.postStart",
            "lifecycle.preStop",
        ];
        let actions = ["httpGet", "tcpSocket"];
        let places = handlers
            .iter()
            .flat_map(|handler| actions.map(|action| format!("{handler}.{action}.host")));
        let given = places.map(|place| value::text(container, &place).to_owned());
        given.filter(|host| !host.is_empty()).collect()
    };
    let names = pod.breaking(|one| !hosts(one).is_empty());
    let used: BTreeSet<String> = pod.containers().flat_map(hosts).collect();
    let (verb, many) = (uses(names.len()), plural(used.len()));
    let uses = format!("{verb} probe or lifecycle host{many} {}", quoted(&used));
    told("probe or lifecycle host", &names, &uses)
}

/// No container is a process of a Windows host.
pub fn process(pod: &Pod<'_>) -> Option<String> {
    let path = "securityContext.windowsOptions.hostProcess";
    let who = pod.breakers(|place| value::truth(place, path))?;
    Some(format!("hostProcess ({who} must not set {path}=true)"))
}

/// Kernel parameters are those that are the pod's own.
pub fn sysctls(pod: &Pod<'_>) -> Option<String> {
    let is_safe = |name: &str| {
        let since = sysctl::safe_since(name);
        since.is_some_and(|since| pod.edition.since(since))
    };
    let all = value::list(pod.spec, "securityContext.sysctls").iter();
    let names = all.map(|one| value::text(one, "name"));
    let bad: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    (!bad.is_empty()).then(|| format!("forbidden sysctls ({})", bad.join(", ")))
}

/// Volumes are of the types that give nothing of the host.
pub fn volumes(pod: &Pod<'_>) -> Option<String> {
    const ALLOWED: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let source = |volume: &'_ Value| {
        let fields = volume.as_object()?.keys();
        let mut bad = fields.filter(|field| {
            let field = field.as_str();
            field != "name" && !ALLOWED.contains(&field)
        });
        bad.next().cloned()
    };
    let all = value::list(pod.spec, "volumes").iter();
    let bad = all.filter_map(|volume| Some((value::text(volume, "name"), source(volume)?)));
    let (names, kinds): (Vec<&str>, BTreeSet<String>) = bad.unzip();
    (!names.is_empty()).then(|| {
        let (verb, many) = (uses(names.len()), plural(kinds.len()));
        let (who, kinds) = (named("volume", &names), quoted(&kinds));
        format!("restricted volume types ({who} {verb} restricted volume type{many} {kinds})")
    })
}
