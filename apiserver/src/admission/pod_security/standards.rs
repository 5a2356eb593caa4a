//! What the standards demand of a pod's specification, each demand a function, in upstream's
//! words. Pure. Standards grow with Kubernetes' versions: what is demanded since when stands in
//! one table.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use std::collections::BTreeSet;
use std::fmt;

use peapod_api::sysctl;
use serde_json::Value;

use crate::registry::value;

/// A standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standard {
    /// Anything goes.
    Privileged,
    /// No known way to more privileges.
    Baseline,
    /// What is good practice.
    Restricted,
}

impl Standard {
    /// Reads what labels have.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Privileged, Self::Baseline, Self::Restricted];
        all.into_iter().find(|one| one.name() == text)
    }

    /// As labels have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Which edition of the standards is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    /// The newest.
    Latest,
    /// That of Kubernetes 1.N.
    Minor(u32),
}

// === impl Edition ===

impl Edition {
    /// Reads `latest` or `v1.30`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0');
        let digits = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit());
        let minor = minor.parse().ok().filter(|_| plain && digits)?;
        Some(Self::Minor(minor))
    }

    fn since(self, minor: u32) -> bool {
        match self {
            Self::Latest => true,
            Self::Minor(own) => own >= minor,
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// Something that a standard demands.
struct Demand {
    check: Check,
    of: Standard,
    /// The minor version since which it is demanded.
    since: u32,
    /// The minor version since which the restricted standard has something stricter instead.
    replaced: Option<u32>,
}

const fn baseline(check: Check, since: u32, replaced: Option<u32>) -> Demand {
    Demand {
        check,
        of: Standard::Baseline,
        since,
        replaced,
    }
}

const fn restricted(check: Check, since: u32) -> Demand {
    Demand {
        check,
        of: Standard::Restricted,
        since,
        replaced: None,
    }
}

const DEMANDS: [Demand; 19] = [
    baseline(app_armor, 0, None),
    baseline(host_namespaces, 0, None),
    baseline(host_paths, 0, None),
    baseline(host_ports, 0, None),
    baseline(host_probes, 34, None),
    baseline(privileged, 0, None),
    baseline(baseline_proc_mounts, 0, Some(0)),
    baseline(selinux, 0, None),
    baseline(sysctls, 0, None),
    baseline(host_process, 0, None),
    baseline(baseline_capabilities, 0, Some(22)),
    baseline(baseline_seccomp, 19, Some(19)),
    restricted(proc_mounts, 0),
    restricted(escalation, 8),
    restricted(restricted_capabilities, 22),
    restricted(volumes, 0),
    restricted(non_root, 0),
    restricted(root_user, 23),
    restricted(restricted_seccomp, 19),
];

/// What a specification breaks.
pub fn check(standard: Standard, edition: Edition, spec: &Value) -> Vec<String> {
    let pod = Pod { spec, edition };
    let demanded = |demand: &&Demand| {
        let stricter = demand.replaced.is_some_and(|minor| edition.since(minor));
        let of_standard = match standard {
            Standard::Privileged => false,
            Standard::Baseline => demand.of == Standard::Baseline,
            Standard::Restricted => !stricter,
        };
        of_standard && edition.since(demand.since)
    };
    let demands = DEMANDS.iter().filter(demanded);
    demands.filter_map(|demand| (demand.check)(&pod)).collect()
}

type Check = for<'a> fn(&Pod<'a>) -> Option<String>;

struct Pod<'a> {
    spec: &'a Value,
    edition: Edition,
}

impl<'a> Pod<'a> {
    /// The containers of all sorts.
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| value::list(spec, list))
    }

    /// Root in it is nobody on the host.
    fn has_own_users(&self) -> bool {
        value::at(self.spec, "hostUsers") == Some(&Value::Bool(false))
    }

    /// Whether it is for Windows, which knows less of what is demanded, as later editions see.
    fn is_of_windows(&self) -> bool {
        self.edition.since(25) && value::text(self.spec, "os.name") == "windows"
    }

    /// The names of the containers that break a demand.
    fn breaking(&self, breaks: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let all = self.containers().filter(|one| breaks(one));
        all.map(|one| value::text(one, "name")).collect()
    }
}

