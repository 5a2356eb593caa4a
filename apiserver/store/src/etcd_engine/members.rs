//! The members of the etcd cluster, and how a request finds one that answers.
//!
//! Requests go to one member until it fails; then to the next. What is safe to send again is sent
//! again, within [`PATIENCE`]: every read, and a transaction that provably never left (no
//! connection, or a member without a leader, which refuses before it looks). A transaction that
//! was sent and not answered has an unknown outcome and is never sent again.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, Error, GetOptions, GetResponse,
    Identity, TlsOptions, Txn, TxnResponse, WatchClient,
};
use tokio::time::Instant;
use tonic::Code;

use super::EtcdConfig;

/// How long a request may take, all attempts together.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How often a silent connection is tried, and how long it may then stay silent.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The pause before all members are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// What etcd says of a request above its `--max-request-bytes`.
const TOO_LARGE: &str = "etcdserver: request is too large";
/// The largest message taken from etcd: a page of the largest values.
const MAX_MESSAGE_BYTES: usize = 512 << 20;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was not carried out.
    NotDone(String),
    /// It may have been carried out.
    Unknown(String),
    /// etcd refuses it, whoever is asked.
    Refused(String),
    /// It is too large for etcd.
    TooLarge(String),
    /// It asks for a revision that was compacted.
    Compacted,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    current: AtomicUsize,
}

struct Member {
    url: String,
    client: Client,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

// === impl Members ===

impl Members {
    /// Gets ready to talk to the members; connections are made when they are needed.
    pub async fn new(config: &EtcdConfig) -> Result<Self, Error> {
        let mut all = Vec::with_capacity(config.endpoints.len());
        for url in &config.endpoints {
            let client = Client::connect([url], Some(options(config))).await?;
            all.push(Member {
                url: url.clone(),
                client,
            });
        }
        if all.is_empty() {
            return Err(Error::InvalidArgs("no member was named".to_owned()));
        }
        Ok(Self {
            all,
            current: AtomicUsize::new(0),
        })
    }

    /// Which member is asked now, by its number, and a client for its watches.
    pub fn watch_client(&self) -> (usize, WatchClient) {
        let (at, member) = self.member();
        let client = member.client.watch_client();
        (at, client.max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The member that is asked now.
    pub fn url(&self) -> &str {
        &self.member().1.url
    }

    /// Turns to the next member, unless somebody did so already.
    pub fn leave(&self, failed: usize) {
        let next = failed.wrapping_add(1);
        // Somebody else's change is as good.
        let _ = self
            .current
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn member(&self) -> (usize, &Member) {
        let at = self.current.load(Ordering::Relaxed);
        (at, &self.all[at % self.all.len()])
    }

    /// Reads; linearizable unless the options say otherwise.
    pub async fn get(&self, key: &str, options: GetOptions) -> Result<GetResponse, Failure> {
        let ask = |client: Client| {
            let (key, options) = (key.to_owned(), options.clone());
            async move {
                let mut kv = client
                    .kv_client()
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                kv.get(key, Some(options)).await
            }
        };
        self.ask(ask, |_| true).await
    }

    /// Carries a transaction out, at most once.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Failure> {
        let ask = |client: Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        self.ask(ask, never_left).await
    }

    /// Has etcd forget what is older than `revision`.
    pub async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let ask = |mut client: Client| async move {
            client
                .compact(revision, None::<CompactionOptions>)
                .await
                .map(|_| ())
        };
        self.ask(ask, |_| true).await
    }

    /// Asks one member after another while that is safe and there is time.
    async fn ask<A, F, T>(&self, ask: A, again: impl Fn(&Error) -> bool) -> Result<T, Failure>
    where
        A: Fn(Client) -> F,
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = 0;
        loop {
            let (at, member) = self.member();
            let answer = tokio::time::timeout_at(deadline, ask(member.client.clone())).await;
            let Ok(answer) = answer else {
                self.leave(at);
                return Err(Failure::Unknown(format!(
                    "etcd at {} did not answer within {PATIENCE:?}",
                    member.url
                )));
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(refused) = refused(&error) {
                return Err(refused);
            }
            self.leave(at);
            let text = format!("etcd at {}: {}", member.url, with_sources(&error));
            if !again(&error) {
                return Err(Failure::Unknown(text));
            }
            attempts += 1;
            if attempts % self.all.len() == 0 {
                if Instant::now() + PAUSE >= deadline {
                    return Err(Failure::NotDone(text));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn options(config: &EtcdConfig) -> ConnectOptions {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE)
        .with_keep_alive_while_idle(true)
        // A member that lost its leader would serve a watch that never says anything.
        .with_require_leader(true);
    let Some(tls) = &config.tls else {
        return options;
    };
    let mut of_tls = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.identity_pem {
        of_tls = of_tls.identity(Identity::from_pem(certificate, key));
    }
    options.with_tls(of_tls)
}

/// Whether a request that failed so was never carried out, by anybody.
fn never_left(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return matches!(error, Error::TransportError(_));
    };
    if status.message() == "etcdserver: no leader" {
        return true;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What asking another member would not change.
fn refused(error: &Error) -> Option<Failure> {
    let Error::GRpcStatus(status) = error else {
        return None;
    };
    let message = status.message();
    match status.code() {
        Code::InvalidArgument if message == TOO_LARGE => {
            Some(Failure::TooLarge(message.to_owned()))
        }
        // Far too large: refused before etcd looks at it.
        Code::ResourceExhausted if message.contains("message larger than max") => {
            Some(Failure::TooLarge(TOO_LARGE.to_owned()))
        }
        Code::OutOfRange if message.contains("compacted") => Some(Failure::Compacted),
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated => {
            let message = message.strip_prefix("etcdserver: ").unwrap_or(message);
            Some(Failure::Refused(format!("etcd refuses it: {message}")))
        }
        _ => None,
    }
}

fn with_sources(error: &Error) -> String {
    let mut text = match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut cause = match error {
        Error::GRpcStatus(status) => status.source(),
        other => other.source(),
    };
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotDone(why) | Self::Unknown(why) | Self::Refused(why) | Self::TooLarge(why) => {
                f.write_str(why)
            }
            Self::Compacted => f.write_str("the revision was compacted"),
        }
    }
}
