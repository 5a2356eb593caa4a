//! The clustered engine: the store of several servers, in etcd.
//!
//! ```text
//!   commit --one transaction each, many at once--> etcd --one watch of the prefix--> events
//! ```
//!
//! A revision is etcd's. [`layout`] says what lies where, [`assemble`] makes changes of etcd's events,
//! [`members`] finds a member that answers, [`load`] reads what is there, [`fences`] up to when, [`follow`] is the watch, [`compaction`] has one server
//! give up the past for all, [`migrate`] brings the layout of an older release up to date, [`restore`]
//! makes a store of a backup.

mod assemble;
mod compaction;
mod fences;
mod follow;
mod layout;
mod load;
mod members;
mod migrate;
mod restore;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use etcd_client::{
    Compare as EtcdCompare, CompareOp, GetOptions, KeyValue, Txn as EtcdTxn, TxnOp, TxnOpResponse,
};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::codec::millis;
use crate::engine::{
    Change, EVENT_BATCHES, Engine, EngineError, Loaded, News, Record, Refusal, Write,
};
use crate::revision::Revision;
use crate::txn::{Action, Compare, Txn};
use assemble::{Assembly, decimal};
use fences::Fences;
use layout::{Clock, Names, Place, RESTORING, VERSION};
use members::{Failure, Members};
pub use restore::RestoreEtcdError;

/// How many transactions may be under way. At the bound committers wait.
const IN_FLIGHT: usize = 512;

/// How to reach the etcd cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The members' client URLs, as `http://127.0.0.1:2379`. Naming one is enough, naming all is
    /// what lets one fail.
    pub endpoints: Vec<String>,
    /// What all keys begin with. Stores with different prefixes share an etcd, but its compaction too.
    pub prefix: String,
    /// For members whose URLs begin with `https`.
    pub tls: Option<EtcdTls>,
    /// The least time between two compactions. Upstream's is five minutes.
    pub compact_every: Duration,
}

/// How to prove oneself to etcd, and know it.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Who signs the members' certificates, PEM.
    pub ca_pem: String,
    /// Certificate and key to show to them, PEM.
    pub identity_pem: Option<(String, String)>,
}

/// Why a store in etcd cannot be opened.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// A URL or a certificate is no good.
    #[error("cannot use etcd at {endpoints}: {why}; check its URLs and certificates")]
    Config {
        /// The URLs.
        endpoints: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody answers, or not as hoped.
    #[error("cannot reach etcd at {endpoints}: {why}; is it running, with a quorum?")]
    Unreachable {
        /// The URLs.
        endpoints: String,
        /// What was said last.
        why: String,
    },
    /// A backup was to be restored into it, and not all of it was.
    #[error(
        "a backup was being restored under {prefix} in etcd, and that was not finished: \
         delete what is there (`etcdctl del --prefix {prefix}/`) and restore it again"
    )]
    Unfinished {
        /// Where it lies.
        prefix: String,
    },
    /// It was written by a newer release.
    #[error(
        "the store under {prefix} in etcd has version {found}, and this release knows versions up to {VERSION}: \
         start the release that wrote it, or a newer one"
    )]
    Newer {
        /// Where it lies.
        prefix: String,
        /// Its version.
        found: String,
    },
}

/// See the module's head.
#[derive(Debug)]
pub struct EtcdEngine {
    members: Arc<Members>,
    place: Place,
    room: Semaphore,
    fences: Fences,
    /// Up to where the past may be given up.
    floor: watch::Sender<Revision>,
    compact_every: Duration,
    taken: Mutex<bool>,
    closing: CancellationToken,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// The default prefix.
    pub const PREFIX: &'static str = "/registry/peapod";

    /// Without TLS, under the default prefix.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: Self::PREFIX.to_owned(),
            tls: None,
            compact_every: Duration::from_secs(5 * 60),
        }
    }
}

/// Shows no key.
impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Shows no key.
impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}

// === impl EtcdEngine ===

impl EtcdEngine {
    /// Reaches the cluster, and founds the store under the prefix if there is none.
    ///
    /// # Errors
    /// [`EtcdError`] says what is wrong, and the remedy.
    pub async fn open(config: EtcdConfig) -> Result<Self, EtcdError> {
        let endpoints = config.endpoints.join(",");
        let unusable = |error: etcd_client::Error| EtcdError::Config {
            endpoints: endpoints.clone(),
            why: error.to_string(),
        };
        let members = Members::new(&config).await.map_err(unusable)?;
        let names = Names::new(&config.prefix);
        let unreachable = |failure: Failure| EtcdError::Unreachable {
            endpoints: endpoints.clone(),
            why: failure.to_string(),
        };
        let found = found(&members, &names).await.map_err(unreachable)?;
        let prefix = config.prefix;
        let version = match found.parse::<u32>() {
            Ok(version) if version <= VERSION => version,
            _ if found == RESTORING => return Err(EtcdError::Unfinished { prefix }),
            _ => return Err(EtcdError::Newer { prefix, found }),
        };
        let migrated = migrate::run(&members, &names, version).await;
        migrated.map_err(unreachable)?;
        let offset = members.get(&names.offset(), GetOptions::new()).await;
        let offset = offset.map_err(unreachable)?;
        let ahead = offset.kvs().first().and_then(|kv| decimal(kv.value()));
        let clock = Clock {
            ahead: ahead.unwrap_or(0),
        };
        Ok(Self {
            members: Arc::new(members),
            place: Place { names, clock },
            room: Semaphore::new(IN_FLIGHT),
            fences: Fences::default(),
            floor: watch::channel(Revision::ZERO).0,
            compact_every: config.compact_every,
            taken: Mutex::new(false),
            closing: CancellationToken::new(),
            tasks: Mutex::default(),
        })
    }

