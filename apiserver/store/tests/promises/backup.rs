//! A backup restored is the store as it was, and revisions go on above it.

use std::path::Path;

use crate::common::*;
use crate::etcd::Etcd;
use peapod_store::export;
use peapod_store::{
    Compare, Draft, EtcdEngine, EtcdError, RestoreError, RestoreEtcdError, Revision, Txn,
    WatchError,
};

const BUMP: u64 = 1_000_000;

/// Content to be backed up: with gaps in the revisions, several writes of one, and large values.
async fn fill(store: &TestStore) {
    for n in 0..300 {
        store.commit(put(&format!("a/{n:03}"), "n1")).await.unwrap();
    }
    for n in (0..300).step_by(3) {
        store.commit(delete(&format!("a/{n:03}"))).await.unwrap();
    }
    let many = (0..20).fold(Txn::new(), |txn, n| {
        txn.put(pod(&format!("b/{n}")), Compare::Absent, on("n2"))
    });
    store.commit(many).await.unwrap();
    let large = Draft::plain(vec![b'x'; 700_000]);
    let txn = Txn::new().put(pod("b/large"), Compare::Any, large);
    store.commit(txn).await.unwrap();
}

fn back_up(store: &TestStore, to: &Path) -> Revision {
    let image = store.image();
    let mut file = std::fs::File::create(to).unwrap();
    image.write_to(&mut file).unwrap();
    image.revision()
}

/// Names and nodes, without revisions.
fn without_revisions(store: &TestStore) -> Vec<(String, String)> {
    let content = content(store).into_iter();
    content
        .map(|(key, value)| (key, value.split(" rv=").next().unwrap().to_owned()))
        .collect()
}

/// The store goes on above everything that was given, and whoever watched has to list again.
async fn goes_on(store: &TestStore, backed_up: Revision) {
    assert!(
        store.revision().0 >= backed_up.0 + BUMP,
        "{}",
        store.revision()
    );
    let refused = store
        .watch(all_pods(), Revision(backed_up.0 + 5))
        .unwrap_err();
    assert!(matches!(refused, WatchError::Compacted(_)), "{refused}");
    let from = store.fence().await.unwrap();
    let mut watch = store.watch(all_pods(), from).unwrap();
    let written = store.commit(put("a/001", "n9")).await.unwrap();
    assert!(written.revision() > from);
    let seen = events(&mut watch, 1).await.remove(0);
    assert!(
        seen.starts_with("~a/001@") && seen.contains("on=n9"),
        "{seen}"
    );
    // A comparison with a revision of before the backup does not hold, and one of now does.
    let old = Txn::new().put(pod("a/001"), Compare::At(backed_up), on("n3"));
    assert!(store.commit(old).await.is_err());
    let now = Txn::new().put(pod("a/001"), Compare::At(written.revision()), on("n3"));
    store.commit(now).await.unwrap();
}

#[tokio::test]
async fn a_backup_of_sled_is_restored_into_an_empty_store_only() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (store, _) = sled_store(&at("one")).await;
    fill(&store).await;
    let revision = back_up(&store, &at("backup"));
    let before = content(&store);
    // What is written afterwards is not in it.
    store.commit(put("a/late", "n1")).await.unwrap();
    let head = export::verify(&at("backup")).unwrap();
    assert_eq!(
        (head.revision, head.entries as usize),
        (revision, before.len())
    );

    let resumed = peapod_store::restore(&at("two"), &at("backup"), BUMP).unwrap();
    let (other, recovery) = sled_store(&at("two")).await;
    assert_eq!((recovery, other.revision()), (None, resumed));
    assert_eq!(content(&other), before);
    goes_on(&other, revision).await;
    let after = content(&other);
    other.close().await;
    drop(other);
    let (again, recovery) = sled_store(&at("two")).await;
    assert_eq!((recovery, content(&again)), (None, after));
    again.close().await;

    store.close().await;
    drop(store);
    for full in ["one", "two"] {
        let refused = peapod_store::restore(&at(full), &at("backup"), BUMP);
        assert!(
            matches!(refused, Err(RestoreError::NotEmpty(_))),
            "{refused:?}"
        );
    }
    // A damaged one leaves nothing behind that a server would open.
    let mut bytes = std::fs::read(at("backup")).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(at("damaged"), bytes).unwrap();
    let refused = peapod_store::restore(&at("three"), &at("damaged"), BUMP);
    assert!(
        matches!(refused, Err(RestoreError::Export(_))),
        "{refused:?}"
    );
    let (empty, recovery) = sled_store(&at("three")).await;
    assert_eq!((recovery, content(&empty).len()), (None, 0));
}

#[tokio::test]
async fn a_backup_moves_between_sled_and_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (store, _) = sled_store(&at("one")).await;
    fill(&store).await;
    let revision = back_up(&store, &at("backup"));

    let etcd = Etcd::start(1);
    // Ready when a store can be opened, of another prefix.
    let mut config = etcd.config();
    config.prefix = "/other".to_owned();
    etcd.store_with(config).await.close().await;
    let resumed = EtcdEngine::restore(etcd.config(), &at("backup"), BUMP)
        .await
        .unwrap();
    let (moved, second) = (etcd.store().await, etcd.store().await);
    assert_eq!(moved.revision(), resumed);
    assert_eq!(without_revisions(&moved), without_revisions(&store));
    goes_on(&moved, revision).await;
    second.fence().await.unwrap();
    assert_eq!(content(&moved), content(&second));
    let refused = EtcdEngine::restore(etcd.config(), &at("backup"), BUMP).await;
    assert!(
        matches!(refused, Err(RestoreEtcdError::NotEmpty(_))),
        "{refused:?}"
    );

    // And back: revisions are those of etcd then.
    let revision = back_up(&moved, &at("again"));
    peapod_store::restore(&at("two"), &at("again"), BUMP).unwrap();
    let (back, _) = sled_store(&at("two")).await;
    assert_eq!(content(&back), content(&moved));
    goes_on(&back, revision).await;
}

#[tokio::test]
async fn a_store_of_an_older_layout_is_migrated_and_half_a_restoration_is_refused() {
    let etcd = Etcd::start(1);
    let store = etcd.store().await;
    store.commit(put("a/x", "n1")).await.unwrap();
    let before = content(&store);
    let config = etcd.config();
    let mut client = etcd_client::Client::connect(&config.endpoints, None)
        .await
        .unwrap();
    client
        .put("/registry/peapod/version", "1", None)
        .await
        .unwrap();
    client
        .delete("/registry/peapod/offset", None)
        .await
        .unwrap();
    // Two at once: each step is taken once.
    let (one, other) = tokio::join!(etcd.store(), etcd.store());
    assert_eq!((content(&one), content(&other)), (before.clone(), before));
    for (name, value) in [("version", "2"), ("offset", "0")] {
        let found = client
            .get(format!("/registry/peapod/{name}"), None)
            .await
            .unwrap();
        assert_eq!(found.kvs()[0].value(), value.as_bytes(), "{name}");
    }
    client
        .put("/registry/peapod/version", "restoring", None)
        .await
        .unwrap();
    let refused = EtcdEngine::open(config).await.unwrap_err();
    assert!(matches!(refused, EtcdError::Unfinished { .. }), "{refused}");
}
