//! The system calls that std and nix have no safe form for.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::cmsg_space;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{chdir, setsid};
use tokio::io::unix::AsyncFd;

use crate::protocol::Size;

/// What is mounted where, in the form in which the system call takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCall {
    /// Directory that relative paths in `data` start from.
    pub base: CString,
    /// `overlay`, `none` ...
    pub kind: CString,
    /// Source.
    pub source: CString,
    /// Where.
    pub target: CString,
    /// Flags.
    pub flags: MsFlags,
    /// The file system's own options.
    pub data: CString,
}

/// Hierarchies that a runtime must not see: it would refuse to work with both versions of cgroups.
pub const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Gives the command a mount namespace of its own, with `mounts` in it, and `hide_unified` without
/// the second cgroup hierarchy. Nothing of it reaches anyone else, and it ends with its last
/// process: no mount is ever left behind.
///
/// The namespace's other mounts stay what they are, shared with the host's where those are shared, so
/// that a container may still propagate mounts to the host where it was allowed to.
pub fn own_mounts(command: &mut Command, mounts: Vec<MountCall>, hide_unified: bool) {
    if mounts.is_empty() && !hide_unified {
        return;
    }
    let prepare = move || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        for call in &mounts {
            chdir(call.base.as_c_str())?;
            let MountCall {
                kind,
                source,
                target,
                flags,
                data,
                ..
            } = call;
            let (source, target) = (source.as_c_str(), target.as_c_str());
            mount(
                Some(source),
                target,
                Some(kind.as_c_str()),
                *flags,
                Some(data.as_c_str()),
            )?;
        }
        if hide_unified {
            mount(none, "/sys/fs/cgroup", none, MsFlags::MS_PRIVATE, none)?;
            umount2(UNIFIED, MntFlags::MNT_DETACH)?;
        }
        Ok(chdir("/")?)
    };
    // SAFETY: between fork and exec only system calls run, all of them async-signal-safe; strings
    // short enough for nix's buffer on the stack, or already terminated, are not copied to the heap.
    unsafe { command.pre_exec(prepare) };
}

/// Puts the command's process into a session of its own, so that no signal to our process group
/// reaches it, and lets it open as many files as the system allows.
pub fn own_session(command: &mut Command) {
    let prepare = || {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec only three system calls run, all of them async-signal-safe.
    unsafe { command.pre_exec(prepare) };
}

/// A stream with nothing in it, which may be written to. Not `/dev/null`, if it can be helped: crun gives
/// the process's user what it has as streams, and that device is the host's.
pub fn nowhere() -> Stdio {
    let made = memfd_create(c"nothing", MFdFlags::MFD_CLOEXEC);
    made.map_or_else(|_| Stdio::null(), Stdio::from)
}

/// The descriptor that whoever started this process gave it as standard input.
pub fn given_socket() -> OwnedFd {
    // SAFETY: the agent starts this process with the socket as standard input, and nothing else in
    // it uses descriptor 0.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Holds on to a process, so that its number cannot come to mean another; `None` if it is gone.
pub fn open_process(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just opened it for us.
        Ok(fd) if fd >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            error => Err(error),
        },
    }
}

/// Signals a process that is held on to. Succeeds when it is gone.
pub fn signal_process(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    let fd = process.as_raw_fd();
    // SAFETY: without a `siginfo_t` the call takes numbers only.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
    match (sent, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        (_, error) => Err(error),
    }
}

/// `struct pidfd_info` of `linux/pidfd.h`, the first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    numbers: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`
const GET_INFO: libc::c_ulong = 0xC040_FF0B;

/// The status, as `waitpid` has it, of a process that has been taken away by its parent. `None`
/// before that, and on kernels before 6.15.
pub fn status_of(process: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the descriptor is open, and the kernel writes at most the 64 bytes whose size is part of the
    // request's number into `info`, which lives until the call returns.
    let result = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// Lets the reactor wake its owner when the descriptor is ready.
pub fn wake_on(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, and stays the same descriptor, for as long as the `AsyncFd` owns it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Takes a descriptor that came over a socket.
pub fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut text = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut text)];
    let mut space = cmsg_space!([RawFd; 1]);
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(fd, &mut parts, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just opened it for us.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

/// Changes the size of a terminal.
pub fn resize(terminal: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads one `winsize`, which lives until the call
    // returns.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
