//! Several API servers over one etcd are one API.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ResourceQuota, Secret, Service};
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use peapod_apiserver::{ApiServer, Config, Engine, EtcdConfig};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

/// An etcd of this test's own.
struct Etcd {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn etcd() -> Etcd {
    let dir = tempfile::tempdir().unwrap();
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [url, peer] = ports.map(|port| format!("http://{}", port.local_addr().unwrap()));
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path())
        .args([
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (scripts/install-needs test)");
    Etcd {
        process,
        url,
        _dir: dir,
    }
}

/// A server over the etcd in a directory of its own, with the keys of all.
async fn server(etcd: &Etcd, dir: &Path, name: &str) -> (ApiServer, kube::Client) {
    let config = Config {
        engine: Engine::Etcd(EtcdConfig::new([&etcd.url])),
        shared_pki: Some(dir.join("pki")),
        ..Config::new(dir.join(name))
    };
    let began = std::time::Instant::now();
    let server = loop {
        match ApiServer::start(config.clone()).await {
            Ok(server) => break server,
            Err(fault) if began.elapsed() < LIMIT => {
                // Its first start takes as long as it takes.
                assert!(fault.to_string().contains("cannot reach etcd"), "{fault}");
            }
            Err(fault) => panic!("{fault}"),
        }
    };
    let client = server.client("tester", &["system:masters"]);
    (server, client)
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

/// The names that a watch tells of from a revision on, in order.
async fn watched(api: &Api<ConfigMap>, from: &str, count: usize) -> Vec<String> {
    let params = WatchParams::default().timeout(60);
    let mut events = Box::pin(api.watch(&params, from).await.unwrap());
    let mut names = Vec::new();
    while names.len() < count {
        let event = tokio::time::timeout(LIMIT, events.try_next()).await;
        match event.unwrap().unwrap().expect("an event") {
            WatchEvent::Added(object) => names.push(object.metadata.name.unwrap()),
            WatchEvent::Bookmark(_) => {}
            other => panic!("{other:?}"),
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_objects_watches_and_claims() {
    let etcd = etcd();
    let dir = tempfile::tempdir().unwrap();
    // Both find nothing, and make the cluster at once.
    let ((one, first), (other, second)) = tokio::join!(
        server(&etcd, dir.path(), "one"),
        server(&etcd, dir.path(), "other")
    );
    let namespaces: Api<Namespace> = Api::all(second.clone());
    assert_eq!(
        namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );

    let here: Api<ConfigMap> = Api::namespaced(first.clone(), "default");
    let there: Api<ConfigMap> = Api::namespaced(second.clone(), "default");
    let begin = here.list(&ListParams::default()).await.unwrap();
    let begin = begin.metadata.resource_version.unwrap();
    let params = PostParams::default();
    let creates = (0..40).map(|n| {
        let api = [&here, &there][n % 2];
        let (params, object) = (&params, config_map(&format!("c{n}")));
        async move { api.create(params, &object).await.unwrap() }
    });
    futures::future::join_all(creates).await;
    // Either tells the same, in the same order, from a revision that the other gave.
    let seen = watched(&here, &begin, 40).await;
    assert_eq!(seen, watched(&there, &begin, 40).await);

    // Read, your own writes, anywhere; and an old revision is refused anywhere.
    let made = here.create(&params, &config_map("mine")).await.unwrap();
    let listed = there.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 41);
    let mut newer = made.clone();
    newer.data = Some([("a".to_owned(), "b".to_owned())].into());
    there.replace("mine", &params, &newer).await.unwrap();
    let refused = here.replace("mine", &params, &newer).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 409));

    // Both give addresses and ports at once: each is given once.
    let services = (0..30).map(|n| {
        let client = [&first, &second][n % 2].clone();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": format!("s{n}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]},
        }))
        .unwrap();
        async move {
            let api: Api<Service> = Api::namespaced(client, "default");
            let made = api.create(&PostParams::default(), &service).await.unwrap();
            let spec = made.spec.unwrap();
            let port = spec.ports.unwrap()[0].node_port.unwrap();
            (spec.cluster_ip.unwrap(), port)
        }
    });
    let given = futures::future::join_all(services).await;
    let addresses: std::collections::BTreeSet<_> = given.iter().map(|(ip, _)| ip).collect();
    let ports: std::collections::BTreeSet<_> = given.iter().map(|(_, port)| port).collect();
    assert_eq!((addresses.len(), ports.len()), (30, 30));

    quota_is_shared(&first, &second).await;

    // What etcd does not take is the client's fault, and told in its words.
    let revisions: Api<ControllerRevision> = Api::namespaced(second.clone(), "default");
    let large =
        json!({"metadata": {"name": "large"}, "revision": 1, "data": {"a": "x".repeat(1_700_000)}});
    let large: ControllerRevision = serde_json::from_value(large).unwrap();
    let Err(kube::Error::Api(status)) = revisions.create(&params, &large).await else {
        panic!("etcd took it")
    };
    assert_eq!(
        (status.code, &*status.reason),
        (413, "RequestEntityTooLarge")
    );
    assert!(
        status.message.contains("etcdserver: request is too large"),
        "{}",
        status.message
    );

    // The first is gone: a watch goes on at the second, where it was, and at one that starts now.
    let at = here
        .get("mine")
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    drop((here, first));
    one.close().await;
    drop(one);
    let (last, third) = server(&etcd, dir.path(), "last").await;
    let anew: Api<ConfigMap> = Api::namespaced(third, "default");
    there.create(&params, &config_map("after")).await.unwrap();
    assert_eq!(watched(&there, &at, 1).await, ["after"]);
    assert_eq!(watched(&anew, &at, 1).await, ["after"]);
    assert_eq!(watched(&anew, &begin, 40).await, seen);
    other.close().await;
    last.close().await;
}

/// Both create at once what a quota counts: what it allows, and no more.
async fn quota_is_shared(first: &kube::Client, second: &kube::Client) {
    let quotas: Api<ResourceQuota> = Api::namespaced(first.clone(), "kube-public");
    let quota = serde_json::from_value(json!({
        "metadata": {"name": "q"},
        "spec": {"hard": {"count/secrets": "7"}},
    }));
    let params = PostParams::default();
    quotas.create(&params, &quota.unwrap()).await.unwrap();
    // Its first count is the controller's, which does not run here.
    let counted =
        json!({"status": {"hard": {"count/secrets": "7"}, "used": {"count/secrets": "0"}}});
    let merge = kube::api::Patch::Merge(counted);
    let patched = quotas.patch_status("q", &Default::default(), &merge).await;
    patched.unwrap();
    let creates = (0..24).map(|n| {
        let client = [first, second][n % 2].clone();
        let secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": format!("s{n}")}})).unwrap();
        async move {
            let secrets: Api<Secret> = Api::namespaced(client, "kube-public");
            loop {
                match secrets.create(&PostParams::default(), &secret).await {
                    Ok(_) => return true,
                    Err(kube::Error::Api(status)) if status.code == 403 => return false,
                    // The other server's writes came first again and again.
                    Err(kube::Error::Api(status)) if status.code == 500 => {}
                    Err(fault) => panic!("{fault}"),
                }
            }
        }
    });
    let made = futures::future::join_all(creates).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 7);
    let status = quotas.get("q").await.unwrap().status.unwrap();
    assert_eq!(status.used.unwrap()["count/secrets"].0, "7");
}
