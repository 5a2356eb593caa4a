//! The system calls that std and nix have no safe form for, and the threads that change their
//! own namespaces.
//!
//! A thread that has left its namespaces must not serve anyone else afterwards, so each such
//! job gets a thread of its own that ends with the job.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::statfs::{FsType, statfs};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, chdir, pivot_root, setsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Magic number of the file system behind `/proc/PID/ns/*` (`NSFS_MAGIC`).
const NSFS: FsType = FsType(0x6e73_6673);

/// Whether a path is the root of a mount: of a file system, or of a bind mount.
pub fn is_mount_root(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: the path is NUL-terminated, and the kernel writes one statx to the pointer.
    let failed =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, found.as_mut_ptr()) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, and written by the kernel.
    let found = unsafe { found.assume_init() };
    Ok(found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

/// Moves at most so many bytes from a pipe to a place in a file, without waiting. What has left the pipe
/// stands in the file, whenever this process is killed.
pub fn splice(pipe: BorrowedFd<'_>, file: &File, at: u64, most: usize) -> io::Result<usize> {
    let mut offset = libc::loff_t::try_from(at).map_err(io::Error::other)?;
    let (from, to) = (pipe.as_raw_fd(), file.as_raw_fd());
    let none = std::ptr::null_mut();
    // SAFETY: both descriptors are borrowed for the call, and the kernel writes to the offset only.
    let moved = unsafe {
        libc::splice(
            from,
            none,
            to,
            &raw mut offset,
            most,
            libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Which start of the machine this is: the first digits of its boot ID.
pub fn boot() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let first = text.get(..8).unwrap_or_default();
    u64::from_str_radix(first, 16).map_err(io::Error::other)
}

/// A namespace to make and where to pin it.
pub struct Pin {
    /// Which kind.
    pub flag: CloneFlags,
    /// Its file under `/proc/thread-self/ns`.
    pub name: &'static str,
    /// The file to mount it over.
    pub path: PathBuf,
}

/// Makes the namespaces of `pins` in a thread of its own, lets `inside` prepare them from
/// within, and pins them.
pub fn pin_namespaces(
    pins: Vec<Pin>,
    inside: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    in_thread("pin-namespaces", move || {
        let flags = pins
            .iter()
            .fold(CloneFlags::empty(), |all, pin| all | pin.flag);
        unshare(flags)?;
        inside()?;
        for pin in &pins {
            File::create(&pin.path)?;
            let source = format!("/proc/thread-self/ns/{}", pin.name);
            bind(Path::new(&source), &pin.path)?;
        }
        Ok(())
    })
}

/// Runs `job` in the network namespace pinned at `netns`, in a thread of its own.
pub fn in_netns<T: Send + 'static>(
    netns: &Path,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let file = File::open(netns)?;
    in_thread("in-netns", move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        job()
    })
}

/// Runs `job` in a thread of its own, whose namespaces it may change.
pub fn in_thread<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(job)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other(format!("the thread {name} panicked"))))
}

/// Whether a namespace is pinned at this path.
pub fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS)
}

/// Unmounts everything at this path, at once for us and for others when they let go.
/// Succeeds when nothing is mounted there.
pub fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Mounts a memory file system.
pub fn mount_tmpfs(path: &Path, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(
        Some("shm"),
        path,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

/// Mounts a file or directory over another.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?)
}

/// Makes an empty, read-only file system the root of the calling thread, which has a mount namespace
/// of its own. `dir` is where it is mounted on the way.
pub fn pivot_to_empty(dir: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), dir, Some("tmpfs"), flags, Some("size=4k"))?;
    // The old root is mounted over the new one, and then taken away.
    chdir(dir)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

/// A copy of the mount at this path, and of those below it, that is nowhere yet.
pub fn copy_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let flags = flags | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is NUL-terminated, and lives until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just opened it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Shows the owners of files in a mount that is nowhere yet as a user namespace has them: file of user
/// 0 as of the namespace's 0.
pub fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd().try_into().map_err(io::Error::other)?,
    };
    // SAFETY: the path is empty and terminated; the kernel reads one `mount_attr` of the size given,
    // which lives until the call returns.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts a mount that is nowhere yet over a file or directory.
