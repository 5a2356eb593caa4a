//! File systems of a test's own: small, and cut off from power when it likes. They need root and,
//! for images, a free loop device; without them the tests that ask for one fail and say so.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, unmounted when dropped.
pub struct Mount {
    at: PathBuf,
}

// === impl Mount ===

impl Mount {
    /// A file system in memory of `mib` MiB.
    pub fn memory(at: &Path, mib: usize) -> Self {
        Self::new(at, &["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"])
    }

    /// The file system in `image`, through a loop device.
    pub fn image(at: &Path, image: &Path) -> Self {
        Self::new(at, &["-o", "loop", image.to_str().unwrap()])
    }

    fn new(at: &Path, what: &[&str]) -> Self {
        std::fs::create_dir_all(at).unwrap();
        command("mount", &[what, &[at.to_str().unwrap()]].concat());
        Self { at: at.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A panic here while unwinding would hide the reason of the first.
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("cannot unmount {}", self.at.display());
        }
    }
}

/// An image of `mib` MiB with an empty ext4 in it.
pub fn ext4_image(path: &Path, mib: u64) {
    std::fs::File::create(path)
        .unwrap()
        .set_len(mib << 20)
        .unwrap();
    command("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()]);
}

/// Runs `program`, which must succeed.
pub fn command(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}; install it"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}this test needs root, and a free loop device for images \
         (losetup -f)",
        String::from_utf8_lossy(&output.stderr)
    );
}
