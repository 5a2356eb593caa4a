//! Ports of the node, its network, probes, hooks,
//! attach, and images from a registry that wants a login.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command, wait};

use crate::ready;

fn fetch(address: &str) -> Result<String> {
    let url = format!("http://{address}/");
    command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.ok()
}

#[test]
fn ports_of_the_node_and_its_network() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: ported}
spec:
  containers:
  - name: c
    image: peapod.dev/demo:v1
    ports: [{containerPort: 8080, hostPort: 18080}]
---
apiVersion: v1
kind: Pod
metadata: {name: hosted}
spec:
  hostNetwork: true
  containers:
  - name: c
    image: peapod.dev/demo:v1
    env: [{name: PORT, value: '18081'}]
    ports: [{containerPort: 18081}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers:
  - name: c
    image: peapod.dev/demo:v1
    ports: [{containerPort: 8080, hostPort: 18080}]
",
    )?;
    ready(&cluster, "ported")?;
    ready(&cluster, "hosted")?;
    let node = cluster.node_ip()?;
    for address in [format!("{node}:18080"), "127.0.0.1:18080".to_owned()] {
        wait::until("an answer on the host's port", || {
            Ok(fetch(&address)?.contains("from ported"))
        })?;
    }
    assert_eq!(cluster.field("pod/hosted", "{.status.podIP}")?, node);
    let hosted = format!("{node}:18081");
    wait::until("an answer on the host's network", || {
        Ok(!fetch(&hosted)?.is_empty())
    })?;
    // The port is taken on the only node.
    wait::until("the refusal", || {
        let path = "{.status.conditions[?(@.type==\"PodScheduled\")].message}";
        Ok(cluster
            .field("pod/late", path)?
            .contains("didn't have free ports"))
    })?;
    cluster.kubectl("delete pod ported")?.ok()?;
    ready(&cluster, "late")?;
    wait::until("an answer of the next", || {
        Ok(fetch(&format!("{node}:18080"))?.contains("from late"))
    })
}

#[test]
fn probes_of_every_kind() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: well}
spec:
  containers:
  - name: http
    image: peapod.dev/demo:v1
    startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  - name: exec
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'sleep 1; echo > /tmp/ready; sleep 10000']
    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: unready}
spec:
  containers:
  - name: grpc
    image: peapod.dev/demo:v1
    readinessProbe: {grpc: {port: 8081}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: dying}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'sleep 10000']
    livenessProbe: {exec: {command: [sh, -c, 'echo it is over; test -f /nowhere']}, periodSeconds: 1, failureThreshold: 1}
",
    )?;
    ready(&cluster, "well")?;
    wait::until("a restart by the liveness probe", || {
        let path = "{.status.containerStatuses[0].restartCount}";
        Ok(cluster.field("pod/dying", path)?.parse::<u32>()? > 0)
    })?;
    let events = |pod: &str| {
        let line = format!("get events --field-selector involvedObject.name={pod}");
        cluster.kubectl(&line)?.ok()
    };
    wait::until("the probes' events", || {
        let dying = events("dying")?;
        Ok(dying.contains("Liveness probe failed: it is over")
            && dying.contains("failed liveness probe, will be restarted")
            && events("unready")?.contains("Readiness probe failed: "))
    })?;
    let path = "{.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}";
    let args = ["get", "pod", "unready", "-o", &format!("jsonpath={path}")];
    assert_eq!(cluster.kubectl_with(&args, None)?.ok()?, "false 0");
    Ok(())
}

#[test]
fn hooks_and_attach() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let said = cluster.data_dir().join("said");
    std::fs::create_dir(&said)?;
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: hooked}}
spec:
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    stdin: true
    command: [sh, -c, 'trap \"exit 0\" TERM; while read line; do echo \"heard $line\"; done; sleep 10000 & wait']
    lifecycle:
      postStart: {{exec: {{command: [sh, -c, 'echo begun > /said/first']}}}}
      preStop: {{exec: {{command: [sh, -c, 'echo ended > /said/last']}}}}
    volumeMounts: [{{name: said, mountPath: /said}}]
  volumes: [{{name: said, hostPath: {{path: {}}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: refused}}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    lifecycle: {{postStart: {{exec: {{command: [sh, -c, 'exit 3']}}}}}}
",
        said.display()
    ))?;
    ready(&cluster, "hooked")?;
    assert_eq!(std::fs::read_to_string(said.join("first"))?, "begun\n");
    let mut attached = Command::new("kubectl")
        .args(["attach", "-i", "hooked"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = attached.stdin.take().context("no stdin")?;
    let output = attached.stdout.take().context("no stdout")?;
    let mut heard = BufReader::new(output).lines();
    for word in ["one", "two"] {
        writeln!(input, "{word}")?;
        let line = heard.next().context("attach has ended")??;
        assert_eq!(line, format!("heard {word}"));
    }
    attached.kill()?;
    attached.wait()?;
    cluster.kubectl("delete pod hooked")?.ok()?;
    assert_eq!(std::fs::read_to_string(said.join("last"))?, "ended\n");
    wait::until("the event of a hook that fails", || {
        let line = "get events --field-selector involvedObject.name=refused";
        Ok(cluster.kubectl(line)?.ok()?.contains("FailedPostStartHook"))
    })
}

#[test]
fn an_image_from_a_registry_that_wants_a_login() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let registry = registry::Registry::start()?;
    registry.push(&command::demo_archive("v1")?, "private/demo", "v1")?;
    let host = &registry.host;
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  containers:\n  - {{name: c, image: '{host}/private/demo:v1'}}\n"
        )
    };
    cluster.apply(&pod("stranger", ""))?;
    wait::until("the pull to be refused", || {
        let path = "{.status.containerStatuses[0].state.waiting.reason}";
        Ok(cluster.field("pod/stranger", path)? == "ImagePullBackOff")
    })?;
    let events = cluster
        .kubectl("get events --field-selector involvedObject.name=stranger")?
        .ok()?;
    assert!(events.contains("check the pull secret"), "{events}");

    cluster
        .kubectl(&format!(
            "create secret docker-registry login --docker-server={host} --docker-username={} --docker-password={}",
            registry::USER,
            registry::PASSWORD
        ))?
        .ok()?;
    cluster.apply(&pod("friend", "imagePullSecrets: [{name: login}]"))?;
    ready(&cluster, "friend").map(drop)
}

