//! What the embedded engine keeps over a restart, and what it refuses.

use std::fs;
use std::path::Path;

use crate::common::*;
use peapod_store::{
    CommitError, Compare, Draft, Key, Limits, MAX_VALUE_BYTES, OpenError, Resource, Revision,
    SledConfig, SledEngine, Txn, export,
};

fn blobs(dir: &Path) -> usize {
    fs::read_dir(dir.join("db/blobs")).map_or(0, |files| files.count())
}

#[tokio::test]
async fn content_revisions_and_history_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovery) = sled_store(dir.path()).await;
    assert_eq!(recovery, None);
    for txn in [
        put("a/x", "n1"),
        put("a/y", "n1"),
        delete("a/x"),
        put("a/y", "n2"),
    ] {
        store.commit(txn).await.unwrap();
    }
    store.close().await;
    assert!(matches!(
        store.commit(put("a/z", "n1")).await,
        Err(CommitError::Closed)
    ));

    let (store, recovery) = sled_store(dir.path()).await;
    assert_eq!(recovery, None);
    assert_eq!(
        content(&store),
        [("/core/pods/a/y".to_owned(), "on=n2 rv=4".to_owned())]
    );
    assert_eq!(store.get(&pod("a/y")).unwrap().created, Revision(2));
    assert_eq!(
        names(&store.at(&pods(), Revision(2)).unwrap()),
        ["a/x", "a/y"]
    );
    let mut watch = store.watch(all_pods(), Revision(1)).unwrap();
    store.commit(put("a/z", "n1")).await.unwrap();
    let seen = events(&mut watch, 4).await;
    let expected = [
        "+a/y@2 on=n1 rv=2",
        "-a/x@3 on=n1 rv=3",
        "~a/y@4 on=n2 rv=4",
        "+a/z@5 on=n1 rv=5",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_was_compacted_is_gone_after_a_restart_and_the_rest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = sled_store(dir.path()).await;
    for i in 0..500 {
        store
            .commit(put(&format!("a/{}", i % 7), "n1"))
            .await
            .unwrap();
        if i % 3 == 0 {
            store.commit(delete(&format!("a/{}", i % 7))).await.unwrap();
        }
        store.compact(Revision(i));
    }
    let (newest, before) = (store.revision(), content(&store));
    store.close().await;
    let (store, recovery) = sled_store(dir.path()).await;
    assert_eq!((recovery, store.revision()), (None, newest));
    assert_eq!(content(&store), before);
    assert!(store.oldest() >= Revision(498), "{}", store.oldest());
    store.close().await;
}

#[tokio::test]
async fn values_of_every_size_are_kept_in_small_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = sled_store(dir.path()).await;
    let sizes = [
        0,
        1,
        2_000,
        5_000,
        5_100,
        5_200,
        20_000,
        100_000,
        1_000_000,
        MAX_VALUE_BYTES,
    ];
    for round in 0..4u8 {
        for size in sizes {
            let value = vec![b'a' + round; size];
            let txn = Txn::new().put(pod(&format!("a/{size}")), Compare::Any, Draft::plain(value));
            store.commit(txn).await.unwrap();
        }
    }
    store.close().await;
    assert_eq!(blobs(dir.path()), 0, "sled never syncs its blob files");
    let (store, _) = sled_store(dir.path()).await;
    for size in sizes {
        let entry = store.get(&pod(&format!("a/{size}"))).unwrap();
        assert_eq!(entry.value, vec![b'd'; size]);
    }
    let large = Draft::plain(vec![0; MAX_VALUE_BYTES + 1]);
    let refused = store
        .commit(Txn::new().put(pod("a/l"), Compare::Any, large))
        .await;
    assert!(matches!(refused, Err(CommitError::Bad(_))));
    store.close().await;
}

#[tokio::test]
async fn a_claim_is_given_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let claim = || {
        let key = Key::new("/claims/nodeport/30080").unwrap();
        Txn::new().put(key, Compare::Absent, Draft::plain("web"))
    };
    let (store, _) = sled_store(dir.path()).await;
    store.commit(claim()).await.unwrap();
    store.close().await;
    let (store, _) = sled_store(dir.path()).await;
    assert!(matches!(
        store.commit(claim()).await,
        Err(CommitError::Conflict { .. })
    ));
    store.close().await;
}

#[tokio::test]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = sled_store(dir.path()).await;
    let again = SledEngine::open(SledConfig::new(dir.path()));
    assert!(matches!(again, Err(OpenError::InUse(_))));
    store.close().await;
    sled_store(dir.path()).await.0.close().await;
}

#[tokio::test]
async fn a_disk_without_room_refuses_writes_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = sled_store(dir.path()).await;
    store.commit(put("a/x", "n1")).await.unwrap();
    store.close().await;
    let config = SledConfig {
        reserve_bytes: u64::MAX / 2,
        ..SledConfig::new(dir.path())
    };
    let (store, _) = open_with(config, Limits::default()).await.unwrap();
    let Err(CommitError::Unavailable(why)) = store.commit(put("a/y", "n1")).await else {
        panic!("the write was taken")
    };
    assert!(
        why.contains("is full") && why.contains("free some space"),
        "{why}"
    );
    assert_eq!(names(&store.snapshot(&pods())), ["a/x"]);
    store.close().await;
}

#[tokio::test]
async fn exports_are_made_as_changes_gather_and_the_tail_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let config = SledConfig {
        export_after_bytes: 200 << 10,
        ..SledConfig::new(dir.path())
    };
    let (store, _) = open_with(config, Limits::default()).await.unwrap();
    let value = "x".repeat(10_000);
    let mut exports = Vec::new();
    while exports.len() < 2 || exports[0] < Revision(40) {
        let txn = Txn::new().put(pod("a/x"), Compare::Any, Draft::plain(value.clone()));
        store.commit(txn).await.unwrap();
        exports = fs::read_dir(dir.path().join("export"))
            .unwrap()
            .filter_map(|file| export::read(&file.unwrap().path()).ok())
            .map(|export| export.revision)
            .collect();
        exports.sort();
        assert!(exports.len() <= 3);
    }
    let kept = dir.path().join("kept");
    let revision = store.export(kept.clone()).await.unwrap();
    let export = export::read(&kept).unwrap();
    assert_eq!((export.revision, export.entries.len()), (revision, 1));
    assert_eq!(Resource::of(&export.entries[0].key), pods());
    store.close().await;
}
