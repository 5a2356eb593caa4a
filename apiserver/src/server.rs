//! Starting, serving and stopping an API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use peapod_store::{EtcdEngine, Limits, MemoryEngine, SledConfig, SledEngine, engine};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::pod_security::config::{
    ConfigError as AdmissionConfigError, PodSecurityConfig,
};
use crate::admission::{self, Chain};
use crate::aggregation::{self, Aggregation};
use crate::api::Api;
use crate::audit::{Audit, AuditError};
use crate::auth::authorizer::{Masters, Union};
use crate::auth::bearer::{BearerError, Bearers};
use crate::auth::node::Nodes;
use crate::auth::rbac::{self, Rbac};
use crate::auth::tokens::{TokenError, Tokens};
use crate::auth::user::User;
use crate::bootstrap;
use crate::config::{Config, Engine};
use crate::connections::{Connections, accept};
use crate::crd;
use crate::expiry;
use crate::flow::{self, Flow};
use crate::front::{Front, Peer};
use crate::identity::Identity;
use crate::inside::Inside;
use crate::metrics::Metrics;
use crate::pki::{Credential, Pki, PkiError, Subject};
use crate::placements::{Placements, log::LogError};
use crate::pools::{self, ranges::ServiceRanges};
use crate::proxy::Kubelets;
use crate::registry::{Registry, RegistryError};
use crate::storage::{Describer, Store};

/// How long telling the others at the end may take.
const LEAVING: Duration = Duration::from_secs(3);

