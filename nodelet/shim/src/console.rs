//! Terminals: the OCI runtime makes one and sends its master end; bytes are copied between it and the
//! agent's fifos.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::protocol::Size;
use crate::sys;

/// The runtime has sent the terminal before it ends; this is for one that has not.
const MASTER_LIMIT: Duration = Duration::from_secs(5);
/// How long output may go on after the process's end: another may hold the terminal open.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Bytes copied at once.
const COPY_MAX: usize = 16 * 1024;

/// Where the OCI runtime sends a terminal.
pub struct ConsoleSocket {
    listener: UnixListener,
    /// Keeps [`Self::path`] valid.
    dir: File,
    name: PathBuf,
}

/// A terminal that is connected to fifos.
pub struct Console {
    master: Rc<AsyncFd<OwnedFd>>,
    output: JoinHandle<()>,
    input: Option<JoinHandle<()>>,
}

// === impl ConsoleSocket ===

impl ConsoleSocket {
    /// A socket in `dir`.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let name = dir.join("console.sock");
        let _ = std::fs::remove_file(&name);
        let dir = File::open(dir)?;
        let listener = UnixListener::bind(path_by(&dir))?;
        Ok(Self {
            listener,
            dir,
            name,
        })
    }

    /// Its path: short, whatever the directory's is, for a socket's has at most 107 bytes.
    pub fn path(&self) -> PathBuf {
        path_by(&self.dir)
    }

    /// The terminal that was sent.
    pub async fn master(self) -> io::Result<OwnedFd> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            let take = || sys::receive_descriptor(&stream);
            stream.async_io(Interest::READABLE, take).await
        };
        let received = timeout(MASTER_LIMIT, receive).await;
        let missing = || io::Error::other("the OCI runtime has sent no terminal");
        received.map_err(|_| missing())??.ok_or_else(missing)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.name);
    }
}

fn path_by(dir: &File) -> PathBuf {
    let (pid, fd) = (std::process::id(), dir.as_raw_fd());
    PathBuf::from(format!("/proc/{pid}/fd/{fd}/console.sock"))
}

// === impl Console ===

impl Console {
    /// Connects a terminal to the fifos in `dir`.
    pub fn connect(master: OwnedFd, dir: &Path, stdin: bool) -> io::Result<Self> {
        fcntl(
            master.as_fd(),
            FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
        )?;
        let master = Rc::new(sys::wake_on(master)?);
        // Open for reading as well: they work whether the agent's end is open or not.
        let mut fifos = pipe::OpenOptions::new();
        let fifos = fifos.read_write(true);
        let out = fifos.open_sender(dir.join("stdout"))?;
        let output = tokio::task::spawn_local(copy_output(Rc::clone(&master), out));
        let input = match stdin {
            false => None,
            true => {
                let source = fifos.open_receiver(dir.join("stdin"))?;
                Some(tokio::task::spawn_local(copy_input(
                    source,
                    Rc::clone(&master),
                )))
            }
        };
        Ok(Self {
            master,
            output,
            input,
        })
    }

    /// Changes the size.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        sys::resize(self.master.get_ref().as_fd(), size)
    }

    /// Waits until everything that was written is in the fifo, not for ever.
    pub async fn drained(&mut self) {
        let _ = timeout(DRAIN_LIMIT, &mut self.output).await;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.output.abort();
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

/// Until nobody has the terminal open any more, which reads as an error (EIO).
async fn copy_output(master: Rc<AsyncFd<OwnedFd>>, mut out: pipe::Sender) {
    let mut buffer = vec![0; COPY_MAX];
    loop {
        let read = |fd: &OwnedFd| nix::unistd::read(fd, &mut buffer).map_err(io::Error::from);
        match master.async_io(Interest::READABLE, read).await {
            Ok(length @ 1..) => {
                if out.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

async fn copy_input(mut source: pipe::Receiver, master: Rc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![0; COPY_MAX];
    while let Ok(length @ 1..) = source.read(&mut buffer).await {
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let write = |fd: &OwnedFd| nix::unistd::write(fd, rest).map_err(io::Error::from);
            match master.async_io(Interest::WRITABLE, write).await {
                Ok(written) => rest = &rest[written..],
                Err(_) => return,
            }
        }
    }
}
