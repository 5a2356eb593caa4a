//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Writes a value as JSON in the place of what was there. It need not outlive a power cut: then nothing may be
/// there, or an empty file.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(unfinished, path)
}

/// The same, with the content on disk before it takes the place of the other.
pub fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// The same for what is bytes already.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for write in [write_json::<Vec<u8>>, write_json_durably::<Vec<u8>>] {
            write(&path, &vec![1]).unwrap();
            write(&path, &vec![2, 3]).unwrap();
            // The place of the unfinished one is taken.
            let blocked = path.with_extension("tmp");
            fs::create_dir(&blocked).unwrap();
            write(&path, &vec![4]).unwrap_err();
            fs::remove_dir(&blocked).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "[2,3]");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
