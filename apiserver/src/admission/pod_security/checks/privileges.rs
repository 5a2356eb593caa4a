//! What gives containers more than they need: privileges, capabilities, profiles.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::pod::{Pod, named, plural, quoted, told};
use super::users::or_pod;
use crate::registry::value;

/// No container is privileged.
pub fn privileged(pod: &Pod<'_>) -> Option<String> {
    let path = "securityContext.privileged";
    let names = pod.breaking(|one| value::truth(one, path));
    told("privileged", &names, &format!("must not set {path}=true"))
}

/// No process of a container gets more privileges than its parent has.
pub fn escalation(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let path = "securityContext.allowPrivilegeEscalation";
    let names = pod.breaking(|one| value::at(one, path) != Some(&Value::Bool(false)));
    let must = format!("must set {path}=false");
    told("allowPrivilegeEscalation != false", &names, &must)
}

/// Capabilities that containers may have beside none.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The containers that add capabilities beyond the allowed ones, and what they must not do.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, String) {
    let beyond = |container: &Value| -> Vec<String> {
        let all = value::list(container, "securityContext.capabilities.add").iter();
        let names = all.filter_map(Value::as_str);
        let bad = names.filter(|name| !allowed.contains(name));
        bad.map(str::to_owned).collect()
    };
    let names = pod.breaking(|one| !beyond(one).is_empty());
    let bad: BTreeSet<String> = pod.containers().flat_map(beyond).collect();
    let bad = quoted(&bad);
    let must = format!("must not include {bad} in securityContext.capabilities.add");
    (names, must)
}

/// No container adds capabilities that runtimes do not give by themselves.
pub fn baseline_capabilities(pod: &Pod<'_>) -> Option<String> {
    let (names, must) = adding(pod, &DEFAULT_CAPABILITIES);
    told("non-default capabilities", &names, &must)
}

/// Containers drop all capabilities; they may keep the one to bind low ports.
pub fn restricted_capabilities(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let drops_all = |container: &Value| {
        let dropped = value::list(container, "securityContext.capabilities.drop");
        dropped.iter().any(|one| one == "ALL")
    };
    let keeping = pod.breaking(|one| !drops_all(one));
    let (adding, must_not) = adding(pod, &["NET_BIND_SERVICE"]);
    let must = "must set securityContext.capabilities.drop=[\"ALL\"]";
    let faults = [(keeping, must), (adding, must_not.as_str())].into_iter();
    let faults = faults.filter(|(names, _)| !names.is_empty());
    let told = faults.map(|(names, must)| format!("{} {must}", named("container", &names)));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("unrestricted capabilities ({})", told.join("; ")))
}

/// Nobody leaves AppArmor.
pub fn app_armor(pod: &Pod<'_>) -> Option<String> {
    let path = "securityContext.appArmorProfile.type";
    let who = pod.breakers(|place| value::text(place, path) == "Unconfined")?;
    let must = "must not set AppArmor profile type to \"Unconfined\"";
    Some(format!("forbidden AppArmor profile ({who} {must})"))
}

/// SELinux types are those of containers; users and roles are nobody's to choose.
pub fn selinux(pod: &Pod<'_>) -> Option<String> {
    const TYPES: [(&str, u32); 5] = [
        ("", 0),
        ("container_t", 0),
        ("container_init_t", 0),
        ("container_kvm_t", 0),
        ("container_engine_t", 31),
    ];
    let option = |place: &Value, name: &str| {
        let path = format!("securityContext.seLinuxOptions.{name}");
        value::text(place, &path).to_owned()
    };
    let bad_type = |place: &Value| {
        let given = option(place, "type");
        let mut known = TYPES.iter();
        let may = known.any(|(name, since)| *name == given && pod.edition.since(*since));
        (!may).then_some(given)
    };
    let sets = |place: &Value, name: &str| !option(place, name).is_empty();
    let who = pod.breakers(|place| {
        bad_type(place).is_some() || sets(place, "user") || sets(place, "role")
    })?;
    let types = pod.values(bad_type);
    let mut told = Vec::new();
    if !types.is_empty() {
        told.push(format!("type{} {}", plural(types.len()), quoted(&types)));
    }
    for name in ["user", "role"] {
        if pod.breakers(|place| sets(place, name)).is_some() {
            told.push(format!("{name} may not be set"));
        }
    }
    let told = told.join("; ");
    let must = "set forbidden securityContext.seLinuxOptions:";
    Some(format!("seLinuxOptions ({who} {must} {told})"))
}

/// What is visible in `/proc` of a user namespace of one's own is harmless enough for the baseline.
pub fn baseline_proc_mounts(pod: &Pod<'_>) -> Option<String> {
    match pod.has_own_users() {
        true => None,
        false => proc_mounts(pod),
    }
}

/// What runtimes hide of `/proc` stays hidden.
pub fn proc_mounts(pod: &Pod<'_>) -> Option<String> {
    let bad = |place: &Value| {
        let mount = value::text(place, "securityContext.procMount");
        (!matches!(mount, "" | "Default")).then(|| mount.to_owned())
    };
    let names = pod.breaking(|one| bad(one).is_some());
    let mounts = quoted(pod.values(bad));
    let must = format!("must not set securityContext.procMount to {mounts}");
    told("procMount", &names, &must)
}

const SECCOMP: &str = "securityContext.seccompProfile.type";

/// Nobody leaves seccomp.
pub fn baseline_seccomp(pod: &Pod<'_>) -> Option<String> {
    let who = pod.breakers(|place| value::text(place, SECCOMP) == "Unconfined")?;
    let must = format!("must not set {SECCOMP} to \"Unconfined\"");
    Some(format!("seccompProfile ({who} {must})"))
}

/// Containers have a seccomp profile, or the pod has one for them.
pub fn restricted_seccomp(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let profile = |place: &Value| match value::text(place, SECCOMP) {
        "" => None,
        profile => Some(profile.to_owned()),
    };
    let is_good = |profile: &str| matches!(profile, "RuntimeDefault" | "Localhost");
    let bad = |place: &Value| profile(place).filter(|profile| !is_good(profile));
    if let Some(who) = pod.breakers(|place| bad(place).is_some()) {
        let profiles = quoted(pod.values(bad));
        let must = format!("must not set {SECCOMP} to {profiles}");
        return Some(format!("seccompProfile ({who} {must})"));
    }
    let by_pod = profile(pod.spec).is_some();
    let names = pod.breaking(|one| profile(one).is_none() && !by_pod);
    let must = format!("must set {SECCOMP} to \"RuntimeDefault\" or \"Localhost\"");
    told("seccompProfile", &names, &must).map(|told| or_pod(&told))
}
