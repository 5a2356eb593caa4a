//! `peapod server` processes, without nodes: any number may run at once, beside any cluster.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use crate::command::{self, Run};
use crate::wait;

/// A `peapod server` with a data directory of its own; dropping it kills the process.
pub struct Server {
    data: TempDir,
    listen: String,
    flags: Vec<String>,
    /// How often it was started: its log goes on.
    starts: usize,
    process: Option<Child>,
}

// === impl Server ===

impl Server {
    /// Starts one and waits until it serves.
    pub fn start<S: AsRef<str>>(flags: &[S]) -> Result<Self> {
        let mut server = Self::prepare(flags)?;
        server.run()?;
        server.ready()?;
        Ok(server)
    }

    /// The place of one that is not started.
    pub fn prepare<S: AsRef<str>>(flags: &[S]) -> Result<Self> {
        Self::prepare_at("127.0.0.1", flags)
    }

    /// The same, at another address of this machine.
    pub fn prepare_at<S: AsRef<str>>(address: &str, flags: &[S]) -> Result<Self> {
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        Ok(Self {
            data: tempfile::Builder::new()
                .prefix("peapod-server-")
                .tempdir()?,
            listen: format!("{address}:{port}"),
            flags: flags.iter().map(|flag| flag.as_ref().to_owned()).collect(),
            starts: 0,
            process: None,
        })
    }

    /// Starts the process, for the first time or again.
    pub fn run(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let child = Command::new(command::peapod()?)
            .args(["server", "--listen", &self.listen])
            .arg("--data-dir")
            .arg(self.data.path())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.starts += 1;
        self.process = Some(child);
        Ok(())
    }

    /// Waits until it has said that it serves.
    pub fn ready(&mut self) -> Result<()> {
        let (log, starts) = (self.log_file(), self.starts);
        let process = self.process.as_mut().context("it was not started")?;
        let said = wait::until("the server", || {
            if let Some(status) = process.try_wait()? {
                bail!("it ended with {status}");
            }
            let said = fs::read_to_string(&log)?;
            Ok(said.matches("The cluster is at ").count() == starts)
        });
        said.with_context(|| format!("its log:\n{}", self.log()))
    }

    /// Runs it to its end, which comes by itself: what it says.
    pub fn refused(&mut self) -> Result<String> {
        self.run()?;
        if self.ended()?.success() {
            bail!("it ended without an error:\n{}", self.log());
        }
        Ok(self.log())
    }

    /// Waits for its end.
    fn ended(&mut self) -> Result<ExitStatus> {
        let process = self.process.as_mut().context("it was not started")?;
        let status = wait::some("the end of the server", || Ok(process.try_wait()?));
        let status = status.with_context(|| format!("its log:\n{}", self.log()))?;
        self.process = None;
        Ok(status)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Has it end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(process) = &self.process {
            let pid = nix::unistd::Pid::from_raw(process.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            let status = self.ended()?;
            if !status.success() {
                bail!("it ended with {status}; its log:\n{}", self.log());
            }
        }
        Ok(())
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Where it listens, as `127.0.0.1:6443`.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.path().join("kubeconfig")
    }

    /// A client with the rights of an administrator.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    /// Runs kubectl against it.
    pub fn kubectl<S: AsRef<str>>(&self, args: &[S]) -> Result<Run> {
        let mut all = vec![
            "--kubeconfig".to_owned(),
            self.kubeconfig().display().to_string(),
        ];
        all.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        command::run("kubectl", all)
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.data.path().join("server.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the log of the server at {} ---\n{}",
                self.listen,
                self.log()
            );
        }
        if let Err(error) = self.kill() {
            eprintln!("a server could not be ended: {error:#}");
        }
    }
}
