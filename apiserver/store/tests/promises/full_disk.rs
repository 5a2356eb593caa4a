//! A full disk: writes are refused in words, nothing acknowledged is lost, and reads go on.

use std::fs;

use crate::common::*;
use crate::mounts::Mount;
use peapod_store::{CommitError, Compare, Draft, Limits, SledConfig, Txn};

/// Commits values of 64 KiB until one is refused; returns how many were taken, and the refusal.
async fn fill(store: &TestStore, start: usize) -> (usize, String) {
    for i in start..10_000 {
        let draft = Draft::plain(vec![b'x'; 64 << 10]);
        let key = pod(&format!("a/{i:05}"));
        match store
            .commit(Txn::new().put(key, Compare::Absent, draft))
            .await
        {
            Ok(_) => {}
            Err(CommitError::Unavailable(why)) => return (i, why),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk never filled up");
}

#[tokio::test]
async fn before_the_disk_is_full_writes_are_refused_and_go_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::memory(&dir.path().join("disk"), 64);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    let config = SledConfig {
        reserve_bytes: 8 << 20,
        ..SledConfig::new(disk.path().join("s"))
    };
    let (store, _) = open_with(config.clone(), Limits::default()).await.unwrap();
    let (taken, why) = fill(&store, 0).await;
    assert!(why.contains("free some space"), "{why}");
    assert_eq!(store.snapshot(&pods()).len(), taken);
    fs::remove_file(&ballast).unwrap();
    let (more, _) = fill(&store, taken).await;
    assert!(more > taken);
    store.close().await;
    let (store, recovery) = open_with(config, Limits::default()).await.unwrap();
    assert_eq!((recovery, store.snapshot(&pods()).len()), (None, more));
    store.close().await;
}

#[tokio::test]
async fn a_write_that_fails_for_want_of_room_is_not_acknowledged_and_stops_the_writing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Mount::memory(&dir.path().join("disk"), 48);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 20 << 20]).unwrap();
    let config = SledConfig {
        reserve_bytes: 0,
        ..SledConfig::new(disk.path().join("s"))
    };
    let (store, _) = open_with(config.clone(), Limits::default()).await.unwrap();
    let (taken, why) = fill(&store, 0).await;
    assert!(why.contains("restart"), "{why}");
    fs::remove_file(&ballast).unwrap();
    let again = store.commit(put("b/x", "n1")).await;
    assert!(
        matches!(again, Err(CommitError::Unavailable(_))),
        "{again:?}"
    );
    assert_eq!(
        store.snapshot(&pods()).len(),
        taken,
        "memory is not ahead of the disk"
    );
    store.close().await;
    let (store, _) = open_with(config, Limits::default()).await.unwrap();
    let there = store.snapshot(&pods()).len();
    assert!(
        there == taken || there == taken + 1,
        "{there} of {taken} are there"
    );
    store.commit(put("b/x", "n1")).await.unwrap();
    store.close().await;
}
