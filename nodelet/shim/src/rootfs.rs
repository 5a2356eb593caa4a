//! How a root file system is mounted: containerd's description of a mount as the system call
//! takes it.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::mount::MsFlags;

use crate::protocol::Mount;
use crate::sys::MountCall;

/// The call that mounts `mount` at `target`.
///
/// The kernel takes options of one page at most; the layers of an image have long paths with the same
/// beginning, which is left out: they are named from where they all are.
pub fn call(mount: &Mount, target: &Path) -> io::Result<MountCall> {
    let text = |text: &str| CString::new(text).map_err(io::Error::from);
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            "bind" => flags |= MsFlags::MS_BIND,
            "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            other => data.push(other.to_owned()),
        }
    }
    let base = common_directory(&data);
    let data: Vec<String> = data.iter().map(|option| relative(option, &base)).collect();
    let target = target
        .to_str()
        .ok_or_else(|| io::Error::other("its path is not UTF-8"))?;
    Ok(MountCall {
        base: text(&base)?,
        kind: text(&mount.kind)?,
        source: text(&mount.source)?,
        target: text(target)?,
        flags,
        data: text(&data.join(","))?,
    })
}

/// The paths in an option: the layers of an overlay.
fn paths(option: &str) -> impl Iterator<Item = &str> {
    let named = ["lowerdir=", "upperdir=", "workdir="];
    let value = named.iter().find_map(|name| option.strip_prefix(name));
    value.into_iter().flat_map(|value| value.split(':'))
}

/// The directory that all paths are below, with a slash at its end.
fn common_directory(options: &[String]) -> String {
    let mut all = options.iter().flat_map(|option| paths(option));
    let Some(first) = all.next() else {
        return "/".to_owned();
    };
    let mut length = first.rfind('/').map_or(0, |at| at + 1);
    for path in all {
        let same = first
            .bytes()
            .zip(path.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        length = length.min(same);
    }
    let end = first[..length].rfind('/').map_or(0, |at| at + 1);
    match end {
        0 => "/".to_owned(),
        end => first[..end].to_owned(),
    }
}

fn relative(option: &str, base: &str) -> String {
    match option.split_once('=') {
        Some((name @ ("lowerdir" | "upperdir" | "workdir"), value)) => {
            let parts = value
                .split(':')
                .map(|path| path.strip_prefix(base).unwrap_or(path));
            format!("{name}={}", parts.collect::<Vec<_>>().join(":"))
        }
        _ => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            kind: kind.into(),
            source: "src".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn layers_are_named_from_where_they_are() {
        let options = [
            "index=off",
            "workdir=/var/lib/c/snapshots/12/work",
            "upperdir=/var/lib/c/snapshots/12/fs",
            "lowerdir=/var/lib/c/snapshots/11/fs:/var/lib/c/snapshots/2/fs",
        ];
        let call = call(&mount("overlay", &options), Path::new("/t")).unwrap();
        assert_eq!(call.base.to_str().unwrap(), "/var/lib/c/snapshots/");
        let data = "index=off,workdir=12/work,upperdir=12/fs,lowerdir=11/fs:2/fs";
        assert_eq!(call.data.to_str().unwrap(), data);
        assert_eq!(call.flags, MsFlags::empty());
    }

    #[test]
    fn a_hundred_layers_fit_into_a_page() {
        let dir = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let layers: Vec<String> = (1000..1100).map(|n| format!("{dir}/{n}/fs")).collect();
        let options = [
            format!("upperdir={dir}/2/fs"),
            format!("workdir={dir}/2/work"),
            format!("lowerdir={}", layers.join(":")),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let call = call(&mount("overlay", &options), Path::new("/t")).unwrap();
        assert!(call.data.as_bytes().len() < 4096);
    }

    #[test]
    fn a_bind_mount_has_flags_and_no_data() {
        let call = call(&mount("bind", &["rbind", "ro"]), Path::new("/t")).unwrap();
        assert_eq!(
            call.flags,
            MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY
        );
        assert_eq!(call.data.as_bytes(), b"");
        assert_eq!(call.base.to_str().unwrap(), "/");
    }
}
