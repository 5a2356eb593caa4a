//! A process behind a socket, which whoever first needs it starts, and which outlives them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::sys;

/// How to start the process, and where it is.
#[derive(Debug)]
pub struct Daemon {
    /// Program and arguments.
    command: Vec<OsString>,
    socket: PathBuf,
    /// Held while the process is started, so that it is started once.
    starting: Mutex<()>,
}

// === impl Daemon ===

impl Daemon {
    /// A process that is started by `command`, with its listening socket as standard input. Nothing is
    /// started yet.
    pub fn new(command: Vec<OsString>, socket: PathBuf) -> Self {
        Self {
            command,
            socket,
            starting: Mutex::new(()),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects, if it runs.
    pub async fn find(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.socket).await
    }

    /// Connects; starts it if it does not run.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        if let Ok(stream) = self.find().await {
            return Ok(stream);
        }
        let _starting = self.starting.lock().await;
        // Another task may have started it in the meantime.
        if let Ok(stream) = self.find().await {
            return Ok(stream);
        }
        self.start()?;
        self.find().await
    }

    /// The socket is made here, so that we can connect at once and never wait for the process to come
    /// up.
    fn start(&self) -> io::Result<()> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| io::Error::other("no program is configured for it"))?;
        if let Some(dir) = self.socket.parent() {
            fs::create_dir_all(dir)?;
        }
        let _ = fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket)?;
        let log = self.socket.with_extension("log");
        let log: File = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(log);
        sys::own_session(&mut command);
        let mut child = command.spawn()?;
        // So that it leaves no zombie if it ends before us.
        std::thread::Builder::new()
            .name("daemon-reaper".into())
            .spawn(move || child.wait())?;
        Ok(())
    }
}
