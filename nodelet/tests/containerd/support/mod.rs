//! A node with a containerd of its own in a temporary directory, removed with everything in it at the
//! end of the test.

pub mod registry;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peapod_api::attach::PodRef;
use peapod_nodelet::images::assemble::Assemble;
use peapod_nodelet::runtime::containerd::{Config, Containerd, launch, purge};
use peapod_nodelet::runtime::{
    ContainerId, ContainerSpec, Exit, NamespaceMode, QosClass, Quiet, Resources, Runtime,
    RuntimeEvent, SandboxSpec,
};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Name of the image that every node has.
pub const BUSYBOX: &str = "busybox:test";

/// The commands that the image has.
const APPLETS: [&str; 22] = [
    "cat", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls", "mount",
    "printf", "ps", "seq", "sh", "sleep", "stty", "tail", "test", "true", "touch",
];

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A node.
pub struct Node {
    runtime: Option<Containerd>,
    pub config: Config,
    pub dir: TempDir,
    events: broadcast::Receiver<RuntimeEvent>,
}

// === impl Node ===

impl Node {
    /// A node with busybox.
    pub async fn start() -> Self {
        let mut node = Self::bare().await;
        let archive = node.assemble(BUSYBOX);
        node.runtime()
            .images()
            .load(&archive, &Quiet)
            .await
            .unwrap();
        node.wait_for(|event| matches!(event, RuntimeEvent::Connected))
            .await;
        node
    }

