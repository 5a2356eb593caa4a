//! Several stores over one etcd are one store.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::*;
use crate::etcd::{Etcd, LIMIT};
use peapod_store::{
    CommitError, Compare, Draft, EtcdEngine, EtcdError, Key, Resource, Revision, Txn, Watch,
    WatchError,
};

/// The next `count` events, each with its revision.
async fn read(watch: &mut Watch<Meta>, count: usize) -> Vec<String> {
    tokio::time::timeout(LIMIT, events(watch, count))
        .await
        .expect("events in time")
}

#[tokio::test]
async fn what_one_server_wrote_the_other_reads_and_watches_in_the_same_order() {
    let etcd = Etcd::start(1);
    let (one, other) = (etcd.store().await, etcd.store().await);
    let begin = one.fence().await.unwrap();
    let mut watches = [&one, &other].map(|store| store.watch(all_pods(), begin).unwrap());
    let writes = (0..100).map(|n| {
        let store = [&one, &other][n % 2].clone();
        async move {
            let committed = store
                .commit(put(&format!("a/{}", n % 7), "n1"))
                .await
                .unwrap();
            let value = committed.value(&pod(&format!("a/{}", n % 7))).unwrap();
            assert_eq!(value, &format!("on=n1 rv={}", committed.revision()));
            committed.revision()
        }
    });
    let mut revisions = futures::future::join_all(writes).await;
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 100);
    let [first, second] = &mut watches;
    let seen = read(first, 100).await;
    assert_eq!(seen, read(second, 100).await);
    for (event, revision) in seen.iter().zip(&revisions) {
        assert!(event.contains(&format!("@{revision} ")), "{event}");
    }
    // A consistent read sees what the other was acknowledged.
    for n in 0..20 {
        let path = format!("b/{n}");
        let written = one.commit(put(&path, "n2")).await.unwrap().revision();
        assert!(other.fence().await.unwrap() >= written);
        assert_eq!(other.get(&pod(&path)).unwrap().modified, written);
    }
    assert_eq!(content(&one), content(&other));
}

#[tokio::test]
async fn transactions_are_decided_by_all_their_comparisons_or_not_carried_out() {
    let etcd = Etcd::start(1);
    let (one, other) = (etcd.store().await, etcd.store().await);
    let claim = Key::new("/claims/clusterip/10.96.0.7").unwrap();
    let with_claim =
        |path| put(path, "n1").put(claim.clone(), Compare::Absent, Draft::plain("a service"));
    // Two servers give the same address at once: one is told that it is taken.
    let (a, b) = tokio::join!(
        one.commit(with_claim("a/x")),
        other.commit(with_claim("a/y"))
    );
    assert!(a.is_ok() != b.is_ok());
    let Err(CommitError::Conflict { key, present }) = a.and(b) else {
        panic!("no conflict")
    };
    assert_eq!(key, claim);
    assert_eq!(present.unwrap().value, "a service");
    one.fence().await.unwrap();
    assert_eq!(names(&one.snapshot(&pods())).len(), 1);
    assert_eq!(one.snapshot(&Resource::of(&claim)).len(), 1);

    let made = one.commit(put("b/x", "n1")).await.unwrap().revision();
    let update = |at| Txn::new().put(pod("b/x"), Compare::At(at), on("n2"));
    let updated = other.commit(update(made)).await.unwrap().revision();
    let Err(CommitError::Conflict { present, .. }) = one.commit(update(made)).await else {
        panic!("an old revision was taken")
    };
    let present = present.unwrap();
    assert_eq!((present.created, present.modified), (made, updated));
    assert!(one.commit(delete("b/none")).await.is_err());
    let checks = Txn::new()
        .check(pod("b/x"), Compare::Present)
        .check(pod("b/none"), Compare::Absent);
    assert_eq!(one.commit(checks).await.unwrap().revision(), updated);
    let gone = other.commit(delete("b/x")).await.unwrap();
    assert!(gone.revision() > updated && other.get(&pod("b/x")).is_none());
    one.fence().await.unwrap();
    assert!(one.get(&pod("b/x")).is_none());
    assert_eq!(names(&one.at(&pods(), updated).unwrap()).len(), 2);
    let nothing = Txn::new().delete(pod("b/none"), Compare::Any);
    let mut watch = one.watch(all_pods(), gone.revision()).unwrap();
    other.commit(nothing).await.unwrap();
    one.commit(put("b/z", "n1")).await.unwrap();
    assert!(read(&mut watch, 1).await[0].starts_with("+b/z@"));
}

