//! Files that change all at once.
//!
//! The files stand in a directory `..TIME`; the link `..data` points to it, and the names that
//! people see are links through `..data`. An update makes a new directory beside the old one and
//! swings `..data` by a rename, so that a reader sees all of the old or all of the new.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::Error;
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings a directory to hold exactly these files. Does nothing if it does already; true if it
/// changed something. `group` gets read access; `stamp` names the new generation and must differ
/// from the one before.
pub fn write(
    dir: &Path,
    payload: &Payload,
    group: Option<u32>,
    stamp: &str,
) -> Result<bool, Error> {
    let current = fs::read_link(dir.join(DATA)).ok();
    if let Some(current) = &current
        && holds(&dir.join(current), payload)
    {
        return Ok(false);
    }
    let generation = format!("..{stamp}");
    let fresh = dir.join(&generation);
    fill(&fresh, payload, group)?;
    point(dir, DATA_NEW, &generation)?;
    let (from, to) = (dir.join(DATA_NEW), dir.join(DATA));
    fs::rename(&from, &to).map_err(|e| Error::io("cannot rename", &from, e))?;
    show(dir, payload)?;
    sweep(dir, &generation)?;
    Ok(true)
}

/// Whether a generation holds exactly these bytes.
fn holds(generation: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if list(generation, Path::new(""), &mut found).is_err() {
        return false;
    }
    found.len() == payload.len()
        && payload.iter().all(|(path, file)| {
            found.contains(Path::new(path))
                && fs::read(generation.join(path)).is_ok_and(|data| data == file.data)
        })
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn fill(fresh: &Path, payload: &Payload, group: Option<u32>) -> Result<(), Error> {
    make_dir(fresh, group)?;
    for (path, file) in payload {
        let mut parent = fresh.to_path_buf();
        for part in Path::new(path)
            .parent()
            .into_iter()
            .flat_map(Path::components)
        {
            parent.push(part);
            make_dir(&parent, group)?;
        }
        let target = fresh.join(path);
        fs::write(&target, &file.data).map_err(|e| Error::io("cannot write", &target, e))?;
        let readable = if group.is_some() { 0o440 } else { 0 };
        set_mode(&target, file.mode | readable)?;
        if file.user.is_some() || group.is_some() {
            chown(&target, file.user, group).map_err(|e| Error::io("cannot chown", &target, e))?;
        }
    }
    Ok(())
}

fn make_dir(dir: &Path, group: Option<u32>) -> Result<(), Error> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(|e| Error::io("cannot create", dir, e))?,
    }
    if group.is_some() {
        chown(dir, None, group).map_err(|e| Error::io("cannot chown", dir, e))?;
    }
    set_mode(dir, if group.is_some() { 0o2755 } else { 0o755 })
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| Error::io("cannot chmod", path, e))
}

/// Makes a link, replacing what stands there.
fn point(dir: &Path, name: &str, target: &str) -> Result<(), Error> {
    let link = dir.join(name);
    match fs::remove_file(&link) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::io("cannot remove", &link, e));
        }
        _ => {}
    }
    symlink(target, &link).map_err(|e| Error::io("cannot link", &link, e))
}

/// The first parts of the paths, which is what people see.
fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect()
}

fn show(dir: &Path, payload: &Payload) -> Result<(), Error> {
    for name in visible(payload) {
        let target = format!("{DATA}/{name}");
        let right = fs::read_link(dir.join(name)).is_ok_and(|to| to == Path::new(&target));
        if !right {
            point(dir, name, &target)?;
        }
    }
    Ok(())
}

/// Removes older generations, and links that lead nowhere.
fn sweep(dir: &Path, generation: &str) -> Result<(), Error> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io("cannot list", dir, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        let gone = if name == DATA || name == generation {
            Ok(())
        } else if name.starts_with("..") {
            fs::remove_dir_all(&path)
        } else if !path.exists() {
            fs::remove_file(&path)
        } else {
            Ok(())
        };
        gone.map_err(|e| Error::io("cannot remove", &path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn files(list: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File {
            data: text.into(),
            mode: 0o640,
            user: None,
        };
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), file(text)))
            .collect()
    }

    #[test]
    fn changes_all_at_once_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(write(dir, &files(&[("a", "1"), ("x/y", "2")]), None, "1").unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("x/y")).unwrap(), "2");
        assert_eq!(
            fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(!write(dir, &files(&[("a", "1"), ("x/y", "2")]), None, "2").unwrap());

        let held = fs::canonicalize(dir.join("a")).unwrap();
        assert!(write(dir, &files(&[("a", "3")]), None, "3").unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join("x").exists() && !held.exists());
        let left: BTreeSet<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["..3", "..data", "a"].map(Into::into).into());
    }
}
