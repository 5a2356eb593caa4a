//! A cluster of one test: `peapod up` in a data directory of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::fcntl::{Flock, FlockArg};
use peapod_nodelet::images::assemble::Assemble;
use serde_json::Value;

use crate::command::{self, Run};
use crate::process;

/// The programs of `busybox:test`.
const APPLETS: [&str; 20] = [
    "cat", "chown", "dd", "echo", "env", "grep", "hostname", "httpd", "id", "kill", "ls", "ping",
    "ps", "sh", "sleep", "sort", "test", "touch", "true", "wget",
];

/// One cluster at a time in this process.
static TURN: Mutex<()> = Mutex::new(());

/// A running cluster; dropping it removes everything that it put on the machine.
pub struct Cluster {
    _disk: Option<Disk>,
    data: tempfile::TempDir,
    listen: String,
    _machine_turn: Flock<File>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts a cluster with the demo images loaded.
    pub fn up() -> Result<Self> {
        let cluster = Self::prepare()?;
        cluster.start()?;
        cluster.load_demo_images()?;
        Ok(cluster)
    }

    /// Gives the node both versions of the demo image.
    pub fn load_demo_images(&self) -> Result<()> {
        for version in ["v1", "v2"] {
            let archive = command::demo_archive(version)?;
            self.peapod(["image", "load", &archive.to_string_lossy()])?
                .ok()?;
        }
        Ok(())
    }

    /// Gives the node `busybox:test`: a shell, for pods that do more than serve.
    pub fn load_busybox(&self) -> Result<()> {
        let archive = self.data.path().join("busybox.tar");
        let image = Assemble::from_busybox("busybox:test", Path::new("/bin/busybox"), &APPLETS)?;
        image.write(File::create(&archive)?)?;
        self.peapod(["image", "load", &archive.to_string_lossy()])?
            .ok()?;
        Ok(std::fs::remove_file(archive)?)
    }

