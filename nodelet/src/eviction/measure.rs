//! What a directory takes of the disk. Blocking.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::runtime::DiskUsage;

/// Most entries that one look counts; a directory of more is counted that far.
const ENTRIES_MAX: usize = 1_000_000;
/// `st_blocks` counts in these, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

/// What all that is below a directory takes, itself included: a file with several names
/// once, and nothing of other file systems that are mounted below. What disappears meanwhile, or
/// cannot be read, counts as nothing.
pub fn below(dir: &Path) -> DiskUsage {
    let Ok(root) = fs::symlink_metadata(dir) else {
        return DiskUsage::default();
    };
    let mut total = of(&root);
    let mut linked = HashSet::new();
    let mut left = ENTRIES_MAX;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            // Of a link itself, never of what it leads to.
            let Ok(meta) = entry.metadata() else { continue };
            if left == 0 {
                return total;
            }
            left -= 1;
            let again = meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino());
            if meta.dev() != root.dev() || again {
                continue;
            }
            total = total + of(&meta);
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    total
}

fn of(meta: &fs::Metadata) -> DiskUsage {
    DiskUsage {
        bytes: meta.blocks() * BLOCK_BYTES,
        inodes: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let empty = below(dir.path()).bytes;
        let file = dir.path().join("a/b/file");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, vec![1; 256 << 10]).unwrap();
        fs::hard_link(&file, dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
        let all = below(dir.path());
        let used = all.bytes - empty;
        assert!((256 << 10..512 << 10).contains(&used), "{used}");
        assert_eq!(
            all.inodes, 5,
            "itself, a, a/b, the file with two names, the link"
        );
        // A hole takes no room.
        let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert!(below(dir.path()).bytes - empty < 512 << 10);
        assert_eq!(below(&dir.path().join("nothing")), DiskUsage::default());
    }
}
