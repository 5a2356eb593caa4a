//! Damaged files: nothing panics, nothing is guessed, and what was acknowledged comes back from the
//! export and the tail.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use crate::kill::rounds;
use peapod_store::{Compare, Draft, Limits, OpenError, Recovery, Revision, SledConfig, Txn};

/// A store that was written, exported in between, and closed.
struct Written {
    dir: tempfile::TempDir,
    content: Vec<(String, String)>,
    revision: Revision,
}

async fn written(changes: usize, export_after_bytes: u64) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let config = SledConfig {
        export_after_bytes,
        ..SledConfig::new(dir.path())
    };
    let (store, _) = open_with(config, Limits::default()).await.unwrap();
    for i in 0..changes {
        let text = format!("{i} {} rv=", "x".repeat(i * 37 % 3000));
        let draft = Draft::new(text.clone(), text.len() as u32);
        let key = pod(&format!("a/{}", i % 40));
        store
            .commit(Txn::new().put(key, Compare::Any, draft))
            .await
            .unwrap();
        if i % 10 == 9 {
            let key = pod(&format!("a/{}", i % 40));
            store
                .commit(Txn::new().delete(key, Compare::Present))
                .await
                .unwrap();
        }
    }
    let (content, revision) = (content(&store), store.revision());
    store.close().await;
    Written {
        dir,
        content,
        revision,
    }
}

// === impl Written ===

