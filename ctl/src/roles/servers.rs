//! The API servers of a cluster, as a node sees them: the one that it joined by, and those that the
//! `kubernetes` Service leads to. One is asked until it fails, then another.
//!
//! [`Servers`] decides which; [`Through`] is the service behind the node's client. When a server is given
//! up, what was still read from it ends at once with an error, so that watches begin anew at the next.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http_body::Frame;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::Body;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::instance::settings::{read_json, write_json};

/// Below the time after which a silent node counts as lost, with room for a second try.
const PATIENCE: Patience = Patience {
    suspicion: Duration::from_secs(10),
    probe: Duration::from_secs(3),
};
/// How often a server is asked so when nothing else shows it. As client-go's pings.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// More servers than these are not remembered.
const MAX_SERVERS: usize = 32;

/// Which servers there are, and which one is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Where the node joined; it stands for the cluster, and is never forgotten.
    first: String,
    /// The others that are known to live.
    learned: Vec<String>,
    current: String,
}

// === impl Servers ===

impl Servers {
    /// The server that the node joined by, and those that it knew when it ran last.
    pub fn new(first: &str, remembered: Vec<String>) -> Self {
        Self {
            first: first.to_owned(),
            learned: remembered,
            current: first.to_owned(),
        }
    }

    /// Takes over which servers live. True when another one than before is to be asked: the one of now is
    /// neither among them nor what the node joined by, which may be the name of a balancer.
    pub fn learn(&mut self, mut living: Vec<String>) -> bool {
        living.sort();
        living.dedup();
        living.truncate(MAX_SERVERS);
        if living.is_empty() {
            return false;
        }
        self.learned = living;
        let known = self.current == self.first || self.learned.contains(&self.current);
        if !known {
            self.current = self.learned[0].clone();
        }
        !known
    }

    /// `server` failed: the next one is asked, unless that has been decided already. True when there is
    /// another.
    pub fn give_up(&mut self, server: &str) -> bool {
        if self.current != server {
            return false;
        }
        let mut all: Vec<&String> = self.learned.iter().collect();
        if !all.contains(&&self.first) {
            all.push(&self.first);
        }
        let at = all.iter().position(|one| *one == server);
        let next = all[at.map_or(0, |at| (at + 1) % all.len())].clone();
        let other = next != self.current;
        self.current = next;
        other
    }
}

/// Makes a client of a server.
pub type Connect = Box<dyn Fn(&str) -> Result<Client> + Send + Sync>;

/// The server of now.
#[derive(Clone)]
struct Live {
    server: String,
    client: Client,
    /// Cancelled when the server is given up.
    lost: CancellationToken,
}

/// How long a server is waited for.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// One that has not begun to answer for so long is asked whether it lives.
    suspicion: Duration,
    /// How long it may take to say so.
    probe: Duration,
}

/// A client of whichever server lives.
pub struct Link {
    state: Mutex<State>,
    patience: Patience,
    /// Remembers the servers until the next start.
    file: PathBuf,
}

struct State {
    servers: Servers,
    live: Live,
    connect: Connect,
}

// === impl Link ===

impl Link {
    /// Connects to the first server; `file` remembers others, for when it fails.
    ///
    /// # Errors
    /// When the file cannot be read, or no client can be made.
    pub fn open(first: &str, file: &Path, connect: Connect) -> Result<Arc<Self>> {
        let remembered = read_json(file)?.unwrap_or_default();
        let servers = Servers::new(first, remembered);
        let live = Live::of(first, connect(first)?);
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                servers,
                live,
                connect,
            }),
            patience: PATIENCE,
            file: file.to_owned(),
        }))
    }

    /// A client whose requests go to the server of now.
    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(Through(self.clone()), "default")
    }

    /// New connections are made so; requests under way end on theirs.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn reconnect_by(&self, connect: Connect) -> Result<()> {
        let mut state = self.state();
        state.live.client = connect(&state.live.server)?;
        state.connect = connect;
        Ok(())
    }

    /// Follows which servers there are, and whether the one of now lives; for ever.
    pub async fn follow(self: Arc<Self>) -> Result<()> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client(), "default");
        let of_it = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
        let (reader, writer) = reflector::store();
        let events = watcher(slices, of_it).default_backoff().reflect(writer);
        let mut events = std::pin::pin!(events);
        loop {
            match tokio::time::timeout(HEARTBEAT, events.next()).await {
                Ok(Some(Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)))) => {
                    let slices = reader.state();
                    self.learn(slices.iter().flat_map(|slice| urls(slice)).collect());
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_) => self.probe(&self.live()).await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    fn live(&self) -> Live {
        self.state().live.clone()
    }

    fn learn(&self, living: Vec<String>) {
        let mut state = self.state();
        let before = state.servers.learned.clone();
        if state.servers.learn(living) {
            state.switch("it left the cluster");
        }
        let learned = state.servers.learned.clone();
        drop(state);
        if learned != before
            && let Err(error) = write_json(&self.file, &learned)
        {
            let error = crate::terminal::sentence(&error);
            tracing::warn!(%error, "cannot remember the API servers");
        }
    }

    /// Asks a server whether it lives, and gives it up if it does not say so.
    async fn probe(&self, live: &Live) {
        let request = http::Request::get("/livez").body(Body::empty());
        let Ok(request) = request else { return };
        let why = match tokio::time::timeout(self.patience.probe, live.client.send(request)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.patience.probe),
        };
        self.give_up(live, &why);
    }

    fn give_up(&self, live: &Live, why: &str) {
        let mut state = self.state();
        if state.servers.give_up(&live.server) {
            state.switch(why);
        }
    }
}

// === impl State ===