    /// Makes a store under the prefix of the [export](crate::export) at `file`, and returns the
    /// revision that it goes on from: at least `bump` above the export's.
    ///
    /// # Errors
    /// [`RestoreEtcdError`] says why it could not, and the remedy.
    pub async fn restore(
        config: EtcdConfig,
        file: &std::path::Path,
        bump: u64,
    ) -> Result<Revision, RestoreEtcdError> {
        restore::run(config, file, bump).await
    }

    /// The transaction as etcd is asked to carry it out. Every answer ends with `head`.
    fn request(&self, txn: &Txn, now: SystemTime) -> EtcdTxn {
        let mut compares = Vec::new();
        let mut looks = Vec::new();
        let mut deeds = Vec::new();
        for op in &txn.ops {
            let name = self.place.names.entry(&op.key);
            if let Some(compare) = compare(&name, op.compare, self.place.clock) {
                compares.push(compare);
                let keys_only = GetOptions::new().with_keys_only();
                looks.push(TxnOp::get(name.clone(), Some(keys_only)));
            }
            deeds.extend(match &op.action {
                Action::Put(draft) => Some(TxnOp::put(name, layout::encode(draft), None)),
                Action::Delete => Some(TxnOp::delete(name, None)),
                Action::Check => None,
            });
        }
        let look = TxnOp::get(self.place.names.head(), None);
        deeds.push(match deeds.is_empty() {
            true => look.clone(),
            false => TxnOp::put(self.place.names.head(), millis(now).to_string(), None),
        });
        looks.push(look);
        EtcdTxn::new().when(compares).and_then(deeds).or_else(looks)
    }
}

#[async_trait]
impl Engine for EtcdEngine {
    async fn load(&self) -> Result<Loaded, EngineError> {
        let failed = |failure: Failure| EngineError::Failed(failure.to_string());
        load::all(&self.members, &self.place).await.map_err(failed)
    }

    fn events(&self, from: Revision) -> Result<mpsc::Receiver<News>, EngineError> {
        if std::mem::replace(&mut *self.taken.lock(), true) {
            return Err(EngineError::Taken);
        }
        let (sender, receiver) = mpsc::channel(EVENT_BATCHES);
        let assembly = Assembly::after(self.place.names.clone(), from);
        let follow = follow::run(
            self.members.clone(),
            self.place.clone(),
            assembly,
            sender,
            self.closing.clone(),
        );
        let compaction = compaction::run(
            self.members.clone(),
            self.place.clone(),
            self.floor.subscribe(),
            self.compact_every,
            self.closing.clone(),
        );
        let tasks = [tokio::spawn(follow), tokio::spawn(compaction)];
        self.tasks.lock().extend(tasks.map(AbortOnDropHandle::new));
        Ok(receiver)
    }

    async fn commit(&self, txn: Txn) -> Result<Arc<Change>, Refusal> {
        let _place = self.room.acquire().await.map_err(|_| Refusal::Closed)?;
        if self.closing.is_cancelled() {
            return Err(Refusal::Closed);
        }
        let now = SystemTime::now();
        match self.members.txn(self.request(&txn, now)).await {
            Ok(answer) => {
                let decided = answer.header().map_or(0, |header| header.revision());
                let answers = answer.op_responses();
                match answer.succeeded() {
                    true => Ok(Arc::new(done(
                        &txn,
                        self.place.clock,
                        decided,
                        now,
                        &answers,
                    ))),
                    false => Err(conflict(&txn, self.place.clock, decided, &answers)),
                }
            }
            Err(Failure::Unknown(why)) => Err(Refusal::Unknown(why)),
            Err(Failure::TooLarge(why)) => Err(Refusal::TooLarge(why)),
            Err(failure) => Err(Refusal::Unavailable(failure.to_string())),
        }
    }

    async fn fence(&self) -> Result<Revision, EngineError> {
        let read = async {
            let head = load::head(&self.members, &self.place).await;
            head.map(|(_, newest)| newest)
        };
        let newest = self.fences.ask(read).await;
        newest.map_err(|failure| EngineError::Failed(failure.to_string()))
    }

