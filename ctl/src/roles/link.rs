//! A client of whichever API server of a cluster lives.
//!
//! [`Through`](through) is the service behind it. When a server is given up, what was still read from it ends
//! at once with an error, so that watches begin anew at the next.

mod through;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::Body;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use self::through::Through;
use super::servers::Servers;
use crate::instance::settings::{read_json, write_json};

/// Below the time after which a silent node counts as lost, with room for a second try.
const PATIENCE: Patience = Patience {
    suspicion: Duration::from_secs(10),
    probe: Duration::from_secs(3),
};
/// How often a server is asked so when nothing else shows it. As client-go's pings.
const HEARTBEAT: Duration = Duration::from_secs(30);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context as TaskContext, Poll};

    use futures::future::BoxFuture;

    use super::*;

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
        write_json(&file, &["hangs", "sound"]).unwrap();
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
