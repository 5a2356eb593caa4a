//! Whole runs of the core in virtual time, against a pretended API: whatever happens, in whatever
//! order, no node is over-committed, nobody shares a node with a pod that it must not, and the same
//! seed gives the same run.

use std::collections::BTreeMap;
use std::time::Duration;

use peapod_scheduler::core::input::{Input, PodUpdate};
use peapod_scheduler::core::node::NodeSpec;
use peapod_scheduler::core::scheduler::{Action, Scheduler};
use peapod_scheduler::view;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

/// A pod of the pretended API.
#[derive(Clone, Debug)]
struct Pod {
    cpu: i64,
    alone: bool,
    priority: i32,
    node: Option<String>,
}

#[derive(Clone, Debug)]
enum Step {
    AddNode(u8, i64),
    RemoveNode(u8),
    AddPod(u8, i64, bool, i32),
    RemovePod(u8),
    /// Time passes; what the scheduler asked for is done, except that every n-th request fails.
    Settle(u64, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..6u8, 1..8i64).prop_map(|(n, cpu)| Step::AddNode(n, cpu)),
        1 => (0..6u8).prop_map(Step::RemoveNode),
        8 => (0..40u8, 0..4i64, any::<bool>(), 0..3i32)
            .prop_map(|(n, cpu, alone, priority)| Step::AddPod(n, cpu, alone, priority)),
        3 => (0..40u8).prop_map(Step::RemovePod),
        3 => (0..20u64, 0..4u8).prop_map(|(seconds, n)| Step::Settle(seconds, n)),
    ]
}

struct World {
    scheduler: Scheduler<StdRng>,
    nodes: BTreeMap<String, i64>,
    pods: BTreeMap<String, Pod>,
    now: Duration,
    requests: u64,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new("default-scheduler", StdRng::seed_from_u64(seed)),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            now: Duration::ZERO,
            requests: 0,
            log: Vec::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        self.scheduler.handle(input, self.now);
    }

    fn tell_pod(&mut self, name: &str) {
        let pod = &self.pods[name];
        let alone = json!({"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"alone": "true"}},
            }],
        }});
        let view: view::Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": name, "uid": name,
                         "labels": {"alone": pod.alone.to_string()}},
            "spec": {
                "nodeName": pod.node,
                "priority": pod.priority,
                "affinity": pod.alone.then_some(alone),
                "containers": [{"resources": {"requests": {"cpu": pod.cpu.to_string()}}}],
            },
        }))
        .unwrap();
        self.tell(Input::Pod(Box::new(PodUpdate::of(&view))));
    }

    fn tell_node(&mut self, name: &str) {
        let cpu = self.nodes[name].to_string();
        let view: view::Node = serde_json::from_value(json!({
            "metadata": {"labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
        }))
        .unwrap();
        let spec = Box::new(NodeSpec::of(&view));
        self.tell(Input::Node(name.to_owned(), spec));
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::AddNode(n, cpu) => {
                let name = format!("n{n}");
                if !self.nodes.contains_key(&name) {
                    self.nodes.insert(name.clone(), *cpu);
                    self.tell_node(&name);
                }
            }
            Step::RemoveNode(n) => {
                let name = format!("n{n}");
                if self.nodes.remove(&name).is_some() {
                    self.tell(Input::NodeGone(name.clone()));
                    let on = |pod: &Pod| pod.node.as_ref() == Some(&name);
                    let gone = self.pods.iter().filter(|(_, pod)| on(pod));
                    for pod in gone.map(|(pod, _)| pod.clone()).collect::<Vec<_>>() {
                        self.remove_pod(&pod);
                    }
                }
            }
            Step::AddPod(n, cpu, alone, priority) => {
                let name = format!("p{n}");
                if !self.pods.contains_key(&name) {
                    let pod = Pod {
                        cpu: *cpu,
                        alone: *alone,
                        priority: *priority,
                        node: None,
                    };
                    self.pods.insert(name.clone(), pod);
                    self.tell_pod(&name);
                }
            }
            Step::RemovePod(n) => self.remove_pod(&format!("p{n}")),
            Step::Settle(seconds, fail) => {
                self.now += Duration::from_secs(*seconds);
                self.settle(u64::from(*fail));
            }
        }
    }

    fn remove_pod(&mut self, name: &str) {
        if self.pods.remove(name).is_some() {
            self.tell(Input::PodGone(format!("default/{name}").into()));
        }
    }

    /// Decides and carries out until nothing is left to do now.
    fn settle(&mut self, fail_every: u64) {
        loop {
            while self.scheduler.step(self.now) {}
            let actions = self.scheduler.take_actions();
            if actions.is_empty() {
                return;
            }
            actions
                .into_iter()
                .for_each(|action| self.act(action, fail_every));
        }
    }

    fn act(&mut self, action: Action, fail_every: u64) {
        self.requests += 1;
        let fails = fail_every > 0 && self.requests.is_multiple_of(fail_every + 1);
        match action {
            Action::BindPod(pod, node) => {
                let name = pod.key.trim_start_matches("default/").to_owned();
                self.log.push(format!("{name} to {node}"));
                let there = self.nodes.contains_key(&*node);
                match self.pods.get_mut(&name) {
                    Some(known) if !fails && there => {
                        known.node = Some(node.to_string());
                        self.check_node(&node);
                        self.tell(Input::Bound(pod.clone()));
                        self.tell_pod(&name);
                    }
                    _ => self.tell(Input::NotBound(pod.clone())),
                }
            }
            Action::Preempt(pod, preemption, _) => {
                for (victim, _) in preemption.victims {
                    let name = victim.trim_start_matches("default/").to_owned();
                    self.log.push(format!("{name} makes room for {}", pod.key));
                    let lower = self
                        .pods
                        .get(&name)
                        .is_none_or(|v| v.priority < pod.priority);
                    assert!(lower, "{name} is as important as {}", pod.key);
                    match fails {
                        true => self.tell(Input::NotPreempted(victim)),
                        false => self.remove_pod(&name),
                    }
                }
            }
            Action::Unschedulable(pod, message, _) => {
                self.log.push(format!("{}: {message}", pod.key));
            }
            Action::Unnominate(_) => {}
            Action::BindClaims(..) | Action::Gated(_) => unreachable!("no pod has these"),
        }
    }

    fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        let pods = self.pods.values();
        pods.filter(move |pod| pod.node.as_deref() == Some(node))
    }

    /// A binding was carried out on this node: its promises must hold.
    fn check_node(&self, node: &str) {
        let asked: i64 = self.on(node).map(|pod| pod.cpu).sum();
        assert!(asked <= self.nodes[node], "{node} is over-committed");
        let alone = self.on(node).filter(|pod| pod.alone).count();
        assert!(
            alone <= 1,
            "{alone} pods that want to be alone are on {node}"
        );
    }

    /// After a long time without failures, nobody waits who fits somewhere.
    fn check_nobody_waits_in_vain(&mut self) {
        for _ in 0..4 {
            self.now += Duration::from_secs(3600);
            self.settle(0);
        }
        for pod in self.pods.values().filter(|pod| pod.node.is_none()) {
            for (node, cpu) in &self.nodes {
                let asked: i64 = self.on(node).map(|other| other.cpu).sum();
                let apart = !pod.alone || self.on(node).all(|other| !other.alone);
                let fits = apart && (pod.cpu == 0 || asked + pod.cpu <= *cpu);
                assert!(!fits, "{pod:?} waits although it fits {node}");
            }
        }
    }
}