#[tokio::test]
async fn a_server_that_starts_later_knows_the_past_so_far_as_it_is_kept() {
    let etcd = Etcd::start(1);
    let config = peapod_store::EtcdConfig {
        compact_every: Duration::from_millis(10),
        ..etcd.config()
    };
    let one = etcd.store_with(config.clone()).await;
    let begin = one.fence().await.unwrap();
    // More than a page.
    for n in 0..600 {
        one.commit(put(&format!("a/{n:03}"), "n1")).await.unwrap();
    }
    let later = etcd.store_with(config.clone()).await;
    assert_eq!(content(&one), content(&later));
    let [mut here, mut there] = [&one, &later].map(|store| store.watch(all_pods(), begin).unwrap());
    assert_eq!(read(&mut here, 600).await, read(&mut there, 600).await);

    // Given up twice: the first floor is then compacted in etcd.
    let middle = Revision(begin.0 + 300);
    let mut client = Client::connect(&config.endpoints, None).await.unwrap();
    for floor in [middle, Revision(middle.0 + 100)] {
        one.compact(floor);
        wait(async || {
            let kept = client
                .get("/registry/peapod/compacted", None)
                .await
                .unwrap();
            kept.kvs()
                .first()
                .is_some_and(|kv| kv.value() == floor.to_string().as_bytes())
        })
        .await;
    }
    wait(async || {
        let at = etcd_client::GetOptions::new().with_revision(begin.0 as i64 + 1);
        client.get("/registry/peapod/head", Some(at)).await.is_err()
    })
    .await;
    let last = etcd.store_with(config).await;
    assert_eq!(content(&one), content(&last));
    assert_eq!(last.oldest(), Revision(middle.0 + 100));
    let old = last.watch(all_pods(), begin).unwrap_err();
    assert!(matches!(old, WatchError::Compacted(_)), "{old}");
    let mut watch = last.watch(all_pods(), last.oldest()).unwrap();
    assert_eq!(read(&mut watch, 200).await.len(), 200);
}

/// Waits for a condition.
async fn wait(mut met: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("in time");
}

#[tokio::test]
async fn a_member_is_killed_under_load_and_nothing_acknowledged_is_lost() {
    let mut etcd = Etcd::start(3);
    let stores = [etcd.store().await, etcd.store().await];
    let begin = stores[0].fence().await.unwrap();
    let mut watches = stores
        .each_ref()
        .map(|store| store.watch(all_pods(), begin).unwrap());
    let clients = (0..8).map(|client| {
        let store = stores[client % 2].clone();
        tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            let mut unknown = 0;
            for n in 0..150 {
                let path = format!("a/{client}-{n}");
                let create = Txn::new().put(pod(&path), Compare::Absent, on("n1"));
                match store.commit(create).await {
                    Ok(committed) => {
                        acknowledged.insert(path, committed.revision());
                    }
                    Err(CommitError::Unknown(_) | CommitError::Unavailable(_)) => unknown += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (acknowledged, unknown)
        })
    });
    let clients: Vec<_> = clients.collect();
    let half_way = async || stores[0].snapshot(&pods()).len() > 200;
    wait(half_way).await;
    // Every store talks to the first.
    etcd.kill(0);
    let mut acknowledged = BTreeMap::new();
    for client in clients {
        let (mine, unknown) = tokio::time::timeout(LIMIT, client).await.unwrap().unwrap();
        // What was under way, and no more: the others take over.
        assert!(unknown <= 5, "{unknown} of 150 writes failed");
        acknowledged.extend(mine);
    }
    for store in &stores {
        store.fence().await.unwrap();
        for (path, revision) in &acknowledged {
            assert_eq!(store.get(&pod(path)).unwrap().modified, *revision, "{path}");
        }
    }
    let all = stores[0].snapshot(&pods()).len();
    let [one, other] = &mut watches;
    let seen = read(one, all).await;
    assert_eq!(seen, read(other, all).await);
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all);
    // Back again, it serves too when another goes.
    etcd.run(0);
    etcd.kill(1);
    let put_one = async || stores[0].commit(put("b/x", "n1")).await.is_ok();
    wait(put_one).await;
}

#[tokio::test]
async fn a_store_that_is_idle_while_others_write_and_compact_goes_on() {
    let mut etcd = Etcd::start(1);
    let idle = etcd.store().await;
    idle.commit(put("a/x", "n1")).await.unwrap();
    let mut client = Client::connect(&etcd.config().endpoints, None)
        .await
        .unwrap();
    for _ in 0..10 {
        client.put("/others", "x", None).await.unwrap();
    }
    let newest = client
        .get("/others", None)
        .await
        .unwrap()
        .header()
        .unwrap()
        .revision();
    client.compact(newest, None).await.unwrap();
    etcd.kill(0);
    etcd.run(0);
    let mut watch = idle.watch(all_pods(), idle.revision()).unwrap();
    wait(async || idle.commit(put("a/y", "n1")).await.is_ok()).await;
    assert!(read(&mut watch, 1).await[0].starts_with("+a/y@"));
    idle.close().await;
    tokio::time::timeout(LIMIT, idle.ended()).await.unwrap();
}