/// A registry on loopback that wants a login: Debian's docker-registry.
mod registry {
    use std::io::{Read, Seek, SeekFrom};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use anyhow::{Context, Result, ensure};
    use peapod_nodelet::images::archive::Archive;
    use peapod_nodelet::images::manifest::{OCI_MANIFEST, Platform};
    use peapod_tests::wait;
    use reqwest::header::{CONTENT_TYPE, LOCATION};

    /// Who may read and write.
    pub const USER: &str = "tester";
    /// Their password.
    pub const PASSWORD: &str = "secret";
    /// The two as the registry wants them.
    const HTPASSWD: &str = "tester:$2b$04$iWJ6UzarKCmpzGeZy5xFteNPrIi8fPxMJWCoPClCGy6hrMhMO2y5u\n";

    /// A running registry; ended when dropped.
    pub struct Registry {
        /// `127.0.0.1:PORT`
        pub host: String,
        process: Child,
        _dir: tempfile::TempDir,
    }

    impl Registry {
        pub fn start() -> Result<Self> {
            let dir = tempfile::tempdir()?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let host = format!("127.0.0.1:{port}");
            let path = dir.path().display();
            let config = format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
                 http: {{addr: '{host}'}}\n\
                 auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n"
            );
            std::fs::write(dir.path().join("htpasswd"), HTPASSWD)?;
            std::fs::write(dir.path().join("config.yml"), config)?;
            let process = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot run docker-registry; `make test` installs it")?;
            let registry = Self {
                host,
                process,
                _dir: dir,
            };
            wait::until("the registry", || {
                Ok(TcpStream::connect(&registry.host).is_ok())
            })?;
            Ok(registry)
        }

        /// Puts the image of an archive under a name.
        pub fn push(&self, archive: &Path, repository: &str, tag: &str) -> Result<()> {
            let image = Archive::open(archive)?
                .images(&Platform::host())?
                .pop()
                .context("the archive is empty")?;
            let mut blobs = vec![(
                image.manifest.config.digest.clone(),
                image.config_bytes.to_vec(),
            )];
            let mut file = std::fs::File::open(archive)?;
            for (layer, extent) in image.manifest.layers.iter().zip(&image.layers) {
                let mut bytes = vec![0; extent.size as usize];
                file.seek(SeekFrom::Start(extent.offset))?;
                file.read_exact(&mut bytes)?;
                blobs.push((layer.digest.clone(), bytes));
            }
            let base = format!("http://{}/v2/{repository}", self.host);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            // reqwest takes the process's provider; another test may have installed it already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            runtime.block_on(async {
                let client = reqwest::Client::new();
                for (digest, bytes) in blobs {
                    let begin = client.post(format!("{base}/blobs/uploads/"));
                    let begun = begin.basic_auth(USER, Some(PASSWORD)).send().await?;
                    let place = begun
                        .headers()
                        .get(LOCATION)
                        .context("no place to upload")?;
                    let place = format!("{}&digest={digest}", place.to_str()?);
                    let put = client.put(place).basic_auth(USER, Some(PASSWORD));
                    let put = put.body(bytes).send().await?;
                    ensure!(put.status().is_success(), "blob: {}", put.status());
                }
                let put = client.put(format!("{base}/manifests/{tag}"));
                let put = put.basic_auth(USER, Some(PASSWORD));
                let put = put.header(CONTENT_TYPE, OCI_MANIFEST);
                let put = put.body(image.manifest_bytes.to_vec()).send().await?;
                ensure!(put.status().is_success(), "manifest: {}", put.status());
                Ok(())
            })
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            // It may have ended by itself, which the test has noticed.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

#[test]
fn local_storage_is_limited() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let pod = |name: &str, extra: &str, file: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  volumes:
  - {{name: scratch, emptyDir: {{sizeLimit: 4Mi}}}}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'dd if=/dev/zero of={file} bs=1M count=6; sleep 10000']
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
    resources: {{limits: {{{extra}}}}}
---"
        )
    };
    cluster.apply(
        &[
            pod("volume", "", "/scratch/file"),
            pod("layer", "ephemeral-storage: 5Mi", "/file"),
            pod("modest", "ephemeral-storage: 50Mi", "/file"),
        ]
        .concat(),
    )?;
    let reasons = [
        (
            "volume",
            "Usage of EmptyDir volume \"scratch\" exceeds the limit \"4Mi\".",
        ),
        (
            "layer",
            "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi.",
        ),
    ];
    for (name, reason) in reasons {
        let pod = format!("pod/{name}");
        wait::until("the eviction", || {
            Ok(cluster.field(&pod, "{.status.phase}/{.status.reason}")? == "Failed/Evicted")
        })?;
        assert_eq!(cluster.field(&pod, "{.status.message}")?.trim(), reason);
        let disrupted = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
        assert_eq!(cluster.field(&pod, disrupted)?, "TerminationByKubelet");
    }
    assert_eq!(cluster.field("pod/modest", "{.status.phase}")?, "Running");
    Ok(())
}
