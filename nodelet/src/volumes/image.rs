//! `image` volumes: the files of an image, to read only.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{Error, mounts};
use crate::runtime::FsMount;

/// Mounts a view of an image on a directory; what is mounted already stays.
pub fn place(view: &[FsMount], dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::io("cannot create", dir, e))?;
    // A bind mount may be of the same device as what it is mounted on: only the kernel's table tells.
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|e| Error::io("cannot read", table, e))?;
    if mounts::below(&text, dir).iter().any(|point| point == dir) {
        return Ok(());
    }
    for part in view {
        let bind = part.options.iter().any(|o| o == "bind" || o == "rbind");
        let data: Vec<&str> = part
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| !matches!(*option, "ro" | "bind" | "rbind"))
            .collect();
        let data = data.join(",");
        let none: Option<&str> = None;
        let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
        let flags = if bind { MsFlags::MS_BIND } else { read_only };
        let fault = |e| Error::io("cannot mount an image on", dir, e);
        mount(
            Some(part.source.as_str()),
            dir,
            Some(part.kind.as_str()),
            flags,
            (!bind && !data.is_empty()).then_some(data.as_str()),
        )
        .map_err(fault)?;
        if bind {
            // A bind mount takes its flags only when it is mounted again.
            let again = read_only | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            mount(none, dir, none, again, none).map_err(fault)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_once_and_gone_with_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("file"), "text").unwrap();
        let second = dir.path().join("second");
        fs::create_dir(&second).unwrap();
        let bind = FsMount {
            kind: "bind".into(),
            source: layer.to_string_lossy().into_owned(),
            options: vec!["ro".into(), "rbind".into()],
        };
        let overlay = FsMount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: vec![format!("lowerdir={}:{}", layer.display(), second.display())],
        };
        let pod = dir.path().join("pod");
        for (name, view) in [("one", bind), ("many", overlay)] {
            let target = pod.join(name);
            place(std::slice::from_ref(&view), &target).unwrap();
            place(&[view], &target).unwrap();
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert_eq!(mounts::below(&table, &target).len(), 1, "mounted once");
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "text");
            let error = fs::write(target.join("file"), "other").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
        super::super::place::remove(&pod).unwrap();
        assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "text");
        assert!(!pod.exists());
    }
}