fn run(steps: &[Step], seed: u64) -> World {
    let mut world = World::new(seed);
    steps.iter().for_each(|step| world.take(step));
    world.check_nobody_waits_in_vain();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold(steps in proptest::collection::vec(step(), 1..80), seed in any::<u64>()) {
        run(&steps, seed);
    }

    #[test]
    fn the_same_seed_gives_the_same_run(
        steps in proptest::collection::vec(step(), 1..40),
        seed in any::<u64>(),
    ) {
        prop_assert_eq!(run(&steps, seed).log, run(&steps, seed).log);
    }
}

/// A pod that nothing helps is not tried again before something changes.
#[test]
fn idle_is_idle() {
    let mut world = World::new(1);
    world.take(&Step::AddNode(0, 1));
    world.take(&Step::AddPod(0, 3, false, 0));
    world.settle(0);
    let said = world.log.len();
    world.take(&Step::AddNode(1, 2));
    world.take(&Step::Settle(60, 0));
    assert_eq!(
        world.log.len(),
        said,
        "a node on which it does not fit does not wake it"
    );
    world.take(&Step::AddNode(2, 4));
    world.take(&Step::Settle(60, 0));
    assert_eq!(world.log.last().unwrap(), "p0 to n2");
}

/// The answer about a pod that is gone is not taken for one about its namesake.
#[test]
fn a_late_answer_is_not_for_the_namesake() {
    let pod = |uid: &str| {
        let view: view::Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web", "uid": uid},
            "spec": {"containers": [{}]},
        }))
        .unwrap();
        Input::Pod(Box::new(PodUpdate::of(&view)))
    };
    let bind = |world: &mut World| {
        while world.scheduler.step(world.now) {}
        match world.scheduler.take_actions().pop() {
            Some(Action::BindPod(pod, _)) => pod,
            other => panic!("no binding but {other:?}"),
        }
    };
    let mut world = World::new(1);
    world.take(&Step::AddNode(0, 4));
    world.tell(pod("first"));
    let first = bind(&mut world);
    world.tell(Input::PodGone(first.key.clone()));
    world.tell(pod("second"));
    world.tell(Input::Bound(first));
    let second = bind(&mut world);
    assert_eq!(&*second.uid, "second");
    world.tell(Input::NotBound(second));
    world.now += Duration::from_secs(60);
    assert_eq!(&*bind(&mut world).uid, "second", "it was forgotten");
}
