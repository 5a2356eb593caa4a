//! Whether the disk has room: asked before each batch, so that a full disk is a clear refusal and
//! not a database that failed in the middle of a write.

use std::path::Path;

/// Says why `bytes` should not be written below `dir`, if `reserve_bytes` would not remain free.
/// With a reserve of 0 the disk is not asked.
pub(super) fn shortage(dir: &Path, bytes: u64, reserve_bytes: u64) -> Option<String> {
    if reserve_bytes == 0 {
        return None;
    }
    // An error here is none of the disk's room; the write itself will tell.
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let needed = reserve_bytes.saturating_add(bytes);
    (free < needed).then(|| {
        format!(
            "the disk of {} is full: {} MiB are free, {} MiB must be; free some space, and writes \
             go on by themselves",
            dir.display(),
            free >> 20,
            needed.div_ceil(1 << 20),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_names_the_directory_and_what_is_missing() {
        let dir = std::env::temp_dir();
        assert_eq!(shortage(&dir, 0, 0), None);
        let why = shortage(&dir, 1, u64::MAX).unwrap();
        assert!(why.contains(&dir.display().to_string()), "{why}");
        assert_eq!(shortage(Path::new("/nowhere/at/all"), 0, u64::MAX), None);
    }
}
