//! Fields of a pod, one after the other: a table of pods and what each must say, all at once on one node.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use peapod_tests::{Cluster, command, wait};

/// How a row is judged.
enum Must {
    /// The pod ends, and its log is this.
    Say(&'static str),
    /// A field of the pod comes to be this.
    Have(&'static str, &'static str),
}

use Must::{Have, Say};

struct Row {
    name: &'static str,
    /// The pod's specification but for the container's.
    pod: &'static str,
    /// The container's, but for name and image.
    container: &'static str,
    must: Must,
}

const fn row(name: &'static str, pod: &'static str, container: &'static str, must: Must) -> Row {
    Row {
        name,
        pod,
        container,
        must,
    }
}

/// Reason of the container's end, or why it waits.
const WAITS: &str = "{.status.containerStatuses[0].state.waiting.reason}";

const ROWS: [Row; 24] = [
    row(
        "fqdn",
        "hostname: web, subdomain: sub, setHostnameAsFQDN: true",
        "command: [hostname]",
        Say("web.sub.default.svc.cluster.local\n"),
    ),
    row(
        "hostname-override",
        "hostnameOverride: any.name.example",
        "command: [hostname]",
        Say("any.name.example\n"),
    ),
    row(
        "host-aliases",
        "hostAliases: [{ip: 192.0.2.7, hostnames: [one.example, two.example]}]",
        "command: [grep, 192.0.2.7, /etc/hosts]",
        Say("192.0.2.7\tone.example\ttwo.example\n"),
    ),
    row(
        "dns-none",
        "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1], searches: [a.example], options: [{name: ndots, value: '2'}, {name: edns0}]}",
        "command: [cat, /etc/resolv.conf]",
        Say("search a.example\nnameserver 192.0.2.1\noptions ndots:2 edns0\n"),
    ),
    row(
        "working-dir",
        "",
        "workingDir: /tmp/made/for/it, command: [sh, -c, pwd]",
        Say("/tmp/made/for/it\n"),
    ),
    row(
        "divisor",
        "",
        "resources: {limits: {memory: 64Mi, cpu: 250m}, requests: {cpu: 10m}}, command: [sh, -c, 'echo $M $L $R'],
         env: [{name: M, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}},
               {name: L, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}},
               {name: R, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}]",
        Say("64 250 1\n"),
    ),
    row(
        "no-links",
        "enableServiceLinks: false",
        "command: [sh, -c, 'env | grep -c -e ^LINKED_ -e ^KUBERNETES_SERVICE_HOST']",
        Say("1\n"),
    ),
    row(
        "links",
        "",
        "command: [sh, -c, 'env | grep -e ^LINKED_SERVICE_PORT=']",
        Say("LINKED_SERVICE_PORT=80\n"),
    ),
    row(
        "groups",
        "securityContext: {runAsUser: 1000, runAsGroup: 1001, supplementalGroups: [4000], fsGroup: 5000, supplementalGroupsPolicy: Strict}",
        "command: [id, -G]",
        Say("1001 4000 5000\n"),
    ),
    row(
        "non-root",
        "securityContext: {runAsNonRoot: true}",
        "command: [id]",
        Have(WAITS, "CreateContainerConfigError"),
    ),
    row(
        "seccomp-local",
        "securityContext: {seccompProfile: {type: Localhost, localhostProfile: no-mkdir.json}}",
        "command: [sh, -c, 'touch /a && echo made; busybox mkdir /b 2>/dev/null || echo refused']",
        Say("made\nrefused\n"),
    ),
    row(
        "seccomp-default",
        "securityContext: {seccompProfile: {type: RuntimeDefault}}",
        "command: [grep, 'Seccomp:', /proc/self/status]",
        Say("Seccomp:\t2\n"),
    ),
    row(
        "seccomp-none",
        "securityContext: {seccompProfile: {type: Unconfined}}",
        "command: [grep, 'Seccomp:', /proc/self/status]",
        Say("Seccomp:\t0\n"),
    ),
    row(
        "stop-signal",
        "os: {name: linux}",
        "lifecycle: {stopSignal: SIGUSR1}, command: [sleep, '1']",
        Have("{.status.containerStatuses[0].stopSignal}", "SIGUSR1"),
    ),
    row(
        "sub-path-expr",
        "volumes: [{name: v, emptyDir: {}}]",
        "volumeMounts: [{name: v, mountPath: /whole}, {name: v, mountPath: /part, subPathExpr: 'of/$(NAME)'}],
         env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], command: [sh, -c, 'touch /part/x; ls /whole/of/sub-path-expr']",
        Say("x\n"),
    ),
    row(
        "message-path",
        "",
        "terminationMessagePath: /tmp/last, command: [sh, -c, 'echo -n words >/tmp/last; exit 3']",
        Have(
            "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.message}",
            "3 words",
        ),
    ),
    row(
        "message-log",
        "",
        "terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, 'echo in the log; exit 3']",
        Have(
            "{.status.containerStatuses[0].state.terminated.message}",
            "in the log\n",
        ),
    ),
    row(
        "restart-rule",
        "volumes: [{name: v, emptyDir: {}}]",
        "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}],
         volumeMounts: [{name: v, mountPath: /v}], command: [sh, -c, 'test -e /v/f && exit 0; touch /v/f; exit 42']",
        Have(
            "{.status.phase} {.status.containerStatuses[0].restartCount}",
            "Succeeded 1",
        ),
    ),
    row(
        "deadline",
        "activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 1",
        "command: [sleep, '1000']",
        Have("{.status.phase} {.status.reason}", "Failed DeadlineExceeded"),
    ),
    row(
        "no-token",
        "automountServiceAccountToken: false",
        "command: [sh, -c, 'ls /var/run/secrets 2>/dev/null || echo none']",
        Say("none\n"),
    ),
    row(
        "env-from",
        "",
        "envFrom: [{prefix: P_, configMapRef: {name: words}}, {secretRef: {name: absent, optional: true}}],
         command: [sh, -c, 'echo $P_word $SELF'], env: [{name: SELF, value: '$(P_word)-$$(P_word)-$(NONE)'}]",
        Say("hello hello-$(P_word)-$(NONE)\n"),
    ),
    row(
        "modes",
        "volumes: [{name: v, configMap: {name: words, defaultMode: 256, items: [{key: word, path: a/b, mode: 292}, {key: other, path: c}]}}]",
        "volumeMounts: [{name: v, mountPath: /v}], command: [sh, -c, 'for f in /v/a/b /v/c; do set -- $(ls -lL $f); echo $1 $5; done']",
        Say("-r--r--r-- 5\n-r-------- 3\n"),
    ),
    row(
        "gate",
        "readinessGates: [{conditionType: example.com/open}]",
        "command: [sleep, '1000']",
        Have(
            "{.status.conditions[?(@.type==\"ContainersReady\")].status} {.status.conditions[?(@.type==\"Ready\")].status}",
            "True False",
        ),
    ),
    row(
        "read-only-below",
        "volumes: [{name: v, hostPath: {path: OUTER}}]",
        "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}],
         command: [sh, -c, 'for f in /v/x /v/inner/x; do touch $f 2>/dev/null || echo $f refused; done']",
        Say("/v/x refused\n/v/inner/x refused\n"),
    ),
];