#[tokio::test]
async fn a_write_that_is_not_answered_is_never_acknowledged_and_never_repeated() {
    let etcd = Etcd::start(1);
    let store = etcd.store().await;
    let made = store.commit(put("a/x", "n1")).await.unwrap().revision();
    let process = Pid::from_raw(etcd.pid(0) as i32);
    kill(process, Signal::SIGSTOP).unwrap();
    let outcome = store.commit(put("a/x", "n2")).await;
    kill(process, Signal::SIGCONT).unwrap();
    assert!(
        matches!(outcome, Err(CommitError::Unknown(_))),
        "{outcome:?}"
    );
    // It happened once or not at all.
    wait(async || store.commit(put("a/y", "n1")).await.is_ok()).await;
    store.fence().await.unwrap();
    let mut watch = store
        .watch(all_pods().namespace("a").name("x"), made)
        .unwrap();
    let present = store.get(&pod("a/x")).unwrap();
    if present.modified > made {
        assert_eq!(read(&mut watch, 1).await.len(), 1);
    }
    assert!(futures::poll!(std::pin::pin!(watch.next())).is_pending());
}

#[tokio::test]
async fn a_store_of_a_newer_release_is_refused() {
    let etcd = Etcd::start(1);
    etcd.store().await.close().await;
    let mut client = Client::connect(&etcd.config().endpoints, None)
        .await
        .unwrap();
    client
        .put("/registry/peapod/version", "3", None)
        .await
        .unwrap();
    let refused = EtcdEngine::open(etcd.config()).await.unwrap_err();
    assert!(matches!(refused, EtcdError::Newer { .. }));
    assert!(refused.to_string().contains("has version 3"), "{refused}");
}

/// A way to a member of etcd that can be cut.
struct Way {
    url: String,
    open: tokio::sync::watch::Sender<bool>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Way {
    async fn to(url: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let member = url.strip_prefix("http://").unwrap().to_owned();
        let (open, is_open) = tokio::sync::watch::channel(true);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (mut is_open, member) = (is_open.clone(), member.clone());
                connections.spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(&member).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self {
            url: own,
            open,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }
}

#[tokio::test]
async fn a_store_that_etcd_was_compacted_beyond_reads_everything_anew() {
    let etcd = Etcd::start(1);
    let one = etcd.store().await;
    let direct = etcd.config();
    let way = Way::to(&direct.endpoints[0]).await;
    let mut config = direct.clone();
    config.endpoints = vec![way.url.clone()];
    let cut_off = etcd.store_with(config).await;
    for n in 0..20 {
        one.commit(put(&format!("a/{n}"), "n1")).await.unwrap();
    }
    let known = cut_off.fence().await.unwrap();
    let mut watch = cut_off.watch(all_pods(), known).unwrap();
    let mut unread = cut_off.watch(all_pods(), one.oldest()).unwrap();

    way.open.send_replace(false);
    for n in 10..40 {
        one.commit(put(&format!("a/{n}"), "n2")).await.unwrap();
    }
    one.commit(delete("a/3")).await.unwrap();
    let newest = one.revision();
    let mut client = Client::connect(&direct.endpoints, None).await.unwrap();
    client.compact(newest.0 as i64, None).await.unwrap();
    way.open.send_replace(true);

    wait(async || cut_off.revision() >= newest).await;
    assert_eq!(content(&cut_off), content(&one));
    // Watches of before have missed something, and are told so.
    let ended = tokio::time::timeout(LIMIT, watch.next()).await.unwrap();
    assert!(
        matches!(ended, Err(peapod_store::WatchEnd::Behind(_))),
        "{ended:?}"
    );
    let ended = tokio::time::timeout(LIMIT, unread.next()).await.unwrap();
    assert!(
        matches!(ended, Err(peapod_store::WatchEnd::Behind(_))),
        "{ended:?}"
    );
    let refused = cut_off.watch(all_pods(), known).unwrap_err();
    assert!(matches!(refused, WatchError::Compacted(_)), "{refused}");
    // From here on all is as before.
    let mut watch = cut_off.watch(all_pods(), cut_off.revision()).unwrap();
    one.commit(put("b/x", "n1")).await.unwrap();
    cut_off.commit(put("b/y", "n1")).await.unwrap();
    let seen = read(&mut watch, 2).await;
    assert!(
        seen[0].starts_with("+b/x@") && seen[1].starts_with("+b/y@"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_is_too_large_for_etcd_is_told_from_what_it_has_no_room_for() {
    let etcd = Etcd::start(1);
    let store = etcd.store().await;
    // More than etcd takes, and more than gRPC does.
    for bytes in [1_700_000, 2 << 20] {
        let large = Draft::plain(vec![b'x'; bytes]);
        let txn = Txn::new().put(pod("a/x"), Compare::Any, large);
        let refused = store.commit(txn).await;
        let Err(CommitError::TooLarge(why)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(why, "etcdserver: request is too large");
    }
    store.commit(put("a/x", "n1")).await.unwrap();
}