    fn compact(&self, floor: Revision) {
        self.floor.send_if_modified(|known| {
            let higher = floor > *known;
            *known = floor.max(*known);
            higher
        });
    }

    async fn close(&self) {
        self.closing.cancel();
        self.room.close();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // Only a panic could be told here, and it has been.
            let _ = task.await;
        }
    }
}

/// Founds the store if there is none; its version.
async fn found(members: &Members, names: &Names) -> Result<String, Failure> {
    let absent = EtcdCompare::version(names.version(), CompareOp::Equal, 0);
    let now = millis(SystemTime::now()).to_string();
    let txn = EtcdTxn::new()
        .when([absent])
        .and_then([
            TxnOp::put(names.version(), VERSION.to_string(), None),
            TxnOp::put(names.offset(), "0", None),
            TxnOp::put(names.head(), now, None),
        ])
        .or_else([TxnOp::get(names.version(), None)]);
    let answer = match members.txn(txn).await {
        Ok(answer) => answer,
        // Whether it was founded is what is asked next.
        Err(Failure::Unknown(_)) => {
            let found = members.get(&names.version(), GetOptions::new()).await?;
            return version(found.kvs());
        }
        Err(failure) => return Err(failure),
    };
    match (answer.succeeded(), answer.op_responses().first()) {
        (false, Some(TxnOpResponse::Get(found))) => version(found.kvs()),
        _ => Ok(VERSION.to_string()),
    }
}

fn version(kvs: &[KeyValue]) -> Result<String, Failure> {
    let kv = kvs.first();
    kv.map(|kv| String::from_utf8_lossy(kv.value()).into_owned())
        .ok_or_else(|| Failure::NotDone("the store could not be founded".to_owned()))
}

fn compare(name: &str, compare: Compare, clock: Clock) -> Option<EtcdCompare> {
    match compare {
        Compare::Any => None,
        Compare::Absent => Some(EtcdCompare::version(name, CompareOp::Equal, 0)),
        Compare::Present => Some(EtcdCompare::version(name, CompareOp::Greater, 0)),
        Compare::At(at) => Some(EtcdCompare::mod_revision(
            name,
            CompareOp::Equal,
            clock.number(at),
        )),
    }
}

/// What a transaction did that happened at `decided`. Of what it put nobody knows here when the key
/// came to be; the events tell.
fn done(
    txn: &Txn,
    clock: Clock,
    decided: i64,
    now: SystemTime,
    answers: &[TxnOpResponse],
) -> Change {
    let decided = clock.of(decided);
    let mut answers = answers.iter();
    let mut writes = Vec::new();
    for op in &txn.ops {
        match &op.action {
            Action::Check => {}
            Action::Put(draft) => {
                answers.next();
                writes.push(Write::Put(Record {
                    key: op.key.clone(),
                    value: draft.finish(decided),
                    revision_at: draft.revision_at(),
                    created: decided,
                    modified: decided,
                }));
            }
            Action::Delete => {
                let gone = |answer: &TxnOpResponse| matches!(answer, TxnOpResponse::Delete(d) if d.deleted() > 0);
                if answers.next().is_some_and(gone) {
                    writes.push(Write::Delete(op.key.clone()));
                }
            }
        }
    }
    let revision = match answers.next() {
        Some(TxnOpResponse::Get(head)) => of_head(head.kvs(), clock),
        _ => decided,
    };
    Change {
        revision,
        time: now,
        writes,
    }
}

/// Which comparison did not hold.
fn conflict(txn: &Txn, clock: Clock, decided: i64, answers: &[TxnOpResponse]) -> Refusal {
    let decided = clock.of(decided);
    let looked = |answer: &TxnOpResponse| match answer {
        TxnOpResponse::Get(found) => of_head(found.kvs(), clock),
        _ => Revision::ZERO,
    };
    let at = answers.last().map_or(decided, looked);
    let mut present = answers.iter().map(looked);
    let mut compared = txn.ops.iter().filter(|op| op.compare != Compare::Any);
    let failed = compared.find(|op| {
        let modified = present.next().unwrap_or(Revision::ZERO);
        match op.compare {
            Compare::Any => false,
            Compare::Absent => modified > Revision::ZERO,
            Compare::Present => modified == Revision::ZERO,
            Compare::At(revision) => modified != revision,
        }
    });
    match failed.or(txn.ops.first()) {
        Some(op) => Refusal::Conflict {
            key: op.key.clone(),
            at,
        },
        None => Refusal::Unavailable("an empty transaction was refused".to_owned()),
    }
}

/// The revision that wrote the key that was looked at; zero when it is absent.
fn of_head(kvs: &[KeyValue], clock: Clock) -> Revision {
    kvs.first()
        .map_or(Revision::ZERO, |kv| clock.of(kv.mod_revision()))
}