    /// The place of a cluster that was not started.
    pub fn prepare() -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let file =
            File::create("/tmp/peapod-tests.lock").context("cannot create the tests' lock")?;
        let machine_turn = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| anyhow!("cannot take the tests' lock: {errno}"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            _disk: None,
            data: tempfile::Builder::new().prefix("peapod-test-").tempdir()?,
            listen: format!("127.0.0.1:{port}"),
            _machine_turn: machine_turn,
            _turn: turn,
        })
    }

    /// The place of a cluster that was not started, on a disk of its own of so many MiB.
    pub fn prepare_on_disk(mib: u32) -> Result<Self> {
        let mut cluster = Self::prepare()?;
        cluster._disk = Some(Disk::mount(cluster.data.path(), mib)?);
        Ok(cluster)
    }

    /// `peapod up`.
    pub fn start(&self) -> Result<String> {
        self.start_with::<&str>(&[])
    }

    /// `peapod up` with further flags.
    pub fn start_with<S: AsRef<str>>(&self, flags: &[S]) -> Result<String> {
        let run = self.try_start(flags)?;
        run.ok()
            .with_context(|| format!("`peapod up` failed; its log:\n{}", self.log()))
    }

    /// `peapod up` with further flags, which may fail.
    pub fn try_start<S: AsRef<str>>(&self, flags: &[S]) -> Result<Run> {
        let data = self.data.path().to_string_lossy().into_owned();
        let mut args = vec!["up", "--data-dir", &data, "--listen", &self.listen];
        args.extend(flags.iter().map(AsRef::as_ref));
        command::run(command::peapod()?, args)
    }

    /// `peapod up` with variables of the environment, each `NAME=VALUE`.
    pub fn start_among(&self, environment: &[&str]) -> Result<String> {
        let data = self.data.path().to_string_lossy().into_owned();
        let peapod = command::peapod()?.to_string_lossy().into_owned();
        let up = [&peapod, "up", "--data-dir", &data, "--listen", &self.listen];
        command::run("env", environment.iter().copied().chain(up))?
            .ok()
            .with_context(|| format!("`peapod up` failed; its log:\n{}", self.log()))
    }

    /// `peapod down`.
    pub fn stop(&self) -> Result<String> {
        let data = self.data.path().to_string_lossy().into_owned();
        command::run(command::peapod()?, ["down", "--data-dir", &data])?.ok()
    }

    /// `peapod down --purge`.
    pub fn purge(&self) -> Result<String> {
        let data = self.data.path().to_string_lossy().into_owned();
        command::run(command::peapod()?, ["down", "--purge", "--data-dir", &data])?.ok()
    }

    /// Ends the peapod process as a crash would, and waits until it is gone.
    pub fn crash(&self) -> Result<()> {
        process::kill(&[self.pid()?])
    }

    /// The peapod process.
    pub fn pid(&self) -> Result<i32> {
        let text = std::fs::read_to_string(self.data.path().join("run/instance.json"))?;
        let state: Value = serde_json::from_str(&text)?;
        Ok(state["pid"].as_i64().context("the state names no pid")? as i32)
    }

    /// What `peapod status -o json` says.
    pub fn status(&self) -> Result<Value> {
        let data = self.data.path().to_string_lossy().into_owned();
        let said = self.peapod(["status", "-o", "json", "--data-dir", &data])?;
        Ok(serde_json::from_str(&said.ok()?)?)
    }

    /// The warnings of `peapod status`, a line each.
    pub fn warnings(&self) -> Result<String> {
        let status = self.status()?;
        let warnings = status["warnings"].as_array().context("no warnings")?;
        let lines: Vec<&str> = warnings.iter().filter_map(Value::as_str).collect();
        Ok(lines.join("\n"))
    }

    /// A client over TLS, as the administrator.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// The node's InternalIP.
    pub fn node_ip(&self) -> Result<String> {
        let status = self.status()?;
        Ok(status["nodeIp"].as_str().context("no nodeIp")?.to_owned())
    }

    /// Runs peapod against this cluster.
    pub fn peapod<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Run> {
        let mut command = Command::new(command::peapod()?);
        command
            .args(args)
            .env("PEAPOD_DATA_DIR", self.data.path())
            .env("KUBECONFIG", self.kubeconfig());
        command::finish(command, None)
    }

    /// Runs stock kubectl against this cluster, its arguments split at blanks.
    pub fn kubectl(&self, line: &str) -> Result<Run> {
        self.kubectl_with(&line.split_whitespace().collect::<Vec<_>>(), None)
    }

    /// Runs stock kubectl with a text as its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: Option<&str>) -> Result<Run> {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.data.path());
        command::finish(command, input)
    }

    /// Applies a manifest by kubectl.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], Some(manifest))?
            .ok()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.path().join("kubeconfig")
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Where the API server listens.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// The end of the instance's log, for the message of a failed test.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.data.path().join("peapod.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// A JSONPath, which may have blanks, of an object.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        let object = object.split_whitespace();
        let args: Vec<&str> = ["get"]
            .into_iter()
            .chain(object)
            .chain(["-o", &path])
            .collect();
        self.kubectl_with(&args, None)?.ok()
    }

    /// GET of a path at a Service's virtual IP.
    pub fn request(&self, service: &str, path: &str) -> Result<String> {
        let address = self.field(&format!("service/{service}"), "{.spec.clusterIP}")?;
        let url = format!("http://{address}{path}");
        command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.ok()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of peapod's log ---\n{}", self.log());
        }
        if let Err(error) = self.purge() {
            eprintln!("the cluster could not be removed: {error:#}");
        }
    }
}

/// A disk of limited size, in memory, mounted at a directory; dropping it unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, mib: u32) -> Result<Self> {
        let options = format!("size={mib}m,mode=755");
        let at = at.to_path_buf();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "peapod-test"])
            .arg(&at);
        command::finish(mount, None)?.ok()?;
        Ok(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        unmount.arg(&self.0);
        let unmounted = command::finish(unmount, None).and_then(Run::ok);
        if let Err(error) = unmounted {
            eprintln!("{} could not be unmounted: {error:#}", self.0.display());
        }
    }
}
