//! What the standards demand of a pod's specification, since when. Pure.
//!
//! Standards grow with Kubernetes' versions: one table says what is demanded since which. Each
//! demand is a function in [`super::checks`].
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use serde_json::Value;

use super::checks::{host, privileges, users};
use super::editions::{Edition, Standard};
use super::pod::Pod;

type Check = for<'a> fn(&Pod<'a>) -> Option<String>;

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
    baseline(privileges::app_armor, 0, None),
    baseline(host::namespaces, 0, None),
    baseline(host::paths, 0, None),
    baseline(host::ports, 0, None),
    baseline(host::probes, 34, None),
    baseline(privileges::privileged, 0, None),
    baseline(privileges::baseline_proc_mounts, 0, Some(0)),
    baseline(privileges::selinux, 0, None),
    baseline(host::sysctls, 0, None),
    baseline(host::process, 0, None),
    baseline(privileges::baseline_capabilities, 0, Some(22)),
    baseline(privileges::baseline_seccomp, 19, Some(19)),
    restricted(privileges::proc_mounts, 0),
    restricted(privileges::escalation, 8),
    restricted(privileges::restricted_capabilities, 22),
    restricted(host::volumes, 0),
    restricted(users::non_root, 0),
    restricted(users::root_user, 23),
    restricted(privileges::restricted_seccomp, 19),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(standard: Standard, spec: &Value) -> Vec<String> {
        super::check(standard, Edition::Latest, spec)
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
    fn root_of_a_user_namespace_is_not_root_since_1_35() {
        let broken = |standard, edition, host_users: Value| {
            let spec = json!({
                "hostUsers": host_users,
                "containers": [{"name": "c", "securityContext": {"runAsUser": 0, "procMount": "Unmasked"}}],
            });
            super::check(standard, edition, &spec).join("; ")
        };
        for edition in [Edition::Latest, Edition::Minor(35)] {
            assert_eq!(broken(Standard::Baseline, edition, json!(false)), "");
            let restricted = broken(Standard::Restricted, edition, json!(false));
            assert!(!restricted.contains("runAs"), "{restricted}");
            assert!(restricted.contains("procMount"), "{restricted}");
        }
        for (edition, host_users) in [
            (Edition::Latest, json!(true)),
            (Edition::Latest, json!(null)),
            (Edition::Minor(34), json!(false)),
        ] {
            let baseline = broken(Standard::Baseline, edition, host_users.clone());
            assert!(baseline.contains("procMount"), "{edition} {host_users}");
            let restricted = broken(Standard::Restricted, edition, host_users);
            assert!(restricted.contains("runAsNonRoot"), "{restricted}");
            assert!(restricted.contains("runAsUser=0"), "{restricted}");
        }
    }

    /// A fault that somebody made is told with who made it, one that all left undone with who may
    /// mend it.
    #[test]
    fn what_is_set_wrongly_and_what_is_not_set() {
        let wrong = json!({
            "securityContext": {"runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"}, "windowsOptions": {"hostProcess": true}},
            "containers": [
                {"name": "a", "securityContext": {"runAsNonRoot": false, "windowsOptions": {"hostProcess": true}, "seLinuxOptions": {"user": "u"}}},
                {"name": "b", "securityContext": {"runAsNonRoot": false, "seLinuxOptions": {"type": "t", "role": "r"}}},
                {"name": "c"},
            ],
        });
        let broken = check(Standard::Restricted, &wrong);
        for told in [
            r#"seLinuxOptions (containers "a", "b" set forbidden securityContext.seLinuxOptions: type "t"; user may not be set; role may not be set)"#,
            r#"hostProcess (pod and container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
            r#"runAsNonRoot != true (pod and containers "a", "b" must not set securityContext.runAsNonRoot=false)"#,
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ] {
            assert!(broken.iter().any(|one| one == told), "{told}: {broken:#?}");
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