impl State {
    fn switch(&mut self, why: &str) {
        let to = &self.servers.current;
        let client = match (self.connect)(to) {
            Ok(client) => client,
            Err(error) => {
                let error = crate::terminal::sentence(&error);
                tracing::warn!(server = to, %error, "cannot make a client of an API server");
                return;
            }
        };
        let from = &self.live.server;
        tracing::warn!(from, to, why, "another API server is asked from now on");
        self.live.lost.cancel();
        self.live = Live::of(to, client);
    }
}

// === impl Live ===

impl Live {
    fn of(server: &str, client: Client) -> Self {
        Self {
            server: server.to_owned(),
            client,
            lost: CancellationToken::new(),
        }
    }
}

/// The servers of a slice of the `kubernetes` Service.
fn urls(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.iter().flatten();
    let Some(port) = ports.filter_map(|port| port.port).next() else {
        return Vec::new();
    };
    let addresses = slice.endpoints.iter().flatten();
    let addresses = addresses.flat_map(|endpoint| &endpoint.addresses);
    addresses
        .map(|address| match address.contains(':') {
            true => format!("https://[{address}]:{port}"),
            false => format!("https://{address}:{port}"),
        })
        .collect()
}

/// Sends a request to the server of now.
#[derive(Clone)]
struct Through(Arc<Link>);

impl tower_service::Service<http::Request<Body>> for Through {
    type Response = http::Response<Reading>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, kube::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let link = self.0.clone();
        Box::pin(async move {
            let live = link.live();
            let mut sent = std::pin::pin!(live.client.send(request));
            let answer = loop {
                tokio::select! {
                    answer = &mut sent => break answer,
                    () = live.lost.cancelled() => {
                        break Err(kube::Error::Service("the API server is lost".into()));
                    }
                    () = tokio::time::sleep(link.patience.suspicion) => link.probe(&live).await,
                }
            };
            match answer {
                Ok(answer) => Ok(answer.map(|body| Reading {
                    body,
                    lost: Box::pin(live.lost.cancelled_owned()),
                })),
                Err(error) => {
                    if matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_)) {
                        link.give_up(&live, &error.to_string());
                    }
                    Err(error)
                }
            }
        })
    }
}

/// What a server answers, until it is given up.
struct Reading {
    body: Body,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.lost.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the API server is lost".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_is_asked_until_it_fails_then_the_next_and_all_in_turn() {
        let mut servers = Servers::new("a", named(&["a", "b", "c"]));
        assert!(servers.give_up("a"));
        assert_eq!(servers.current, "b");
        // Somebody else saw the same failure.
        assert!(!servers.give_up("a"));
        assert!(servers.give_up("b"));
        assert!(servers.give_up("c"));
        assert_eq!(servers.current, "a");
    }

    #[test]
    fn a_balancer_that_the_node_joined_by_is_never_forgotten() {
        let mut servers = Servers::new("balancer", Vec::new());
        assert!(!servers.give_up("balancer"), "there is no other");
        assert!(!servers.learn(named(&["b", "a"])));
        assert_eq!(servers.current, "balancer");
        assert!(servers.give_up("balancer"));
        assert_eq!(servers.current, "a");
        assert!(servers.give_up("a"));
        assert!(servers.give_up("b"));
        assert_eq!(servers.current, "balancer");
    }

    #[test]
    fn a_server_that_left_is_asked_no_more() {
        let mut servers = Servers::new("a", named(&["b"]));
        assert!(servers.give_up("a"));
        assert_eq!(servers.current, "b");
        assert!(servers.learn(named(&["c", "d"])));
        assert_eq!(servers.current, "c");
        assert!(!servers.learn(Vec::new()), "nobody says that nobody lives");
    }

    /// A server that answers, or one that begins no answer.
    #[derive(Clone)]
    struct Fake {
        hangs: bool,
        asked: Arc<AtomicUsize>,
    }

    impl tower_service::Service<http::Request<Body>> for Fake {
        type Response = http::Response<Body>;
        type Error = kube::Error;
        type Future = BoxFuture<'static, Result<Self::Response, kube::Error>>;

        fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), kube::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let hangs = self.hangs;
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(http::Response::new(Body::from(b"ok".to_vec())))
            })
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("servers.json");
        write_json(&file, &named(&["hangs", "sound"])).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let connect: Connect = Box::new(move |server| {
            let (hangs, asked) = (server == "hangs", counted.clone());
            Ok(Client::new(Fake { hangs, asked }, "default"))
        });
        let mut link = Link::open("hangs", &file, connect).unwrap();
        let soon = Duration::from_millis(5);
        Arc::get_mut(&mut link).unwrap().patience = Patience {
            suspicion: soon,
            probe: soon,
        };
        let client = link.client();
        let get = || http::Request::get("/version").body(Body::empty()).unwrap();
        let lost = client.send(get()).await.err();
        assert!(matches!(lost, Some(kube::Error::Service(_))), "{lost:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 2, "the request, and a probe");
        let answer = client.send(get()).await.unwrap();
        let bytes = answer.into_body().collect_bytes().await.unwrap();
        assert_eq!(&bytes[..], b"ok");
    }

    #[test]
    fn servers_are_read_from_slices_of_both_families() {
        let slice = |addresses: &[&str]| -> EndpointSlice {
            serde_json::from_value(serde_json::json!({
                "addressType": "IPv4",
                "endpoints": addresses.iter().map(|one| serde_json::json!({"addresses": [one]}))
                    .collect::<Vec<_>>(),
                "ports": [{"name": "https", "port": 6443}],
            }))
            .unwrap()
        };
        assert_eq!(
            urls(&slice(&["10.0.0.1", "fd00::1"])),
            ["https://10.0.0.1:6443", "https://[fd00::1]:6443"]
        );
    }
}