pub fn attach_mount(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: both paths are NUL-terminated, and live until the call returns.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the command's process new namespaces of these kinds.
pub fn own_namespaces(command: &mut Command, flags: CloneFlags) -> &mut Command {
    // SAFETY: between fork and exec one system call runs.
    unsafe { command.pre_exec(move || Ok(unshare(flags)?)) }
}

/// Makes the command's process root of a user namespace, the first of these, and puts it into the others,
/// which that one owns.
pub fn join_as_root(command: &mut Command, namespaces: Vec<File>) -> &mut Command {
    let join = move || {
        for namespace in &namespaces {
            setns(namespace, CloneFlags::empty())?;
        }
        become_user(0)
    };
    // SAFETY: between fork and exec only system calls run.
    unsafe { command.pre_exec(join) }
}

/// Lets the command's process write a file before its program begins.
pub fn write_before(command: &mut Command, path: PathBuf, text: String) -> &mut Command {
    let write = move || {
        let mut file = File::options().write(true).open(&path)?;
        io::Write::write_all(&mut file, text.as_bytes())
    };
    // SAFETY: between fork and exec only system calls run; a path this short is not copied to the heap.
    unsafe { command.pre_exec(write) }
}

/// Makes the command's program the first process of a new PID namespace that the user namespace, the
/// first of these, owns, as an unprivileged user with an empty root. The program is a child of this
/// process beside the command's own one, which ends at once; its number comes over `tell`.
pub fn first_process_of(
    command: &mut Command,
    namespaces: Vec<File>,
    root: PathBuf,
    user: u32,
    tell: OwnedFd,
) -> &mut Command {
    let prepare = move || {
        for namespace in &namespaces {
            setns(namespace, CloneFlags::empty())?;
        }
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
        pivot_to_empty(&root)?;
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: a clone without a stack of its own and without shared memory is a fork.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match i32::try_from(pid) {
            Ok(0) => become_user(user),
            Ok(pid) if pid > 0 => {
                let told = nix::unistd::write(&tell, &pid.to_ne_bytes());
                // SAFETY: ends the process without running anything of the program that it is a copy of.
                unsafe { libc::_exit(i32::from(told.is_err())) }
            }
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only system calls run; paths this short are not copied to the heap.
    unsafe { command.pre_exec(prepare) }
}

/// Makes the only thread of a process this user, and its group.
fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: both take numbers.
    let failed = unsafe {
        libc::syscall(libc::SYS_setresgid, id, id, id) != 0
            || libc::syscall(libc::SYS_setresuid, id, id, id) != 0
    };
    match failed {
        true => Err(io::Error::last_os_error()),
        false => Ok(()),
    }
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads one `ifreq`, which lives until the
    // call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts the command's process into a session of its own, so that no terminal's hang-up and no
/// signal to our process group reaches it, and lets it open as many files as the system allows: a
/// shell's usual 1024 are too few for what serves hundreds of containers.
pub fn own_session(command: &mut Command) -> &mut Command {
    let prepare = || {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec only three system calls run, all of them
    // async-signal-safe.
    unsafe { command.pre_exec(prepare) }
}

/// Lets the command's process become the program behind a descriptor, in a session of its own,
/// unable to gain privileges, its children taken away by the kernel.
pub fn exec_descriptor<'a>(
    command: &'a mut Command,
    program: BorrowedFd<'static>,
    name: &'static CStr,
) -> &'a mut Command {
    let become_it = move || {
        setsid()?;
        set_no_new_privs()?;
        let arguments = [name.as_ptr(), std::ptr::null()];
        let environment: [*const libc::c_char; 1] = [std::ptr::null()];
        // SAFETY: setting a signal to be ignored installs no handler. The arrays end with a null,
        // and live, as what they point to, until the call returns, which it does only on failure.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            libc::syscall(
                libc::SYS_execveat,
                program.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec only system calls run, all of them async-signal-safe.
    unsafe { command.pre_exec(become_it) }
}

/// Holds on to a process, so that its number cannot come to mean another; `None` if it is gone.
pub fn open_process(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if let Ok(fd) = RawFd::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the kernel has just opened it for us.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        error => Err(error),
    }
}

/// Sends SIGKILL to a process that is held on to. Succeeds when it is gone.
pub fn kill_process(process: BorrowedFd<'_>) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    let fd = process.as_raw_fd();
    // SAFETY: without a `siginfo_t` the call takes numbers only.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, info, 0) };
    match (sent, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        (_, error) => Err(error),
    }
}

/// Takes away a process that has ended, if it is a child of this one.
pub fn reap(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // One that an agent before this one started is the system's to take away.
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// Waits for the end of a child of this process.
pub fn await_end(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = waitpid(Pid::from_raw(pid), None);
    }
}

/// Lets the reactor wake its owner when there is something to read.
pub fn wake_on_input(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, and stays the same descriptor, for as long as the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Clock ticks per second, the unit of times in `/proc/PID/stat`.
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: reads a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100)
}
