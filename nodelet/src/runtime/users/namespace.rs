//! A user namespace and the namespaces that it owns: made by a process that is there only until they are
//! pinned.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::CloneFlags;

use super::HostIds;
use crate::runtime::reaper;
use crate::runtime::sys::{self, Pin};

/// Makes a user namespace with these IDs and the namespaces of `pins`, which it owns, pins them all, and lets `inside`
/// prepare the latter, with the host's privileges.
pub fn pin(
    ids: HostIds,
    user: &Path,
    pins: Vec<Pin>,
    inside: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let flags = pins.iter().map(|pin| pin.flag);
    let flags = flags.fold(CloneFlags::CLONE_NEWUSER, |all, flag| all | flag);
    // Until it has read a byte, or the end of its input, it waits: it ends when we do.
    let own = |command: &mut Command| {
        sys::own_namespaces(command, flags);
    };
    let mut holder = spawn(own, Stdio::piped())?;
    let pinned = pin_those_of(holder.id(), ids, user, &pins);
    drop(holder.stdin.take());
    let _ = holder.wait();
    pinned?;
    sys::in_thread("prepare-namespaces", move || {
        for pin in &pins {
            nix::sched::setns(File::open(&pin.path)?, CloneFlags::empty())?;
        }
        inside()
    })
}

fn pin_those_of(pid: u32, ids: HostIds, user: &Path, pins: &[Pin]) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), ids.map())?;
    }
    let others = pins.iter().map(|pin| (pin.name, pin.path.as_path()));
    for (name, path) in [("user", user)].into_iter().chain(others) {
        File::create(path)?;
        sys::bind(Path::new(&format!("/proc/{pid}/ns/{name}")), path)?;
    }
    Ok(())
}

/// Writes a file (of `/proc/sys`) as root of the user namespace `user`, inside the others: numbers in it are
/// the namespace's.
pub fn write_as_root(
    user: &Path,
    others: &[PathBuf],
    path: PathBuf,
    text: String,
) -> io::Result<()> {
    let namespaces = [user]
        .into_iter()
        .chain(others.iter().map(PathBuf::as_path));
    let namespaces = namespaces.map(File::open).collect::<io::Result<Vec<_>>>()?;
    let prepare = |command: &mut Command| {
        sys::join_as_root(command, namespaces);
        sys::write_before(command, path, text);
    };
    // The program itself has nothing to do, and ends.
    spawn(prepare, Stdio::null())?.wait().map(drop)
}

fn spawn(prepare: impl FnOnce(&mut Command), stdin: Stdio) -> io::Result<Child> {
    let mut command = reaper::command();
    command
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    prepare(&mut command);
    reaper::become_program(&mut command)?.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_namespace_owns_is_its_roots() {
        let dir = tempfile::tempdir().unwrap();
        let (user, net) = (dir.path().join("user"), dir.path().join("net"));
        let ids = HostIds {
            first: 6_553_600,
            count: 65_536,
        };
        let pins = vec![Pin {
            flag: CloneFlags::CLONE_NEWNET,
            name: "net",
            path: net.clone(),
        }];
        pin(ids, &user, pins, sys::loopback_up).unwrap();
        let setting = PathBuf::from("/proc/sys/net/ipv4/ping_group_range");
        let others = [net.clone()];
        write_as_root(&user, &others, setting.clone(), "0 65535".into()).unwrap();
        let refused = write_as_root(&user, &others, setting, "0 65536".into());
        assert!(refused.is_err(), "a group that the namespace does not have");
        let script = "cat /proc/self/uid_map /proc/sys/net/ipv4/ping_group_range; \
                      ip address add 10.9.9.9/32 dev lo && ip -o link show lo";
        let output = Command::new("nsenter")
            .arg(format!("--user={}", user.display()))
            .arg(format!("--net={}", net.display()))
            .args(["sh", "-c", script])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words[..5],
            ["0", "6553600", "65536", "0", "65535"],
            "{output:?}"
        );
        assert!(output.status.success() && text.contains("UP"), "{output:?}");
        for path in [user, net] {
            sys::unmount(&path).unwrap();
        }
    }
}
