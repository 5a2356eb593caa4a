//! Candidates over a real API server: turns, and how they end.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use peapod_apiserver::{ApiServer, Config, Engine};
use peapod_election::{Election, lead};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than any test may take: who leads before has not waited for it.
const FOREVER: Duration = Duration::from_secs(600);

async fn server(dir: &tempfile::TempDir) -> (ApiServer, Client) {
    let config = Config {
        engine: Engine::Memory,
        ..Config::new(dir.path())
    };
    let server = ApiServer::start(config).await.unwrap();
    // With the rights of the scheduler, and no others.
    let client = server.client("system:kube-scheduler", &[]);
    (server, client)
}

fn election(identity: &str, lease: Duration) -> Election {
    Election {
        lease,
        renew_deadline: lease * 2 / 3,
        retry: Duration::from_millis(50),
        ..Election::new("kube-scheduler", identity)
    }
}

/// A candidate that says when its turns begin and end.
struct Runner {
    turns: mpsc::UnboundedReceiver<&'static str>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Infallible>>,
}

impl Runner {
    fn start(client: &Client, election: Election) -> Self {
        let (says, turns) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let work = move |turn: CancellationToken| {
            let says = says.clone();
            async move {
                says.send("begins").unwrap();
                turn.cancelled().await;
                says.send("ends").unwrap();
                Ok(())
            }
        };
        let task = tokio::spawn(lead(client.clone(), election, stop.clone(), work));
        Self { turns, stop, task }
    }

    async fn says(&mut self, what: &str) {
        let said = tokio::time::timeout(LIMIT, self.turns.recv()).await;
        assert_eq!(said.unwrap(), Some(what));
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

async fn held_by(server: &ApiServer) -> Option<String> {
    let admin = server.client("kubernetes-admin", &["system:masters"]);
    let leases: Api<Lease> = Api::namespaced(admin, "kube-system");
    let lease = leases.get("kube-scheduler").await.unwrap();
    lease.spec.unwrap().holder_identity
}

#[tokio::test]
async fn the_next_leads_at_once_when_the_first_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = server(&dir).await;
    let mut first = Runner::start(&client, election("first", FOREVER));
    first.says("begins").await;
    let mut second = Runner::start(&client, election("second", FOREVER));
    let mut third = Runner::start(&client, election("third", FOREVER));
    first.stop.cancel();
    first.says("ends").await;
    first.stop().await;
    // One of the two, and the other only after it.
    let (leader, mut other) = tokio::select! {
        () = second.says("begins") => (second, third),
        () = third.says("begins") => (third, second),
    };
    assert!(other.turns.try_recv().is_err());
    leader.stop().await;
    other.says("begins").await;
    other.stop().await;
    assert_eq!(held_by(&server).await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_lease_that_nobody_renews_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = server(&dir).await;
    // Work that never ends, so that the lease is not released when its task is aborted.
    let stop = CancellationToken::new();
    let brief = election("dead", Duration::from_secs(1));
    let work = |_| pending::<Result<(), Infallible>>();
    let dead = tokio::spawn(lead(client.clone(), brief.clone(), stop, work));
    let admin = server.client("kubernetes-admin", &["system:masters"]);
    let leases: Api<Lease> = Api::namespaced(admin, "kube-system");
    while leases.get_opt("kube-scheduler").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    dead.abort();
    let mut next = Runner::start(&client, election("next", Duration::from_secs(1)));
    next.says("begins").await;
    assert_eq!(held_by(&server).await.as_deref(), Some("next"));
    next.stop().await;
}

#[tokio::test]
async fn a_leader_that_was_robbed_stops_and_leads_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = server(&dir).await;
    let mut runner = Runner::start(&client, election("me", FOREVER));
    runner.says("begins").await;
    let admin = server.client("kubernetes-admin", &["system:masters"]);
    let leases: Api<Lease> = Api::namespaced(admin, "kube-system");
    let robbed = Patch::Merge(json!({"spec": {"holderIdentity": "robber"}}));
    leases
        .patch("kube-scheduler", &PatchParams::default(), &robbed)
        .await
        .unwrap();
    runner.says("ends").await;
    leases
        .delete("kube-scheduler", &DeleteParams::default())
        .await
        .unwrap();
    runner.says("begins").await;
    runner.stop().await;
}

#[tokio::test]
async fn what_the_work_ends_with_is_told_and_the_lease_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = server(&dir).await;
    let work = |_| async { Err("it broke") };
    let stop = CancellationToken::new();
    let ended = lead(client.clone(), election("me", FOREVER), stop, work).await;
    assert_eq!(ended, Err("it broke"));
    assert_eq!(held_by(&server).await.as_deref(), Some(""));
}
