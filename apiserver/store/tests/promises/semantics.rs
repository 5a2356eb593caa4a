//! What the store promises its users, over the engine in memory.

use std::time::Duration;

use crate::common::*;
use peapod_store::{
    AtError, CommitError, Compacted, Compare, Draft, Key, Limits, Resource, Revision, Scope, Txn,
    WatchEnd, WatchError,
};

#[tokio::test]
async fn what_is_committed_is_read() {
    let store = memory_store(Limits::default()).await;
    let committed = store.commit(put("a/x", "n1")).await.unwrap();
    assert_eq!(committed.revision(), Revision(1));
    assert_eq!(committed.value(&pod("a/x")).unwrap(), "on=n1 rv=1");
    let entry = store.get(&pod("a/x")).unwrap();
    assert_eq!(
        (&entry.value[..], entry.created),
        (&b"on=n1 rv=1"[..], Revision(1))
    );
    assert_eq!(store.snapshot(&pods()).revision(), Revision(1));
    assert_eq!(store.fence().await.unwrap(), Revision(1));
}

#[tokio::test]
async fn a_conflict_shows_what_is_there() {
    let store = memory_store(Limits::default()).await;
    store.commit(put("a/x", "n1")).await.unwrap();
    let txn = Txn::new().put(pod("a/x"), Compare::At(Revision(7)), on("n2"));
    let Err(CommitError::Conflict { key, present }) = store.commit(txn).await else {
        panic!("no conflict")
    };
    assert_eq!((key, present.unwrap().modified), (pod("a/x"), Revision(1)));
    let txn = Txn::new().put(pod("a/y"), Compare::Present, on("n2"));
    let refused = store.commit(txn).await.unwrap_err().to_string();
    assert!(
        refused.ends_with("it is at no revision: absent"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_transaction_spans_resources_and_is_all_or_nothing() {
    let store = memory_store(Limits::default()).await;
    let claim = Key::new("/claims/clusterip/10.96.0.7").unwrap();
    let claims = Resource::of(&claim);
    let service =
        |path| put(path, "n1").put(claim.clone(), Compare::Absent, Draft::plain("by a service"));
    store.commit(service("a/x")).await.unwrap();
    assert!(store.commit(service("a/y")).await.is_err());
    assert_eq!(names(&store.snapshot(&pods())), ["a/x"]);
    assert_eq!(store.snapshot(&claims).len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_of_one_moment_and_pages() {
    let store = memory_store(Limits::default()).await;
    for path in ["b/x", "a/z", "a-b/q", "a/x", "a/y"] {
        store.commit(put(path, "n1")).await.unwrap();
    }
    let snapshot = store.snapshot(&pods());
    store.commit(delete("a/y")).await.unwrap();
    let page = |scope, after: Option<&str>| {
        let entries = snapshot.range(scope, after.map(pod).as_ref());
        entries
            .map(|entry| entry.key.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&snapshot), ["a-b/q", "a/x", "a/y", "a/z", "b/x"]);
    assert_eq!(page(Scope::Namespace("a"), None), ["x", "y", "z"]);
    assert_eq!(page(Scope::Namespace("a"), Some("a/y")), ["z"]);
    assert_eq!(page(Scope::Namespace("a"), Some("b/x")), [""; 0]);
    assert_eq!(page(Scope::Namespace("a"), Some("a-b/q")), ["x", "y", "z"]);
    assert_eq!(page(Scope::All, Some("a/yy")), ["z", "x"]);
    assert_eq!(
        (
            snapshot.count(Scope::Namespace("a")),
            snapshot.count(Scope::All)
        ),
        (3, 5)
    );
}

#[tokio::test]
async fn an_index_follows_its_entries() {
    let store = memory_store(Limits::default()).await;
    for (path, node) in [
        ("a/x", "n1"),
        ("a/y", "n2"),
        ("b/x", "n1"),
        ("a/y", "n1"),
        ("b/x", "n2"),
    ] {
        store.commit(put(path, node)).await.unwrap();
    }
    let found = |node| {
        let snapshot = store.snapshot(&pods());
        let found = snapshot.select(NODE, node);
        found
            .map(|e| format!("{}/{}", e.key.namespace(), e.key.name()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (found("n1"), found("n2")),
        (vec!["a/x".into(), "a/y".into()], vec!["b/x".into()])
    );
    store.commit(delete("a/x")).await.unwrap();
    assert_eq!((found("n1"), found("n")), (vec!["a/y".into()], vec![]));
}

#[tokio::test]
async fn a_watch_starts_in_the_past_and_goes_on_without_gap_or_duplicate() {
    let store = memory_store(Limits::default()).await;
    for path in ["a/x", "a/y"] {
        store.commit(put(path, "n1")).await.unwrap();
    }
    let mut watch = store.watch(all_pods(), Revision(1)).unwrap();
    assert_eq!(watch.progress(), Revision(1));
    store.commit(put("a/x", "n2")).await.unwrap();
    assert_eq!(
        events(&mut watch, 2).await,
        ["+a/y@2 on=n1 rv=2", "~a/x@3 on=n2 rv=3"]
    );
    store.commit(delete("a/y")).await.unwrap();
    assert_eq!(events(&mut watch, 1).await, ["-a/y@4 on=n1 rv=4"]);
    store
        .commit(Txn::new().put(Key::new("/core/nodes//n1").unwrap(), Compare::Any, on("n1")))
        .await
        .unwrap();
    assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
    assert_eq!(watch.progress(), Revision(5));
}

#[tokio::test]
async fn a_watch_sees_what_it_asked_for() {
    let store = memory_store(Limits::default()).await;
    let start = |interest| store.watch(interest, Revision::ZERO).unwrap();
    let mut in_b = start(all_pods().namespace("b"));
    let mut named = start(all_pods().namespace("a").name("x"));
    let mut anywhere_named = start(all_pods().name("x"));
    let mut on_n1 = start(all_pods().index(NODE, "n1"));
    let mut on_n1_in_b = start(all_pods().namespace("b").index(NODE, "n1"));
    for (path, node) in [("a/x", "n1"), ("b/x", "n2"), ("a/x", "n2"), ("b/y", "n1")] {
        store.commit(put(path, node)).await.unwrap();
    }
    assert_eq!(
        events(&mut in_b, 2).await,
        ["+b/x@2 on=n2 rv=2", "+b/y@4 on=n1 rv=4"]
    );
    assert_eq!(
        events(&mut named, 2).await,
        ["+a/x@1 on=n1 rv=1", "~a/x@3 on=n2 rv=3"]
    );
    assert_eq!(events(&mut anywhere_named, 3).await.len(), 3);
    let moves = [
        "+a/x@1 on=n1 rv=1",
        "~a/x@3 on=n2 rv=3",
        "+b/y@4 on=n1 rv=4",
    ];
    assert_eq!(events(&mut on_n1, 3).await, moves);
    assert_eq!(events(&mut on_n1_in_b, 1).await, ["+b/y@4 on=n1 rv=4"]);
    // Live now, the same again.
    for (path, node) in [("a/x", "n1"), ("b/y", "n2"), ("b/x", "n3")] {
        store.commit(put(path, node)).await.unwrap();
    }
    assert_eq!(
        events(&mut in_b, 2).await,
        ["~b/y@6 on=n2 rv=6", "~b/x@7 on=n3 rv=7"]
    );
    assert_eq!(events(&mut named, 1).await, ["~a/x@5 on=n1 rv=5"]);
    assert_eq!(
        events(&mut on_n1, 2).await,
        ["~a/x@5 on=n1 rv=5", "~b/y@6 on=n2 rv=6"]
    );
    assert_eq!(events(&mut on_n1_in_b, 1).await, ["~b/y@6 on=n2 rv=6"]);
    drop((in_b, named, anywhere_named, on_n1, on_n1_in_b));
    assert_eq!(store.watches(), 0);
}

#[tokio::test]
async fn a_slow_watch_reads_the_history_and_misses_nothing() {
    let store = memory_store(Limits {
        watch_queue: 4,
        ..Limits::default()
    })
    .await;
    let mut watch = store.watch(all_pods(), Revision::ZERO).unwrap();
    assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
    for _ in 0..1000 {
        let both = put("a/x", "n1").put(pod("a/y"), Compare::Any, on("n1"));
        store.commit(both).await.unwrap();
    }
    for revision in 1..=1000 {
        for name in ["x", "y"] {
            let event = watch.next().await.unwrap();
            assert_eq!(
                (event.revision, event.entry.key.name()),
                (Revision(revision), name)
            );
        }
    }
    assert_eq!(watch.progress(), Revision(1000));
}

#[tokio::test]
async fn a_watch_that_lost_its_history_ends_and_says_so() {
    let store = memory_store(Limits {
        watch_queue: 1,
        ..Limits::default()
    })
    .await;
    let mut watch = store.watch(all_pods(), Revision::ZERO).unwrap();
    for _ in 0..5 {
        store.commit(put("a/x", "n1")).await.unwrap();
    }
    assert_eq!(store.compact(Revision(3)), Revision(3));
    let compacted = Compacted {
        asked: Revision(0),
        oldest: Revision(3),
    };
    assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Behind(compacted));
    let again = store.watch(all_pods(), Revision(2)).unwrap_err();
    assert_eq!(
        again,
        WatchError::Compacted(Compacted {
            asked: Revision(2),
            oldest: Revision(3)
        })
    );
    let mut watch = store.watch(all_pods(), Revision(3)).unwrap();
    assert_eq!(
        events(&mut watch, 2).await,
        ["~a/x@4 on=n1 rv=4", "~a/x@5 on=n1 rv=5"]
    );
}

#[tokio::test]
async fn the_past_is_read_as_it_was() {
    let store = memory_store(Limits::default()).await;
    for txn in [
        put("a/x", "n1"),
        put("a/y", "n2"),
        delete("a/x"),
        put("a/x", "n3"),
    ] {
        store.commit(txn).await.unwrap();
    }
    let at = |revision| {
        let snapshot = store.at(&pods(), Revision(revision)).unwrap();
        assert_eq!(snapshot.revision(), Revision(revision));
        let on = snapshot.select(NODE, "n1").count();
        (names(&snapshot).join(" "), on)
    };
    assert_eq!(at(0), (String::new(), 0));
    assert_eq!(at(2), ("a/x a/y".to_owned(), 1));
    assert_eq!(at(3), ("a/y".to_owned(), 0));
    assert_eq!(at(4), ("a/x a/y".to_owned(), 0));
    let future = AtError::Future {
        asked: Revision(5),
        newest: Revision(4),
    };
    assert_eq!(store.at(&pods(), Revision(5)).unwrap_err(), future);
    store.compact(Revision(2));
    assert!(matches!(
        store.at(&pods(), Revision(1)),
        Err(AtError::Compacted(_))
    ));
    assert_eq!(at(2).1, 1);
}

#[tokio::test]
async fn history_is_bounded_by_size_and_by_age() {
    let mut limits = Limits::default();
    limits.history.max_events = 3;
    let store = memory_store(limits.clone()).await;
    for _ in 0..10 {
        store.commit(put("a/x", "n1")).await.unwrap();
    }
    assert_eq!(store.oldest(), Revision(7));
    limits.history.max_age = Duration::ZERO;
    let store = memory_store(limits).await;
    store.commit(put("a/x", "n1")).await.unwrap();
    assert_eq!(store.oldest(), Revision(1));
}

#[tokio::test]
async fn too_many_watches_are_refused_and_the_store_s_end_ends_them() {
    let store = memory_store(Limits {
        watches: 1,
        ..Limits::default()
    })
    .await;
    let mut watch = store.watch(all_pods(), Revision::ZERO).unwrap();
    assert_eq!(
        store.watch(all_pods(), Revision::ZERO).unwrap_err(),
        WatchError::TooMany(1)
    );
    drop(store);
    assert_eq!(watch.next().await.unwrap_err(), WatchEnd::Closed);
}

#[tokio::test]
async fn many_clients_at_once_get_a_revision_each() {
    let store = memory_store(Limits::default()).await;
    let commits = (0..64).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            for _ in 0..50 {
                let txn = put(&format!("a/{client}"), "n1");
                mine.push(store.commit(txn).await.unwrap().revision());
                assert_eq!(
                    store.get(&pod(&format!("a/{client}"))).unwrap().modified,
                    mine[mine.len() - 1]
                );
            }
            mine
        })
    });
    let mut all: Vec<Revision> = futures::future::join_all(commits)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    all.sort();
    assert_eq!(all, (1..=3200).map(Revision).collect::<Vec<_>>());
}