impl Written {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of its directory, to be damaged.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        copy
    }

    /// Opens the store in `dir`; all content must be there. Returns what had to be done.
    async fn verify(&self, dir: &Path, what: &str) -> Option<Recovery> {
        let (store, recovery) = sled_store(dir).await;
        assert_eq!(content(&store), self.content, "{what}: {recovery:?}");
        assert!(store.revision() >= self.revision);
        // And it goes on.
        let committed = store.commit(put("b/after", "n1")).await.unwrap();
        assert!(committed.revision() > self.revision);
        store.close().await;
        if let Some(Recovery {
            set_aside: Some(set_aside),
            ..
        }) = &recovery
        {
            assert!(set_aside.exists());
        }
        let (store, again) = sled_store(dir).await;
        assert_eq!(
            (again, names(&store.snapshot(&pods())).len()),
            (None, self.content.len() + 1)
        );
        store.close().await;
        recovery
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy_dir(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

/// Leaves nothing of a file intact.
fn ruin(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x55);
    fs::write(file, bytes).unwrap();
}

/// What can happen to a database file; `at` is somewhere in it.
fn damage(file: &Path, kind: usize, at: usize) -> String {
    let mut bytes = fs::read(file).unwrap();
    let what = match kind {
        0 => {
            bytes[at] ^= 0x04;
            format!("bit flipped at {at}")
        }
        1 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        2 => {
            let end = bytes.len().min(at + 4096);
            bytes[at..end].fill(0);
            format!("zeroes at {at}")
        }
        _ => {
            let end = bytes.len().min(at + 512);
            bytes[at..end]
                .iter_mut()
                .enumerate()
                .for_each(|(i, byte)| *byte = (i * 151) as u8);
            format!("rubbish at {at}")
        }
    };
    fs::write(file, bytes).unwrap();
    what
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_restored_from_the_tail() {
    let written = written(400, u64::MAX).await;
    let size = fs::metadata(written.path("db/db")).unwrap().len() as usize;
    let mut restored = 0;
    // Fewer might all fall on parts of the file that are not in use.
    for round in 0..rounds(24).max(24) {
        let copy = written.copy();
        let at = (round * 7_919_011 + 17) % size;
        let what = damage(&copy.path().join("db/db"), round % 4, at);
        let recovery = written.verify(copy.path(), &what).await;
        restored += usize::from(recovery.is_some_and(|recovery| recovery.set_aside.is_some()));
    }
    assert!(restored > 0, "no damage was noticed at all");
}

#[tokio::test]
async fn a_database_is_restored_from_export_and_tail_and_says_what_was_done() {
    let written = written(2000, 100 << 10).await;
    let copy = written.copy();
    ruin(&copy.path().join("db/db"));
    let recovery = written
        .verify(copy.path(), "rubbish")
        .await
        .expect("a recovery");
    let (export, at) = recovery.export.clone().expect("an export");
    assert!(
        export.starts_with(copy.path()) && at > Revision(100),
        "{recovery}"
    );
    assert_eq!(recovery.reached, written.revision);
    assert!(recovery.resumed_at > written.revision);
    let told = recovery.to_string();
    assert!(
        told.contains("damaged-1") && told.contains("export-"),
        "{told}"
    );
}

#[tokio::test]
async fn what_a_database_has_lost_without_noticing_is_taken_from_the_tail() {
    let written = written(300, u64::MAX).await;
    let later = written.copy();
    let (store, _) = sled_store(later.path()).await;
    for i in 0..100 {
        store.commit(put(&format!("a/{i}"), "n1")).await.unwrap();
    }
    let (expected, revision) = (content(&store), store.revision());
    store.close().await;
    fs::remove_dir_all(later.path().join("db")).unwrap();
    copy_dir(&written.path("db"), &later.path().join("db"));

    let (store, recovery) = sled_store(later.path()).await;
    assert!(content(&store) == expected);
    let recovery = recovery.expect("a recovery");
    assert_eq!((recovery.set_aside, recovery.reached), (None, revision));
    assert!(store.revision() > revision && store.oldest() == store.revision());
    store.commit(put("b/x", "n1")).await.unwrap();
    store.close().await;
    let (store, recovery) = sled_store(later.path()).await;
    assert_eq!(
        (recovery, names(&store.snapshot(&pods())).len()),
        (None, expected.len() + 1)
    );
    store.close().await;
}

#[tokio::test]
async fn a_missing_database_is_restored() {
    let written = written(300, 100 << 10).await;
    for what in ["db", "db/db"] {
        let copy = written.copy();
        let path = copy.path().join(what);
        if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .unwrap();
        let recovery = written.verify(copy.path(), what).await;
        assert!(recovery.is_some(), "{what}");
    }
}

#[tokio::test]
async fn a_half_written_snapshot_is_removed_and_a_half_rebuilt_database_too() {
    let written = written(100, u64::MAX).await;
    let copy = written.copy();
    fs::write(copy.path().join("db/snap.0000.generating"), "half").unwrap();
    fs::create_dir(copy.path().join("db.rebuilt")).unwrap();
    assert_eq!(written.verify(copy.path(), "half a snapshot").await, None);
    assert!(!copy.path().join("db/snap.0000.generating").exists());
}

#[tokio::test]
async fn a_damaged_export_gives_way_to_the_one_before() {
    let written = written(3000, 100 << 10).await;
    let copy = written.copy();
    let mut exports: Vec<PathBuf> = fs::read_dir(copy.path().join("export"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    exports.sort();
    assert_eq!(exports.len(), 2, "{exports:?}");
    damage(&exports[1], 0, 100);
    ruin(&copy.path().join("db/db"));
    let recovery = written
        .verify(copy.path(), "two damages")
        .await
        .expect("a recovery");
    assert_eq!(recovery.export.unwrap().0, exports[0]);
}

#[tokio::test]
async fn what_cannot_be_restored_is_left_alone() {
    let written = written(1000, 100 << 10).await;
    let copy = written.copy();
    for file in fs::read_dir(copy.path().join("export")).unwrap() {
        damage(&file.unwrap().path(), 0, 100);
    }
    ruin(&copy.path().join("db/db"));
    let error = open_with(SledConfig::new(copy.path()), Limits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Lost { .. }), "{error}");
    assert!(copy.path().join("db/db").exists() && !copy.path().join("damaged-1").exists());
}

#[tokio::test]
async fn a_tail_that_is_damaged_hurts_nobody_whose_database_is_sound() {
    let written = written(300, u64::MAX).await;
    let copy = written.copy();
    for file in fs::read_dir(copy.path().join("tail")).unwrap() {
        damage(&file.unwrap().path(), 1, 1000);
    }
    assert_eq!(written.verify(copy.path(), "tail").await, None);
    // An export has taken the place of what the tail no longer proves.
    ruin(&copy.path().join("db/db"));
    let (store, recovery) = sled_store(copy.path()).await;
    let recovery = recovery.expect("a recovery");
    assert!(recovery.export.is_some(), "{recovery}");
    assert_eq!(
        names(&store.snapshot(&pods())).len(),
        written.content.len() + 1
    );
    store.close().await;
}
