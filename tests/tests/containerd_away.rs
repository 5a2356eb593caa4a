//! containerd may be killed, restarted or away: containers run on, and what needs it says so.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use peapod_tests::{Cluster, command, process, wait};

/// Counts aloud for ever.
const TICKER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ticker}
spec:
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done']
";
const NEXT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: next}
spec:
  containers:
  - {name: c, image: 'busybox:test', imagePullPolicy: Never, command: [sleep, '10000']}
";

/// A cluster on the containerd at `socket`, with a pod that counts.
fn ticking(socket: &str) -> Result<Cluster> {
    let cluster = Cluster::prepare()?;
    let socket = socket.replace("DATA_DIR", &cluster.data_dir().to_string_lossy());
    cluster.start_with(&["--containerd", &socket])?;
    cluster.load_busybox()?;
    cluster.apply(TICKER)?;
    ready(&cluster, "ticker")?;
    Ok(cluster)
}

fn ready(cluster: &Cluster, pod: &str) -> Result<String> {
    cluster
        .kubectl(&format!(
            "wait --for=condition=Ready pod/{pod} --timeout=90s"
        ))?
        .ok()
}

fn ticks(cluster: &Cluster) -> Result<Vec<u64>> {
    let log = cluster.kubectl("logs ticker")?.ok()?;
    log.lines().map(|line| Ok(line.parse()?)).collect()
}

/// What the pod was before something happened to containerd.
struct Before {
    pid: i32,
    ticks: usize,
}

impl Before {
    fn look(cluster: &Cluster) -> Result<Self> {
        wait::until("some ticks", || Ok(ticks(cluster)?.len() > 3))?;
        Ok(Self {
            pid: process::of_pod("ticker")?,
            ticks: ticks(cluster)?.len(),
        })
    }

    /// The pod runs on as if nothing had happened, and others can be made.
    fn must_go_on(&self, cluster: &Cluster) -> Result<()> {
        wait::until("exec to work again", || {
            let said = cluster.kubectl("exec ticker -- echo again")?;
            Ok(said.ok()? == "again\n")
        })?;
        assert_eq!(
            process::of_pod("ticker")?,
            self.pid,
            "the container runs on"
        );
        wait::until("the log to go on", || {
            Ok(ticks(cluster)?.len() > self.ticks + 3)
        })?;
        let ticks = ticks(cluster)?;
        let whole: Vec<u64> = (1..=ticks.len() as u64).collect();
        assert_eq!(ticks, whole, "no line of the log is lost or there twice");
        cluster.apply(NEXT)?;
        ready(cluster, "next")?;
        ready(cluster, "ticker")?;
        let restarts = "{.status.containerStatuses[0].restartCount}";
        assert_eq!(cluster.field("pod/ticker", restarts)?, "0");
        Ok(())
    }
}

fn private_pid(cluster: &Cluster) -> Result<i32> {
    let path = cluster.data_dir().join("containerd/containerd.pid");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().parse()?)
}

#[test]
fn a_private_containerd_that_is_killed_is_brought_back() -> Result<()> {
    let cluster = ticking("DATA_DIR/containerd/containerd.sock")?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let before = Before::look(&cluster)?;
        let killed = private_pid(&cluster)?;
        process::end(&[killed], signal)?;
        before.must_go_on(&cluster)?;
        assert_ne!(private_pid(&cluster)?, killed);
        cluster.kubectl("delete pod next --now")?.ok()?;
    }
    Ok(())
}

/// A containerd that is not Peapod's, as the machine's is.
struct Foreign {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Foreign {
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("peapod-ctrd-").tempdir()?;
        let path = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{path}/sock\"\n[ttrpc]\n  address = \"{path}/sock.ttrpc\"\n"
        );
        std::fs::write(dir.path().join("settings.toml"), config)?;
        let mut foreign = Self { dir, process: None };
        foreign.run()?;
        Ok(foreign)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    fn run(&mut self) -> Result<()> {
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.dir.path().join("settings.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run containerd")?;
        self.process = Some(child);
        let socket = self.socket();
        wait::until("containerd", || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.process.take() else {
            return Ok(());
        };
        process::end(&[child.id() as i32], Signal::SIGTERM)?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("containerd could not be stopped: {error:#}");
        }
    }
}

/// Processes, mounts and addresses of a cluster that are there, as text.
fn left_on_the_machine(cluster: &Cluster) -> Result<String> {
    let dir = cluster.data_dir().to_string_lossy().into_owned();
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = table.lines().filter(|line| line.contains(&dir));
    let mut left: Vec<String> = mounts.map(str::to_owned).collect();
    for process in std::fs::read_dir("/proc")?.flatten() {
        // Others' processes come and go.
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&dir) {
            left.push(line);
        }
    }
    Ok(left.join("\n"))
}

#[test]
fn without_containerd_a_purge_removes_what_is_not_containerds_and_says_what_is_left() -> Result<()>
{
    let mut containerd = Foreign::start()?;
    let socket = containerd.socket().to_string_lossy().into_owned();
    let cluster = ticking(&socket)?;
    let address = cluster.node_ip()?;
    let own = || -> Result<bool> {
        let listed = command::run("ip", ["-o", "address", "show", "dev", "lo"])?.ok()?;
        Ok(listed.contains(&address))
    };
    assert!(own()?, "the node's address is on lo");
    assert_ne!(left_on_the_machine(&cluster)?, "");
    containerd.stop()?;

    let refused = format!("{:?}", cluster.purge().unwrap_err());
    assert!(
        refused.contains(&format!("cannot reach containerd at {socket}"))
            && refused.contains("then run this again"),
        "{refused}"
    );
    assert_eq!(left_on_the_machine(&cluster)?, "");
    assert!(!own()?, "the node's address is still on lo");

    containerd.run()?;
    cluster.purge()?;
    assert!(!cluster.data_dir().join("run").exists());
    drop(cluster);
    Ok(())
}

#[test]
fn while_containerd_is_stopped_the_node_says_so_and_containers_run_on() -> Result<()> {
    let mut containerd = Foreign::start()?;
    let socket = containerd.socket().to_string_lossy().into_owned();
    let cluster = ticking(&socket)?;
    let before = Before::look(&cluster)?;

    containerd.stop()?;
    let condition = |part: &str| {
        let path = format!("{{.items[0].status.conditions[?(@.type==\"Ready\")].{part}}}");
        cluster.field("nodes", &path)
    };
    wait::until("the node to be not ready", || {
        Ok(condition("status")? == "False")
    })?;
    let message = condition("message")?;
    assert!(
        message.contains(&format!("cannot reach containerd at {socket}"))
            && message.contains("start it"),
        "{message}"
    );
    let warnings = cluster.warnings()?;
    assert!(warnings.contains(&socket), "{warnings}");
    assert_eq!(process::of_pod("ticker")?, before.pid);
    // Commands are the shim's affair.
    let again = cluster.kubectl("exec ticker -- echo again")?.ok()?;
    assert_eq!(again, "again\n");
    let said = ticks(&cluster)?.len();
    wait::until("the log to go on meanwhile", || {
        Ok(ticks(&cluster)?.len() > said)
    })?;

    containerd.run()?;
    wait::until("the node to be ready again", || {
        Ok(condition("status")? == "True")
    })?;
    before.must_go_on(&cluster)?;
    assert_eq!(cluster.warnings()?, "");
    // Before its containerd is.
    drop(cluster);
    Ok(())
}
