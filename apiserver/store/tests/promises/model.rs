//! The store against a model that keeps every state it ever had: random transactions, watches,
//! reads of the past, compactions and restarts must come to the same.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use crate::common::*;
use peapod_store::{CommitError, Compare, Limits, Revision, Txn, Watch};

const KEYS: [&str; 5] = ["a/x", "a/y", "b/x", "b/y", "c/x"];
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(usize, Condition, Deed)>),
    Compact(u64),
    ReadAt(u64),
    Watch {
        from: u64,
        node: Option<usize>,
        namespace: Option<usize>,
    },
    DrainWatches,
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum Condition {
    Any,
    Absent,
    Present,
    AsItIs,
    AsItWas,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Put(usize),
    Delete,
    Check,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let condition = prop_oneof![
        4 => Just(Condition::Any),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
        2 => Just(Condition::AsItIs),
        1 => Just(Condition::AsItWas),
    ];
    let deed = prop_oneof![
        5 => (0..NODES.len()).prop_map(Deed::Put),
        2 => Just(Deed::Delete),
        1 => Just(Deed::Check),
    ];
    let op = (0..KEYS.len(), condition, deed);
    let step = prop_oneof![
        12 => prop::collection::vec(op, 1..4).prop_map(Step::Commit),
        1 => any::<u64>().prop_map(Step::Compact),
        2 => any::<u64>().prop_map(Step::ReadAt),
        2 => (any::<u64>(), prop::option::of(0..NODES.len()), prop::option::of(0..2usize))
            .prop_map(|(from, node, namespace)| Step::Watch { from, node, namespace }),
        2 => Just(Step::DrainWatches),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// Keys with their node and revision.
type State = BTreeMap<&'static str, (&'static str, u64)>;

/// Everything that ever was.
struct Model {
    /// The state at each revision, beginning with none at 0.
    states: Vec<State>,
    /// What each revision did, as the events show it, with node before and after.
    events: Vec<Vec<Happened>>,
    floor: u64,
}

#[derive(Debug, Clone)]
struct Happened {
    shown: String,
    namespace: &'static str,
    nodes: [Option<&'static str>; 2],
}

struct Watching {
    watch: Watch<Meta>,
    expected: Box<dyn Fn(&Happened) -> bool>,
    /// The next revision whose events it will see.
    next: u64,
}

// === impl Model ===

impl Model {
    fn new() -> Self {
        Self {
            states: vec![State::new()],
            events: vec![Vec::new()],
            floor: 0,
        }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    /// Carries out the operations; the key of the first failed condition if there is one.
    fn commit(&mut self, ops: &[(&'static str, Compare, Deed)]) -> Result<u64, &'static str> {
        let now = self.now();
        let fails = |(key, compare, _): &&(&'static str, Compare, Deed)| match compare {
            Compare::Any => false,
            Compare::Absent => now.contains_key(key),
            Compare::Present => !now.contains_key(key),
            Compare::At(at) => now
                .get(key)
                .is_none_or(|(_, revision)| Revision(*revision) != *at),
        };
        if let Some((key, ..)) = ops.iter().find(fails) {
            return Err(key);
        }
        let revision = self.revision() + 1;
        let mut state = now.clone();
        let mut events = Vec::new();
        for &(key, _, deed) in ops {
            let before = state.get(key).map(|(node, _)| *node);
            let (sign, node) = match (deed, before) {
                (Deed::Put(node), None) => ('+', NODES[node]),
                (Deed::Put(node), Some(_)) => ('~', NODES[node]),
                (Deed::Delete, Some(node)) => ('-', node),
                (Deed::Delete, None) | (Deed::Check, _) => continue,
            };
            if sign == '-' {
                state.remove(key)
            } else {
                state.insert(key, (node, revision))
            };
            events.push(Happened {
                shown: format!("{sign}{key}@{revision} on={node} rv={revision}"),
                namespace: &key[..1],
                nodes: [before, Some(node)],
            });
        }
        if events.is_empty() {
            return Ok(self.revision());
        }
        self.states.push(state);
        self.events.push(events);
        Ok(revision)
    }

    fn shown(&self, revision: u64) -> Vec<(String, String)> {
        let state = self.states[revision as usize].iter();
        state
            .map(|(key, (node, at))| (format!("/core/pods/{key}"), format!("on={node} rv={at}")))
            .collect()
    }
}

/// What a run needs: the store, and how to open it again.
struct Run<'d> {
    store: TestStore,
    dir: Option<&'d Path>,
    model: Model,
    watches: Vec<Watching>,
}

impl Run<'_> {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(ops) => self.commit(ops).await,
            Step::Compact(pick) => {
                let to = pick % (self.model.revision() + 1);
                self.model.floor = self.model.floor.max(to);
                assert_eq!(self.store.compact(Revision(to)).0, self.model.floor);
            }
            Step::ReadAt(pick) => self.read_at(pick % (self.model.revision() + 2)),
            Step::Watch {
                from,
                node,
                namespace,
            } => self.watch(from, node, namespace),
            Step::DrainWatches => self.drain().await,
            Step::Restart => self.restart().await,
        }
        assert_eq!(self.store.revision().0, self.model.revision());
        assert_eq!(
            content(&self.store),
            self.model.shown(self.model.revision())
        );
        for node in NODES {
            let found = self.store.snapshot(&pods()).select(NODE, node).count();
            assert_eq!(
                found,
                self.model
                    .now()
                    .values()
                    .filter(|(on, _)| *on == node)
                    .count()
            );
        }
    }

    async fn commit(&mut self, ops: Vec<(usize, Condition, Deed)>) {
        let mut seen = std::collections::BTreeSet::new();
        let ops: Vec<_> = ops
            .into_iter()
            .filter(|(key, ..)| seen.insert(*key))
            .collect();
        let ops: Vec<_> = ops
            .into_iter()
            .map(|(key, condition, deed)| {
                let at = self
                    .model
                    .now()
                    .get(KEYS[key])
                    .map_or(0, |(_, revision)| *revision);
                let compare = match condition {
                    Condition::Any => Compare::Any,
                    Condition::Absent => Compare::Absent,
                    Condition::Present => Compare::Present,
                    Condition::AsItIs => Compare::At(Revision(at)),
                    Condition::AsItWas => Compare::At(Revision(at.saturating_sub(1))),
                };
                (KEYS[key], compare, deed)
            })
            .collect();
        let txn = ops
            .iter()
            .fold(Txn::new(), |txn, (key, compare, deed)| match deed {
                Deed::Put(node) => txn.put(pod(key), *compare, on(NODES[*node])),
                Deed::Delete => txn.delete(pod(key), *compare),
                Deed::Check => txn.check(pod(key), *compare),
            });
        match (self.store.commit(txn).await, self.model.commit(&ops)) {
            (Ok(committed), Ok(revision)) => assert_eq!(committed.revision().0, revision),
            (Err(CommitError::Conflict { key, .. }), Err(expected)) => {
                assert_eq!(key, pod(expected));
            }
            (store, model) => panic!("the store says {store:?}, the model {model:?}"),
        }
    }

    fn read_at(&self, revision: u64) {
        let read = self.store.at(&pods(), Revision(revision));
        let within = (self.model.floor..=self.model.revision()).contains(&revision);
        assert_eq!(read.is_ok(), within, "at {revision}");
        if let Ok(snapshot) = read {
            let expected = self.model.shown(revision);
            let expected: Vec<_> = expected.iter().map(|(key, _)| &key[11..]).collect();
            assert_eq!(names(&snapshot), expected);
        }
    }

    fn watch(&mut self, from: u64, node: Option<usize>, namespace: Option<usize>) {
        let from = from % (self.model.revision() + 2);
        let namespace = namespace.map(|pick| ["a", "b"][pick]);
        let node = node.map(|pick| NODES[pick]);
        let mut interest = all_pods();
        if let Some(node) = node {
            interest = interest.index(NODE, node);
        }
        if let Some(namespace) = namespace {
            interest = interest.namespace(namespace);
        }
        let watch = self.store.watch(interest, Revision(from));
        assert_eq!(watch.is_ok(), from >= self.model.floor);
        let Ok(watch) = watch else { return };
        let expected = Box::new(move |happened: &Happened| {
            namespace.is_none_or(|namespace| happened.namespace == namespace)
                && node.is_none_or(|node| happened.nodes.contains(&Some(node)))
        });
        self.watches.push(Watching {
            watch,
            expected,
            next: from + 1,
        });
    }

    async fn drain(&mut self) {
        let newest = self.model.revision();
        for mut watching in std::mem::take(&mut self.watches) {
            let missed = (watching.next..=newest).flat_map(|r| &self.model.events[r as usize]);
            let expected: Vec<_> = missed
                .filter(|e| (watching.expected)(e))
                .map(|e| e.shown.clone())
                .collect();
            let mut seen = Vec::new();
            let ended = loop {
                match futures::poll!(std::pin::pin!(watching.watch.next())) {
                    std::task::Poll::Ready(Ok(event)) => seen.push(show(&event)),
                    std::task::Poll::Ready(Err(_)) => break true,
                    std::task::Poll::Pending => break false,
                }
            };
            if ended {
                // It had fallen behind what was compacted; what it saw until then was in order.
                assert!(expected.starts_with(&seen) && watching.next <= self.model.floor);
            } else {
                assert_eq!(seen, expected);
                assert!(watching.watch.progress().0 >= newest);
                watching.next = watching.next.max(newest + 1);
                self.watches.push(watching);
            }
        }
    }

    async fn restart(&mut self) {
        let Some(dir) = self.dir else { return };
        self.watches.clear();
        self.store.close().await;
        let limits = Limits {
            watch_queue: 3,
            ..Limits::default()
        };
        let config = peapod_store::SledConfig::new(dir);
        let (store, recovery) = open_with(config, limits).await.unwrap();
        assert_eq!(recovery, None);
        // The floor is written with the next change, so it may be an older one again.
        assert!(store.oldest().0 <= self.model.floor);
        self.model.floor = store.oldest().0;
        self.store = store;
    }
}

fn run(steps: Vec<Step>, on_disk: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            watch_queue: 3,
            ..Limits::default()
        };
        let (store, dir) = if on_disk {
            (sled_store(dir.path()).await.0, Some(dir.path()))
        } else {
            (memory_store(limits).await, None)
        };
        let mut run = Run {
            store,
            dir,
            model: Model::new(),
            watches: Vec::new(),
        };
        for step in steps {
            run.step(step).await;
        }
        run.drain().await;
        run.store.close().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn in_memory_it_is_what_the_model_is(steps in steps()) {
        run(steps, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn on_disk_it_is_what_the_model_is_over_restarts(steps in steps()) {
        run(steps, true);
    }
}
