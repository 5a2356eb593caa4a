//! `fsGroup`: a volume that a group may read and write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::Error;

/// Gives a directory and all in it to a group, unless `only_if_wrong` and its root belongs to
/// the group already (`fsGroupChangePolicy: OnRootMismatch`). New files inherit the group. Links
/// are not followed.
pub fn give(dir: &Path, group: u32, only_if_wrong: bool) -> Result<(), Error> {
    let meta = fs::symlink_metadata(dir).map_err(|e| Error::io("cannot stat", dir, e))?;
    if only_if_wrong && meta.gid() == group && meta.mode() & 0o2000 != 0 {
        return Ok(());
    }
    give_below(dir, &meta, group)
}

fn give_below(path: &Path, meta: &fs::Metadata, group: u32) -> Result<(), Error> {
    if meta.gid() != group {
        lchown(path, None, Some(group)).map_err(|e| Error::io("cannot chown", path, e))?;
    }
    if meta.is_symlink() {
        return Ok(());
    }
    let wanted = meta.mode() & 0o7777 | if meta.is_dir() { 0o2770 } else { 0o660 };
    // chown may have taken the set-group-ID bit.
    fs::set_permissions(path, fs::Permissions::from_mode(wanted))
        .map_err(|e| Error::io("cannot chmod", path, e))?;
    if !meta.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|e| Error::io("cannot list", path, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io("cannot list", path, e))?.path();
        let meta = fs::symlink_metadata(&path).map_err(|e| Error::io("cannot stat", &path, e))?;
        give_below(&path, &meta, group)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_what_links_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("v"), dir.path().join("out"));
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("f"), "").unwrap();
        fs::write(&outside, "").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("l")).unwrap();
        let group = fs::metadata(dir.path()).unwrap().gid();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        give(&inside, group, false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&inside) & 0o2770, 0o2770);
        assert_eq!(mode(&inside.join("f")) & 0o660, 0o660);
        assert_eq!(mode(&outside), 0o600);
    }
}
