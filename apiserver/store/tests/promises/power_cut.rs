//! Power cuts: what was acknowledged is on the disk itself, not only with the kernel.
//!
//! The store is on an ext4 in an image behind a loop device. While it is written to, the writer is
//! stopped and the image copied: the copy has what reached the device, and none of what the kernel
//! still held back. The copy is then the machine after the cut: it is mounted, which replays the
//! file system's journal, and the store in it must open clean with every acknowledged write. The
//! next round goes on from there.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::damage::copy_dir;
use crate::kill::{Acknowledged, Writer, rounds};
use crate::mounts::{Mount, command, ext4_image};

const IMAGE_MIB: u64 = 192;

#[tokio::test]
async fn after_a_power_cut_the_store_opens_clean_with_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mounted, copied) = (dir.path().join("machine.img"), dir.path().join("after.img"));
    ext4_image(&mounted, IMAGE_MIB);
    let mut acknowledged = Acknowledged::default();
    for round in 0..rounds(5) {
        let machine = Mount::image(&dir.path().join("machine"), &mounted);
        let store = machine.path().join("store");
        let mut writer = Writer::start(&store);
        for _ in 0..200 + round * 131 % 1500 {
            assert!(writer.read(&mut acknowledged), "the writer ended by itself");
        }
        cut(writer, &mut acknowledged, &mounted, &copied);
        drop(machine);
        std::fs::rename(&copied, &mounted).unwrap();
        let machine = Mount::image(&dir.path().join("machine"), &mounted);
        let found = tempfile::tempdir().unwrap();
        copy_dir(&machine.path().join("store"), found.path());
        drop(machine);
        acknowledged.verify(found.path()).await;
    }
}

/// Copies what is on the device at this moment. All that was acknowledged until then is known.
fn cut(writer: Writer, acknowledged: &mut Acknowledged, device: &Path, copy: &Path) {
    let pid = Pid::from_raw(writer.child.id().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    // Only when the stop is reported has every one of its threads stopped.
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    command(
        "cp",
        &[
            "--sparse=always",
            device.to_str().unwrap(),
            copy.to_str().unwrap(),
        ],
    );
    writer.kill(acknowledged);
}