/// Why a server cannot start or serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token key.
    #[error("cannot use the service account key: {0}")]
    Tokens(#[from] TokenError),
    /// Whose tokens are taken.
    #[error(transparent)]
    Bearers(#[from] BearerError),
    /// The configuration of admission.
    #[error(transparent)]
    Admission(#[from] AdmissionConfigError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// The log of placements.
    #[error(transparent)]
    Placements(#[from] LogError),
    /// The declarations of kinds.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The objects that a cluster needs.
    #[error("cannot create {what}: {source}")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The store is another cluster's, or the keys are.
    #[error(
        "{0} is not that of the other servers over this store: give this server their keys \
         (--pki-dir: a directory with their ca.crt, ca.key and sa.key), or another store"
    )]
    OtherKeys(PathBuf),
    /// The roles that a cluster needs.
    #[error("cannot put the default roles right: {0}")]
    Roles(#[from] rbac::reconcile::Fault),
}

/// A running API server.
pub struct ApiServer {
    api: Arc<Api>,
    front: Front,
    pki: Pki,
    recovery: Option<String>,
    /// What keeps custom resources, aggregated servers and the status of policies, and ends events.
    _tasks: Vec<AbortOnDropHandle<()>>,
    /// What keeps the objects of flow control.
    _flow: Option<AbortOnDropHandle<()>>,
    /// What tells the others that this server lives.
    identity: parking_lot::Mutex<Option<AbortOnDropHandle<()>>>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Opens the store and the keys, and makes the objects that a cluster needs. It serves
    /// clients in this process at once, and others after [`Self::serve`].
    pub async fn start(config: Config) -> Result<Self, Error> {
        let now = Timestamp::now();
        let own = config.pki_dir();
        let shared = config.shared_pki.as_ref().unwrap_or(&own);
        let pki = Pki::open_shared(shared, &own, now)?;
        let (private, public) = &pki.service_accounts;
        let tokens = Tokens::new(&config.issuer, private, public)?;
        let kubelet_client = Subject {
            name: "kube-apiserver-kubelet-client",
            groups: &["system:masters"],
            sans: &[],
        };
        let kubelet_client = pki.credential("apiserver-kubelet-client", &kubelet_client, now)?;
        let kubelets = Kubelets::new(pki.client_tls(&kubelet_client)?);
        let proxy_client = Subject {
            name: aggregation::CLIENT_NAME,
            groups: &[],
            sans: &[],
        };
        let proxy_client = pki.credential("front-proxy-client", &proxy_client, now)?;
        let aggregation = Aggregation::new(&proxy_client);
        let registry = Arc::new(Registry::builtin()?);
        let (store, recovery) = open_store(&config, &registry).await?;
        let placements = config.data_dir.join("store/placements");
        let placements = Placements::start(store.clone(), &placements).await?;
        let bearers = Bearers::new(&config)?;
        let pod_security = config
            .admission_file
            .as_deref()
            .map(PodSecurityConfig::read);
        let pod_security = pod_security.transpose()?.unwrap_or_default();
        let metrics = Metrics::default();
        let audit = config.audit.as_ref();
        let audit = audit.map(|audit| Audit::open(audit, metrics.audit_errors()));
        let audit = audit.transpose()?;
        let rbac = Rbac::new(store.clone());
        let authorizer = Union::new(vec![
            Box::new(Masters),
            Box::new(Nodes::new(store.clone(), registry.clone())),
            Box::new(rbac.clone()),
        ]);
        let flow = metrics.register(|to| {
            Flow::new(
                store.clone(),
                config.max_requests,
                config.request_timeout,
                to,
            )
        });
        let service_ranges = ServiceRanges::new(store.clone(), &registry, &config.service_cidrs);
        let api = Arc::new(Api {
            service_ranges,
            hosted: Default::default(),
            watched: Arc::default(),
            messages: Default::default(),
            flow,
            usage: Default::default(),
            registry,
            store,
            admission: Chain::standard(pod_security),
            quota_turns: Default::default(),
            authorizer: Arc::new(authorizer),
            rbac,
            bearers,
            audit,
            tokens,
            kubelets,
            aggregation,
            placements,
            metrics,
            draining: CancellationToken::new(),
            config,
        });
        let nobody = Peer::Socket {
            user: None,
            local: true,
            address: None,
        };
        let front = Front::new(api.clone(), nobody);
        let definitions = crd::controller::load(&api);
        aggregation::controller::load(&api);
        let mut tasks = vec![
            crd::controller::spawn(api.clone(), definitions),
            aggregation::controller::spawn(api.clone()),
            admission::policy::typing::spawn(api.clone()),
            pools::addresses::spawn(api.clone()),
        ];
        let ttl = api.config.event_ttl;
        tasks.extend((!ttl.is_zero()).then(|| expiry::spawn(api.clone(), ttl)));
        let mut server = Self {
            api,
            front,
            pki,
            recovery,
            _tasks: tasks,
            _flow: None,
            identity: Default::default(),
        };
        let client = server.client("system:apiserver", &["system:masters"]);
        let settled = flow::maintain::settle(&server.api, &client).await;
        settled.map_err(|(what, source)| Error::Bootstrap {
            what,
            source: Box::new(source),
        })?;
        server._flow = Some(flow::maintain::spawn(server.api.clone(), client.clone()));
        bootstrap::run(client.clone(), &server.api.config, &server.pki).await?;
        rbac::reconcile::run(&client).await?;
        let mut identity = Identity::new(client, &server.api.config);
        let told = identity.refresh().await;
        told.map_err(|source| Error::Bootstrap {
            what: "the endpoints of the kubernetes service".to_owned(),
            source: Box::new(source),
        })?;
        *server.identity.lock() = Some(identity.spawn());
        Ok(server)
    }

    /// A client in this process, with an identity.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let user = User::authenticated(user, groups.iter().copied());
        let service = self.front.for_peer(Peer::Inside(user));
        kube::Client::new(Inside::new(service), "default")
    }

    /// What had to be done to open a store that was damaged: which file, where it is now, what was
    /// restored and up to where. `None` when it was sound.
    pub fn recovery(&self) -> Option<&str> {
        self.recovery.as_deref()
    }

    /// Notes that a part of the cluster runs in this process, whose end would be this one's:
    /// `kube-scheduler` or `kube-controller-manager`.
    pub fn hosts(&self, name: &str) {
        self.api.hosted.add(name);
    }

    /// Adds metrics of another part of this process to what `/metrics` serves.
    pub fn register_metrics(&self, add: impl FnOnce(&mut prometheus_client::registry::Registry)) {
        self.api.metrics.register(add);
    }

    /// Finishes what waits to be written and closes the store's files. Writes are refused from
    /// then on; call it when everything that writes has ended.
    pub async fn close(&self) {
        drop(self.identity.lock().take());
        let client = self.client("system:apiserver", &["system:masters"]);
        let leaving = Identity::new(client, &self.api.config).leave();
        match tokio::time::timeout(LEAVING, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the other API servers were not told"),
            Err(_) => tracing::warn!("the other API servers were not told in time"),
        }
        self.api.store.close().await;
    }

    /// The keys and certificates, to make more of them.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// A kubeconfig for an administrator, over a server's URL.
    pub fn admin_kubeconfig(&self, server: &str) -> Result<String, PkiError> {
        let admin = Subject {
            name: "kubernetes-admin",
            groups: &["system:masters"],
            sans: &[],
        };
        let credential = self.pki.credential("admin", &admin, Timestamp::now())?;
        Ok(self.pki.kubeconfig(server, "kubernetes-admin", &credential))
    }

    /// Serves the listeners over TLS until `shutdown`, then lets the requests in work finish
    /// within the configured time.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let serving = self.serving_credential(&listeners)?;
        let acceptor = TlsAcceptor::from(self.pki.server_tls(&serving)?);
        let mut accepting = JoinSet::new();
        let connections = Arc::new(Connections::new());
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "the API server listens");
            }
            let loop_ = accept(
                listener,
                acceptor.clone(),
                self.front.clone(),
                connections.clone(),
                shutdown.clone(),
            );
            accepting.spawn(loop_);
        }
        let ended = tokio::select! {
            () = shutdown.cancelled() => false,
            () = self.api.store.ended() => !shutdown.is_cancelled(),
        };
        if ended {
            // Reads would go stale: clients must find another server, or this one started again.
            self.api.draining.cancel();
            return Err(Error::Store(
                "the store has ended while it was served; start the server again".to_owned(),
            ));
        }
        while accepting.join_next().await.is_some() {}
        self.api.draining.cancel();
        connections.drain(self.api.config.drain).await;
        if let Some(audit) = &self.api.audit {
            audit.close().await;
        }
        Ok(())
    }

    fn serving_credential(&self, listeners: &[TcpListener]) -> Result<Credential, PkiError> {
        let config = &self.api.config;
        let mut sans: Vec<String> = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ]
        .map(str::to_owned)
        .into();
        sans.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
        sans.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        sans.push(config.advertise_address.to_string());
        let ranges = config.service_cidrs.iter();
        sans.extend(ranges.filter_map(|net| Some(net.hosts().next()?.to_string())));
        sans.extend(config.extra_sans.iter().cloned());
        for address in listeners.iter().filter_map(|one| one.local_addr().ok()) {
            if !address.ip().is_unspecified() {
                sans.push(address.ip().to_string());
            }
        }
        let subject = Subject {
            name: "kube-apiserver",
            groups: &[],
            sans: &sans,
        };
        self.pki.credential("apiserver", &subject, Timestamp::now())
    }
}