/// `container "a"`, `containers "a", "b"`.
fn named(what: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let plural = if names.len() > 1 { "s" } else { "" };
    format!("{what}{plural} {}", quoted.join(", "))
}

/// The demand that containers break, `None` if none does.
fn told(why: &str, names: &[&str], must: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("{why} ({} {must})", named("container", names)))
}

fn app_armor(pod: &Pod<'_>) -> Option<String> {
    let path = "securityContext.appArmorProfile.type";
    let unconfined = |place: &Value| value::text(place, path) == "Unconfined";
    let names = pod.breaking(unconfined);
    let mut who = Vec::new();
    if unconfined(pod.spec) {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(named("container", &names));
    }
    (!who.is_empty()).then(|| {
        let must = "must not set AppArmor profile type to \"Unconfined\"";
        format!("forbidden AppArmor profile ({} {must})", who.join(" and "))
    })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<String> {
    let used = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| value::truth(pod.spec, field))
        .map(|field| format!("{field}=true"));
    let used: Vec<String> = used.collect();
    (!used.is_empty()).then(|| format!("host namespaces ({})", used.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<String> {
    let volumes = value::list(pod.spec, "volumes").iter();
    let names = volumes.filter(|one| one.get("hostPath").is_some());
    let names: Vec<&str> = names.map(|one| value::text(one, "name")).collect();
    (!names.is_empty()).then(|| format!("hostPath volumes ({})", named("volume", &names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<String> {
    let ports = |container: &Value| -> Vec<i64> {
        let ports = value::list(container, "ports").iter();
        let used = ports.filter_map(|port| value::integer(port, "hostPort"));
        used.filter(|port| *port != 0).collect()
    };
    let names = pod.breaking(|one| !ports(one).is_empty());
    let used: BTreeSet<i64> = pod.containers().flat_map(ports).collect();
    let shown: Vec<String> = used.iter().map(ToString::to_string).collect();
    let many = if used.len() > 1 { "s" } else { "" };
    let verb = if names.len() > 1 { "use" } else { "uses" };
    told(
        "hostPort",
        &names,
        &format!("{verb} hostPort{many} {}", shown.join(", ")),
    )
}

fn host_probes(pod: &Pod<'_>) -> Option<String> {
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
    let shown: Vec<String> = used.iter().map(|host| format!("{host:?}")).collect();
    let many = if used.len() > 1 { "s" } else { "" };
    let verb = if names.len() > 1 { "use" } else { "uses" };
    let uses = format!("{verb} probe or lifecycle host{many} {}", shown.join(", "));
    told("probe or lifecycle host", &names, &uses)
}

fn privileged(pod: &Pod<'_>) -> Option<String> {
    let names = pod.breaking(|one| value::truth(one, "securityContext.privileged"));
    told(
        "privileged",
        &names,
        "must not set securityContext.privileged=true",
    )
}

/// What is visible in `/proc` of a user namespace of one's own is harmless enough for the baseline.
fn baseline_proc_mounts(pod: &Pod<'_>) -> Option<String> {
    match pod.has_own_users() {
        true => None,
        false => proc_mounts(pod),
    }
}

fn proc_mounts(pod: &Pod<'_>) -> Option<String> {
    let mount = |one: &Value| value::text(one, "securityContext.procMount").to_owned();
    let names = pod.breaking(|one| !matches!(mount(one).as_str(), "" | "Default"));
    let must = "must not set securityContext.procMount to \"Unmasked\"";
    told("procMount", &names, must)
}

fn selinux(pod: &Pod<'_>) -> Option<String> {
    const TYPES: [(&str, u32); 5] = [
        ("", 0),
        ("container_t", 0),
        ("container_init_t", 0),
        ("container_kvm_t", 0),
        ("container_engine_t", 31),
    ];
    let may = |kind: &str| {
        let mut known = TYPES.iter();
        known.any(|(name, since)| *name == kind && pod.edition.since(*since))
    };
    let options = |place: &Value| place["securityContext"]["seLinuxOptions"].clone();
    let places = std::iter::once(pod.spec).chain(pod.containers());
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut who = Vec::new();
    for place in places {
        let options = options(place);
        let kind = value::text(&options, "type").to_owned();
        let bad_kind = !may(&kind);
        let (has_user, has_role) = (
            !value::text(&options, "user").is_empty(),
            !value::text(&options, "role").is_empty(),
        );
        if bad_kind || has_user || has_role {
            who.push(match place.get("containers").is_some() {
                true => "pod".to_owned(),
                false => named("container", &[value::text(place, "name")]),
            });
        }
        if bad_kind {
            kinds.insert(format!("{kind:?}"));
        }
        user |= has_user;
        role |= has_role;
    }
    let mut set = Vec::new();
    if !kinds.is_empty() {
        set.push(format!(
            "type{} {}",
            if kinds.len() > 1 { "s" } else { "" },
            kinds.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    set.extend(user.then(|| "user may not be set".to_owned()));
    set.extend(role.then(|| "role may not be set".to_owned()));
    (!who.is_empty()).then(|| {
        format!(
            "seLinuxOptions ({} set forbidden securityContext.seLinuxOptions: {})",
            who.join(" and "),
            set.join("; ")
        )
    })
}

fn sysctls(pod: &Pod<'_>) -> Option<String> {
    let is_safe = |name: &str| {
        let since = sysctl::safe_since(name);
        since.is_some_and(|since| pod.edition.since(since))
    };
    let all = value::list(pod.spec, "securityContext.sysctls").iter();
    let names = all.map(|one| value::text(one, "name"));
    let bad: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    (!bad.is_empty()).then(|| format!("forbidden sysctls ({})", bad.join(", ")))
}

fn host_process(pod: &Pod<'_>) -> Option<String> {
    let path = "securityContext.windowsOptions.hostProcess";
    let names = pod.breaking(|one| value::truth(one, path));
    let must = "must not set securityContext.windowsOptions.hostProcess=true";
    if value::truth(pod.spec, path) {
        return Some(format!("hostProcess (pod {must})"));
    }
    told("hostProcess", &names, must)
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

/// The capabilities that containers add beyond the allowed ones.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let beyond = |container: &Value| -> Vec<String> {
        let all = value::list(container, "securityContext.capabilities.add").iter();
        let names = all.filter_map(Value::as_str);
        let bad = names.filter(|name| !allowed.contains(name));
        bad.map(|name| format!("{name:?}")).collect()
    };
    let names = pod.breaking(|one| !beyond(one).is_empty());
    (names, pod.containers().flat_map(beyond).collect())
}

fn baseline_capabilities(pod: &Pod<'_>) -> Option<String> {
    let (names, bad) = added(pod, &DEFAULT_CAPABILITIES);
    let bad = bad.into_iter().collect::<Vec<_>>().join(", ");
    let must = format!("must not include {bad} in securityContext.capabilities.add");
    told("non-default capabilities", &names, &must)
}

fn restricted_capabilities(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let drops_all = |container: &Value| {
        let dropped = value::list(container, "securityContext.capabilities.drop");
        dropped.iter().any(|one| one == "ALL")
    };
    let keeping = pod.breaking(|one| !drops_all(one));
    let (adding, bad) = added(pod, &["NET_BIND_SERVICE"]);
    let mut parts = Vec::new();
    if !keeping.is_empty() {
        let who = named("container", &keeping);
        parts.push(format!(
            "{who} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if !adding.is_empty() {
        let who = named("container", &adding);
        let bad = bad.into_iter().collect::<Vec<_>>().join(", ");
        parts.push(format!(
            "{who} must not include {bad} in securityContext.capabilities.add"
        ));
    }
    (!parts.is_empty()).then(|| format!("unrestricted capabilities ({})", parts.join("; ")))
}

const SECCOMP: &str = "securityContext.seccompProfile.type";

fn baseline_seccomp(pod: &Pod<'_>) -> Option<String> {
    let unconfined = |place: &Value| value::text(place, SECCOMP) == "Unconfined";
    let names = pod.breaking(unconfined);
    let mut who = Vec::new();
    who.extend(unconfined(pod.spec).then(|| "pod".to_owned()));
    if !names.is_empty() {
        who.push(named("container", &names));
    }
    (!who.is_empty()).then(|| {
        let must = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
        format!("seccompProfile ({} {must})", who.join(" and "))
    })
}

fn restricted_seccomp(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let good =
        |place: &Value| matches!(value::text(place, SECCOMP), "RuntimeDefault" | "Localhost");
    let unset = |place: &Value| value::text(place, SECCOMP).is_empty();
    let by_pod = good(pod.spec);
    let names = pod.breaking(|one| !(good(one) || (unset(one) && by_pod)));
    let must =
        "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    (!names.is_empty()).then(|| {
        format!(
            "seccompProfile (pod or {} {must})",
            named("container", &names)
        )
    })
}

fn escalation(pod: &Pod<'_>) -> Option<String> {
    if pod.is_of_windows() {
        return None;
    }
    let path = "securityContext.allowPrivilegeEscalation";
    let names = pod.breaking(|one| value::at(one, path) != Some(&Value::Bool(false)));
    let must = "must set securityContext.allowPrivilegeEscalation=false";
    told("allowPrivilegeEscalation != false", &names, must)
}

fn volumes(pod: &Pod<'_>) -> Option<String> {
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
    let source = |volume: &Value| {
        let fields = volume
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys());
        fields
            .filter(|field| *field != "name")
            .find(|field| !ALLOWED.contains(&field.as_str()))
            .cloned()
    };
    let all = value::list(pod.spec, "volumes");
    let bad: Vec<(&str, String)> = all
        .iter()
        .filter_map(|volume| Some((value::text(volume, "name"), source(volume)?)))
        .collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let kinds: BTreeSet<String> = bad.iter().map(|(_, kind)| format!("{kind:?}")).collect();
    let verb = if names.len() > 1 { "use" } else { "uses" };
    let many = if kinds.len() > 1 { "s" } else { "" };
    (!bad.is_empty()).then(|| {
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        format!(
            "restricted volume types ({} {verb} restricted volume type{many} {kinds})",
            named("volume", &names)
        )
    })
}

fn non_root(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let path = "securityContext.runAsNonRoot";
    let choice = |place: &Value| value::at(place, path).and_then(Value::as_bool);
    let by_pod = choice(pod.spec) == Some(true);
    let names = pod.breaking(|one| !choice(one).unwrap_or(by_pod));
    let must = "must set securityContext.runAsNonRoot=true";
    (!names.is_empty()).then(|| {
        format!(
            "runAsNonRoot != true (pod or {} {must})",
            named("container", &names)
        )
    })
}

fn root_user(pod: &Pod<'_>) -> Option<String> {
    if pod.has_own_users() {
        return None;
    }
    let is_root = |place: &Value| value::integer(place, "securityContext.runAsUser") == Some(0);
    let names = pod.breaking(is_root);
    let mut who = Vec::new();
    who.extend(is_root(pod.spec).then(|| "pod".to_owned()));
    if !names.is_empty() {
        who.push(named("container", &names));
    }
    (!who.is_empty()).then(|| {
        format!(
            "runAsUser=0 ({} must not set runAsUser=0)",
            who.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(standard: Standard, spec: &Value) -> Vec<String> {
        super::check(standard, Edition::Latest, spec)
    }

    #[test]
    fn editions_are_read() {
        for (text, edition) in [
            ("latest", Some(Edition::Latest)),
            ("v1.0", Some(Edition::Minor(0))),
            ("v1.30", Some(Edition::Minor(30))),
            ("v1.030", None),
            ("v1.+3", None),
            ("v2.0", None),
            ("1.30", None),
            ("", None),
        ] {
            assert_eq!(Edition::parse(text), edition, "{text}");
        }
    }

    /// What is broken, by its first word, in each edition.
    #[test]
    fn standards_grow_with_versions() {
        let spec = json!({
            "securityContext": {"runAsUser": 0, "sysctls": [{"name": "net.ipv4.tcp_rmem"}], "seLinuxOptions": {"type": "container_engine_t"}},
            "containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "192.0.2.1"}},
                            "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
        });
        let probe =
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"192.0.2.1\")";
        for (standard, minor, wanted) in [
            (
                Standard::Baseline,
                18,
                vec!["seLinuxOptions", "forbidden", "non-default"],
            ),
            (Standard::Baseline, 31, vec!["forbidden", "non-default"]),
            (Standard::Baseline, 34, vec!["probe", "non-default"]),
            (
                Standard::Restricted,
                7,
                vec!["seLinuxOptions", "forbidden", "non-default", "runAsNonRoot"],
            ),
            (
                Standard::Restricted,
                19,
                vec![
                    "seLinuxOptions",
                    "forbidden",
                    "non-default",
                    "allowPrivilegeEscalation",
                    "runAsNonRoot",
                    "seccompProfile",
                ],
            ),
            (
                Standard::Restricted,
                34,
                vec![
                    "probe",
                    "allowPrivilegeEscalation",
                    "unrestricted",
                    "runAsNonRoot",
                    "runAsUser=0",
                    "seccompProfile",
                ],
            ),
        ] {
            let broken = super::check(standard, Edition::Minor(minor), &spec);
            let words: Vec<&str> = broken
                .iter()
                .filter_map(|one| one.split_whitespace().next())
                .collect();
            assert_eq!(words, wanted, "{standard:?} v1.{minor}");
            assert!(
                minor != 34 || broken.contains(&probe.to_owned()),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn windows_knows_less() {
        let spec = json!({"os": {"name": "windows"}, "containers": [{"name": "c", "securityContext": {"runAsNonRoot": true}}]});
        let count = |minor| super::check(Standard::Restricted, Edition::Minor(minor), &spec).len();
        assert_eq!((count(24), count(25)), (3, 0));
    }

    #[test]
    fn an_ordinary_pod_is_baseline_but_not_restricted() {
        let spec = json!({"containers": [{"name": "c", "image": "x"}]});
        assert_eq!(check(Standard::Baseline, &spec), Vec::<String>::new());
        assert_eq!(
            check(Standard::Restricted, &spec).join(", "),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        });
        assert_eq!(check(Standard::Restricted, &spec), Vec::<String>::new());
    }

    #[test]
    fn root_of_a_user_namespace_is_not_root() {
        let spec = |standard, host_users: Value| {
            let spec = json!({
                "hostUsers": host_users,
                "containers": [{"name": "c", "securityContext": {"runAsUser": 0, "procMount": "Unmasked"}}],
            });
            check(standard, &spec).join("; ")
        };
        assert_eq!(spec(Standard::Baseline, json!(false)), "");
        let restricted = spec(Standard::Restricted, json!(false));
        assert!(
            !restricted.contains("runAs") && restricted.contains("procMount"),
            "{restricted}"
        );
        for shared in [json!(true), json!(null)] {
            assert!(spec(Standard::Baseline, shared.clone()).contains("procMount"));
            let restricted = spec(Standard::Restricted, shared);
            assert!(restricted.contains("runAsNonRoot") && restricted.contains("runAsUser=0"));
        }
    }

    #[test]
    fn what_reaches_for_the_host_is_not_baseline() {
        let spec = json!({
            "hostNetwork": true,
            "hostPID": true,
            "securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]},
            "containers": [
                {"name": "a", "ports": [{"hostPort": 80}], "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}},
                {"name": "b", "securityContext": {"privileged": true, "procMount": "Unmasked", "seccompProfile": {"type": "Unconfined"}}},
            ],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        });
        assert_eq!(
            check(Standard::Baseline, &spec),
            [
                "host namespaces (hostNetwork=true, hostPID=true)",
                "hostPath volumes (volume \"v\")",
                "hostPort (container \"a\" uses hostPort 80)",
                "privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
                "procMount (container \"b\" must not set securityContext.procMount to \"Unmasked\")",
                "forbidden sysctls (kernel.msgmax)",
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
                "seccompProfile (container \"b\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ]
        );
        assert_eq!(check(Standard::Privileged, &spec), Vec::<String>::new());
    }
}
