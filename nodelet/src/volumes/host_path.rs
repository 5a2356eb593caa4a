//! `hostPath`: something of the host's, of the type that was asked for.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use peapod_api::k8s_openapi;

/// A path of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// Where.
    pub path: PathBuf,
    /// What must be there; empty for no check.
    pub kind: String,
}

/// Reads the declaration.
pub fn of(source: &HostPathVolumeSource) -> HostPath {
    HostPath {
        path: PathBuf::from(&source.path),
        kind: source.type_.clone().unwrap_or_default(),
    }
}

/// Checks that what was asked for is there, and makes it where that was asked for.
pub fn place(volume: &HostPath) -> Result<(), String> {
    let path = &volume.path;
    let shown = path.display();
    match volume.kind.as_str() {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(path).map_err(|e| format!("cannot create {shown}: {e}"))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create_new(path).map_err(|e| format!("cannot create {shown}: {e}"))?;
        }
        _ => {}
    }
    let fault = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let found =
        |is: fn(&fs::FileType) -> bool| fs::metadata(path).is_ok_and(|meta| is(&meta.file_type()));
    match volume.kind.as_str() {
        "Directory" | "DirectoryOrCreate" if !found(fs::FileType::is_dir) => fault("a directory"),
        "File" | "FileOrCreate" if !found(fs::FileType::is_file) => fault("a file"),
        "Socket" if !found(FileTypeExt::is_socket) => fault("a socket file"),
        "CharDevice" if !found(FileTypeExt::is_char_device) => fault("a character device"),
        "BlockDevice" if !found(FileTypeExt::is_block_device) => fault("a block device"),
        "" if !path.exists() => make_dir(path),
        _ => Ok(()),
    }
}

/// Container runtimes make a directory of a path that nothing stands at.
fn make_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("cannot create {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let check = |path: &Path, kind: &str| {
            place(&HostPath {
                path: path.to_owned(),
                kind: kind.to_owned(),
            })
        };
        assert_eq!(check(dir.path(), "Directory"), Ok(()));
        assert_eq!(check(&file, "File"), Ok(()));
        assert!(
            check(&file, "Directory")
                .unwrap_err()
                .ends_with("is not a directory")
        );
        assert!(check(&dir.path().join("none"), "Socket").is_err());
        assert_eq!(check(Path::new("/dev/null"), "CharDevice"), Ok(()));
        assert_eq!(check(&dir.path().join("a/b"), "DirectoryOrCreate"), Ok(()));
        assert!(dir.path().join("a/b").is_dir());
    }
}