async fn open_store(
    config: &Config,
    registry: &Registry,
) -> Result<(Store, Option<String>), Error> {
    let (engine, recovery): (Arc<dyn engine::Engine>, _) = match &config.engine {
        Engine::Etcd(etcd) => {
            let engine = EtcdEngine::open(etcd.clone()).await;
            let engine = engine.map_err(|fault| Error::Store(fault.to_string()))?;
            (Arc::new(engine), None)
        }
        Engine::Memory => (Arc::new(MemoryEngine::new()), None),
        Engine::Sled => {
            let engine = open_sled(config.data_dir.join("store")).await?;
            let recovery = engine.recovery().map(|recovery| {
                let store = config.data_dir.join("store");
                format!("the store {} was damaged: {recovery}", store.display())
            });
            (Arc::new(engine), recovery)
        }
    };
    let describer = Arc::new(Describer::new(registry));
    let store = Store::open(engine, describer, Limits::default())
        .await
        .map_err(|fault| Error::Store(fault.to_string()))?;
    Ok((store, recovery))
}

/// Opening reads and verifies everything: not on a thread that serves.
async fn open_sled(dir: PathBuf) -> Result<SledEngine, Error> {
    let opening = tokio::task::spawn_blocking(move || SledEngine::open(SledConfig::new(dir)));
    opening
        .await
        .map_err(|fault| Error::Store(fault.to_string()))?
        .map_err(|fault| Error::Store(fault.to_string()))
}