/// What the pods refer to.
const AROUND: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: hello, other: abc}
---
apiVersion: v1
kind: Service
metadata: {name: linked}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: sub}
spec: {clusterIP: None, selector: {none: none}, ports: [{port: 80}]}
";

/// Allows everything but to make directories.
const NO_MKDIR: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;

/// A directory with a file system mounted in it.
struct Outer(PathBuf);

impl Outer {
    fn new(cluster: &Cluster) -> Result<Self> {
        let outer = Self(cluster.data_dir().join("outer"));
        std::fs::create_dir_all(outer.inner())?;
        command::run(
            "mount",
            ["-t", "tmpfs", "tmpfs", &outer.inner().to_string_lossy()],
        )?
        .ok()?;
        Ok(outer)
    }

    fn inner(&self) -> PathBuf {
        self.0.join("inner")
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = command::run("umount", [&*self.inner().to_string_lossy()]);
    }
}

fn manifest(row: &Row, outer: &Outer) -> String {
    let container = [
        "name: c, image: 'busybox:test', imagePullPolicy: Never",
        row.container,
    ];
    let containers = format!("containers: [{{{}}}]", container.join(", "));
    let parts = ["restartPolicy: Never", row.pod, &containers];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let spec = parts
        .join(", ")
        .replace("OUTER", &outer.0.to_string_lossy());
    let name = row.name;
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn judge(cluster: &Cluster, row: &Row) -> Result<()> {
    let pod = format!("pod/{}", row.name);
    match row.must {
        Have(path, value) => wait::until(value, || Ok(cluster.field(&pod, path)? == value))
            .with_context(|| cluster.field(&pod, "{.status}").unwrap_or_default()),
        Say(words) => {
            let over = || {
                let phase = cluster.field(&pod, "{.status.phase}")?;
                Ok(["Succeeded", "Failed"].contains(&phase.as_str()))
            };
            wait::until("its end", over)
                .with_context(|| cluster.field(&pod, "{.status}").unwrap_or_default())?;
            let said = cluster.kubectl(&format!("logs {pod}"))?.ok()?;
            ensure!(said == words, "it said {said:?}, not {words:?}");
            Ok(())
        }
    }
}

#[test]
fn every_field_does_what_it_says() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(AROUND)?;
    let profiles = cluster.data_dir().join("node/seccomp");
    std::fs::create_dir_all(&profiles)?;
    std::fs::write(profiles.join("no-mkdir.json"), NO_MKDIR)?;
    let outer = Outer::new(&cluster)?;
    let pods: String = ROWS.iter().map(|row| manifest(row, &outer)).collect();
    cluster.apply(&pods)?;
    let faults: Vec<String> = ROWS
        .iter()
        .filter_map(|row| Some(format!("{}: {:#}", row.name, judge(&cluster, row).err()?)))
        .collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    cluster.kubectl("delete pods --all --timeout=60s")?.ok()?;
    Ok(())
}