    /// A node without images.
    pub async fn bare() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("peapod-rt-")
            .tempdir()
            .unwrap();
        let containerd = dir.path().join("containerd");
        let address = launch::find_or_start(&launch::Choice::Private, &containerd, None)
            .await
            .unwrap();
        let id = dir
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .to_lowercase();
        let mut config = Config::new(address, &id, dir.path().join("run"));
        config.log_writer = helper_command("log_writer_process");
        config.shim = Some(helper_command("shim_process"));
        let runtime = Containerd::start(config.clone()).await.unwrap();
        let events = runtime.events();
        Self {
            runtime: Some(runtime),
            config,
            dir,
            events,
        }
    }

    /// The agent is killed and comes back.
    pub async fn restart_agent(&mut self) {
        self.stop_agent();
        self.begin_agent().await;
        self.wait_for(|event| matches!(event, RuntimeEvent::Connected))
            .await;
    }

    /// The agent comes back; it need not have looked at everything yet.
    pub async fn begin_agent(&mut self) {
        let runtime = Containerd::start(self.config.clone()).await.unwrap();
        self.events = runtime.events();
        self.runtime = Some(runtime);
    }

    /// The agent is killed and comes back as one whose new containers get Peapod's shim, or do not.
    pub async fn use_shim(&mut self, shim: bool) {
        self.config.shim = shim.then(|| helper_command("shim_process"));
        self.restart_agent().await;
    }

    /// The processes that run containers: Peapod's shim.
    pub fn shims(&self) -> Vec<nix::unistd::Pid> {
        processes_of(&self.config.state_dir.join("shim"))
    }

    /// The agent ends.
    pub fn stop_agent(&mut self) {
        self.runtime = None;
    }

    /// The agent.
    pub fn runtime(&self) -> &Containerd {
        self.runtime.as_ref().expect("the agent runs")
    }

    /// Where the private containerd lives.
    pub fn containerd_dir(&self) -> PathBuf {
        self.dir.path().join("containerd")
    }

    /// An archive of busybox.
    pub fn assemble(&self, reference: &str) -> PathBuf {
        let path = self.dir.path().join("image.tar");
        Assemble::from_busybox(reference, Path::new("/bin/busybox"), &APPLETS)
            .unwrap()
            .write(File::create(&path).unwrap())
            .unwrap();
        path
    }

    /// Makes a pod's sandbox.
    pub async fn pod(&self, uid: &str) {
        self.runtime().create_sandbox(&sandbox(uid)).await.unwrap();
    }

    /// A container of a pod that runs a shell script.
    pub fn container(&self, pod: &str, name: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            pod_uid: pod.into(),
            name: name.into(),
            image: BUSYBOX.into(),
            image_name: BUSYBOX.into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            log_path: Some(self.log_path(pod, name)),
            ..ContainerSpec::default()
        }
    }

    pub fn log_path(&self, pod: &str, name: &str) -> PathBuf {
        self.dir
            .path()
            .join("logs")
            .join(pod)
            .join(name)
            .join("0.log")
    }

    /// Makes and starts a container.
    pub async fn run(&self, spec: &ContainerSpec) -> ContainerId {
        let id = self.runtime().create_container(spec).await.unwrap();
        self.runtime().start_container(&id).await.unwrap();
        id
    }

    /// Waits for the end of a container.
    pub async fn exit(&mut self, wanted: &ContainerId) -> Exit {
        let event = self
            .wait_for(|event| matches!(event, RuntimeEvent::Exited { id, .. } if id == wanted))
            .await;
        let RuntimeEvent::Exited { exit, .. } = event else {
            unreachable!("matched above")
        };
        exit
    }

    /// Makes, starts and awaits a container; gives its end and what it said.
    pub async fn run_to_end(&mut self, spec: &ContainerSpec) -> (Exit, String) {
        let id = self.run(spec).await;
        let exit = self.exit(&id).await;
        (exit, self.log(spec))
    }

    /// What a container said: the content of its log's lines.
    pub fn log(&self, spec: &ContainerSpec) -> String {
        let text = std::fs::read(self.log_path(&spec.pod_uid, &spec.name)).unwrap_or_default();
        let mut said = String::new();
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = peapod_nodelet::logs::format::parse(line).expect("a line in the CRI format");
            said.push_str(&String::from_utf8_lossy(line.content));
            if !line.partial {
                said.push('\n');
            }
        }
        said
    }

    pub async fn wait_for(&mut self, wanted: impl Fn(&RuntimeEvent) -> bool) -> RuntimeEvent {
        let events = &mut self.events;
        let found = async {
            loop {
                let event = events.recv().await.expect("the runtime lives");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(LIMIT, found).await.expect("the event comes")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_agent();
        let (config, containerd) = (self.config.clone(), self.containerd_dir());
        let clean = std::thread::spawn(move || {
            let reactor = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            reactor.unwrap().block_on(async {
                let purged = purge::purge(&config).await;
                launch::stop(&containerd).await.unwrap();
                purged.unwrap();
            });
        });
        let cleaned = clean.join();
        if !std::thread::panicking() {
            cleaned.expect("everything could be removed");
        }
    }
}

/// A pod with everything usual.
pub fn sandbox(uid: &str) -> SandboxSpec {
    SandboxSpec {
        pod: PodRef {
            namespace: "default".into(),
            name: uid.into(),
            uid: uid.into(),
        },
        hostname: uid.into(),
        network: NamespaceMode::Pod,
        own_hostname: false,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        own_users: false,
        sysctls: BTreeMap::new(),
        qos: QosClass::BestEffort,
        resources: Resources::default(),
        runtime_handler: None,
        labels: BTreeMap::new(),
    }
}

/// This test program again, in the role of the log writer or of the shim: see
/// [`log_writer_process`] and [`shim_process`].
fn helper_command(role: &str) -> Vec<OsString> {
    let program = std::env::current_exe().unwrap();
    let mut command = vec![OsString::from(program)];
    command.extend([role, "--exact", "--nocapture"].map(OsString::from));
    command
}

/// The log writer, when the agent of a test has started this program as such.
pub fn log_writer_process() {
    let words: Vec<String> = std::env::args()
        .skip_while(|word| word != "--nocapture")
        .collect();
    if let [_, _, _, _] = words.as_slice() {
        peapod_nodelet::logs::writer_main(&words[1..]).unwrap();
    }
}

/// The shim, when the agent of a test has started this program as such.
pub fn shim_process() {
    let words: Vec<String> = std::env::args()
        .skip_while(|word| word != "--nocapture")
        .collect();
    if let [_, _, _] = words.as_slice() {
        peapod_nodelet::shim_main(&words[1..]).unwrap();
    }
}

/// The processes with this path among the words of their command lines.
pub fn processes_of(path: &Path) -> Vec<nix::unistd::Pid> {
    let word = path.as_os_str().as_encoded_bytes();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|other| other == word) {
            pids.push(nix::unistd::Pid::from_raw(pid));
        }
    }
    pids
}
