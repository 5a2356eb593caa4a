//! Images from a real registry, and bad ones from anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::registry::{BreakingProxy, PASSWORD, Registry, USER, free_address};
use crate::support::{BUSYBOX, Node};
use parking_lot::Mutex;
use peapod_nodelet::runtime::{
    Credential, Error, ImageError, Progress, ProgressEvent, PullRequest, Quiet, Runtime,
};

/// Remembers what it hears.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<ProgressEvent>>>);

impl Progress for Heard {
    fn update(&self, event: ProgressEvent) {
        self.0.lock().push(event);
    }
}

fn request(reference: &str) -> PullRequest {
    PullRequest {
        reference: reference.into(),
        credentials: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_run_listed_and_removed() {
    let mut node = Node::bare().await;
    let registry = Registry::open().await;
    let digest = registry
        .push(&node.assemble(BUSYBOX), "library/busybox", "1")
        .await;
    let name = format!("{}/library/busybox:1", registry.host);
    let heard = Heard::default();
    let images = node.runtime().images();
    let image = images.pull(&request(&name), &heard).await.unwrap();
    let by_digest = format!("{}/library/busybox@{digest}", registry.host);
    assert_eq!(image.references, [name.clone(), by_digest.clone()]);
    let steps = heard.0.lock().clone();
    assert!(
        matches!(
            steps.first(),
            Some(ProgressEvent::Resolved { layers: 1, .. })
        ),
        "{steps:?}"
    );
    assert!(
        matches!(steps.last(), Some(ProgressEvent::Unpacked { .. })),
        "{steps:?}"
    );

    node.pod("web").await;
    let mut spec = node.container("web", "app", "echo pulled");
    spec.image = by_digest.clone();
    let (exit, log) = node.run_to_end(&spec).await;
    assert_eq!((exit.code, log.as_str()), (0, "pulled\n"));

    assert!(
        images.prune(&[]).await.unwrap().is_empty(),
        "a container uses it"
    );
    node.runtime().remove_sandbox("web").await.unwrap();
    assert!(images.usage().await.unwrap().bytes > image.size_bytes);
    assert_eq!(images.prune(&[]).await.unwrap().len(), 1);
    assert_eq!(images.list().await.unwrap(), []);
    let again = images.pull(&request(&by_digest), &Quiet).await.unwrap();
    assert_eq!((again.id, again.references), (image.id, vec![by_digest]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_needed_where_the_registry_wants_one() {
    let node = Node::bare().await;
    let registry = Registry::with_login().await;
    registry
        .push(&node.assemble(BUSYBOX), "private/app", "v1")
        .await;
    let name = format!("{}/private/app:v1", registry.host);
    let login = |password: &str| Credential::Basic {
        username: USER.into(),
        password: password.into(),
    };
    let images = node.runtime().images();
    for credentials in [vec![], vec![login("wrong")]] {
        let request = PullRequest {
            reference: name.clone(),
            credentials,
        };
        let error = images.pull(&request, &Quiet).await.unwrap_err();
        assert!(
            matches!(error, Error::Image(ImageError::Unauthorized { .. })),
            "{error:?}"
        );
    }
    let credentials = vec![login("wrong"), login(PASSWORD)];
    images
        .pull(
            &PullRequest {
                reference: name,
                credentials,
            },
            &Quiet,
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_the_same_image_share_one_pull() {
    let node = Node::bare().await;
    let registry = Registry::open().await;
    registry.push(&node.assemble(BUSYBOX), "app", "v1").await;
    let name = format!("{}/app:v1", registry.host);
    let images = node.runtime().images();
    let pulls = (0..8).map(|_| {
        let (images, request) = (Arc::clone(&images), request(&name));
        async move { images.pull(&request, &Quiet).await.unwrap().id }
    });
    let ids = futures::future::join_all(pulls).await;
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_registry_does_not_have_is_named() {
    let mut node = Node::bare().await;
    let registry = Registry::open().await;
    registry.push(&node.assemble(BUSYBOX), "app", "v1").await;
    let images = node.runtime().images();
    let error = images
        .pull(&request(&format!("{}/app:v2", registry.host)), &Quiet)
        .await;
    assert!(
        matches!(error, Err(Error::Image(ImageError::NotFound { .. }))),
        "{error:?}"
    );
    let nobody = format!("{}/app:v1", free_address());
    let error = images.pull(&request(&nobody), &Quiet).await.unwrap_err();
    assert!(
        matches!(error, Error::Image(ImageError::Unavailable { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("refused"), "{error}");
    let error = images.pull(&request("No/Such:Ref erence"), &Quiet).await;
    assert!(
        matches!(
            error,
            Err(Error::Image(ImageError::InvalidReference { .. }))
        ),
        "{error:?}"
    );

    // A mirror that does not answer is passed over.
    let mirrors = vec![free_address(), registry.host.clone()];
    node.config.registries.mirrors = BTreeMap::from([("example.com".to_owned(), mirrors)]);
    node.restart_agent().await;
    node.runtime()
        .images()
        .pull(&request("example.com/app:v1"), &Quiet)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_archives_are_refused_and_leave_nothing() {
    let node = Node::bare().await;
    let good = std::fs::read(node.assemble(BUSYBOX)).unwrap();
    let images = node.runtime().images();
    let path = node.dir.path().join("bad.tar");
    let at = |needle: &[u8]| {
        let found = good
            .windows(needle.len())
            .position(|window| window == needle);
        found.expect("the needle is in the archive")
    };
    let mut flipped = good.clone();
    flipped[at(b"root:x:0:0:root")] ^= 1;
    let mut outside = good.clone();
    outside[at(b"oci-layout")..][..10].copy_from_slice(b"../../../x");
    for (name, bytes, says) in [
        ("empty", &b""[..], "neither an index.json"),
        (
            "text",
            b"this is no archive, whatever its name says",
            "no tar archive",
        ),
        ("truncated", &good[..good.len() / 2], "truncated"),
        ("compressed", b"\x1f\x8b\x08\x00rest", "gzip -d"),
        ("flipped", &flipped, "digest"),
        ("outside", &outside, ""),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = images.load(&path, &Quiet).await.unwrap_err();
        assert!(
            matches!(error, Error::Image(ImageError::Corrupt { .. })),
            "{name}: {error:?}"
        );
        assert!(error.to_string().contains(says), "{name}: {error}");
        assert_eq!(images.list().await.unwrap(), [], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_continues_where_the_connection_broke() {
    let node = Node::bare().await;
    let registry = Registry::open().await;
    registry.push(&node.assemble(BUSYBOX), "app", "v1").await;
    let proxy = BreakingProxy::start(&registry.host, 3, 400_000).await;
    let heard = Heard::default();
    let image = format!("{}/app:v1", proxy.host);
    node.runtime()
        .images()
        .pull(&request(&image), &heard)
        .await
        .unwrap();
    assert_eq!(
        proxy.broken(),
        3,
        "the connection was broken as often as was planned"
    );
    let mut layers: BTreeMap<String, u64> = BTreeMap::new();
    for event in heard.0.lock().iter() {
        if let ProgressEvent::Fetching {
            layer, done_bytes, ..
        } = event
        {
            let before = layers.insert(layer.clone(), *done_bytes).unwrap_or(0);
            assert!(before < *done_bytes, "no byte is fetched twice");
        }
    }
}
