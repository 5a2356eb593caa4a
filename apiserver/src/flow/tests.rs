//! The pure parts, and a level at work.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::bootstrap;
use super::level::{Ledger, Level, Refused, Setup};
use super::maintain::{Step, dangling, step};
use super::meters::Meters;
use super::queues::{Queues, Settings, hand};
use super::schema::{self, Schema};
use super::shares::{self, Bounds, Holding};
use crate::auth::action::{Access, Action};
use crate::auth::user::User;
use crate::registry::value;

fn of_kind(kind: &'static str) -> impl Iterator<Item = &'static Value> {
    bootstrap::objects()
        .iter()
        .filter(move |one| one["kind"] == kind)
}

fn classified(user: &User, action: &Action<'_>) -> (String, String) {
    let mut schemas: Vec<Schema> = of_kind("FlowSchema").map(Schema::of).collect();
    schema::sort(&mut schemas);
    let found = schemas
        .iter()
        .find(|one| one.matches(user, action))
        .unwrap();
    (found.name.clone(), found.level.clone())
}

#[test]
fn requests_of_a_new_cluster_are_classified_as_upstreams() {
    let access = |verb, group, resource, subresource, namespace| {
        Action::Resource(Access {
            verb,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            ..Access::default()
        })
    };
    let node = User::authenticated("system:node:n", ["system:nodes"]);
    let account = |namespace: &str, name: &str| {
        let groups = ["system:serviceaccounts".to_owned()];
        User::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), groups)
    };
    let nobody: [&str; 0] = [];
    let manager = User::authenticated("system:kube-controller-manager", nobody);
    let admin = User::authenticated("root", ["system:masters"]);
    let person = User::authenticated("ann", nobody);
    let lease = access("update", "coordination.k8s.io", "leases", "", "kube-system");
    let probe = |path| Action::Path { verb: "get", path };
    for (user, action, schema, level) in [
        (
            &admin,
            access("list", "", "pods", "", ""),
            "exempt",
            "exempt",
        ),
        (&admin, probe("/metrics"), "exempt", "exempt"),
        (&User::anonymous(), probe("/readyz"), "probes", "exempt"),
        (
            &User::anonymous(),
            probe("/readyz/etcd"),
            "global-default",
            "global-default",
        ),
        (&person, probe("/livez"), "probes", "exempt"),
        (&manager, lease, "system-leader-election", "leader-election"),
        (
            &manager,
            access("list", "coordination.k8s.io", "leases", "", ""),
            "kube-controller-manager",
            "workload-high",
        ),
        (
            &manager,
            access("update", "", "endpoints", "", "x"),
            "endpoint-controller",
            "workload-high",
        ),
        (
            &account("kube-system", "any"),
            lease,
            "system-leader-election",
            "leader-election",
        ),
        (
            &account("kube-system", "any"),
            access("list", "", "pods", "", "x"),
            "kube-system-service-accounts",
            "workload-high",
        ),
        (
            &account("x", "any"),
            lease,
            "service-accounts",
            "workload-low",
        ),
        (
            &node,
            access("patch", "", "nodes", "status", ""),
            "system-node-high",
            "node-high",
        ),
        (
            &node,
            access(
                "update",
                "coordination.k8s.io",
                "leases",
                "",
                "kube-node-lease",
            ),
            "system-node-high",
            "node-high",
        ),
        (
            &node,
            access("list", "", "pods", "", ""),
            "system-nodes",
            "system",
        ),
        (
            &node,
            access("get", "", "nodes", "proxy", ""),
            "system-nodes",
            "system",
        ),
        (
            &person,
            access("get", "", "pods", "", "x"),
            "global-default",
            "global-default",
        ),
    ] {
        let expected = (schema.to_owned(), level.to_owned());
        assert_eq!(
            classified(user, &action),
            expected,
            "{} {action:?}",
            user.name()
        );
    }
}

#[test]
fn flows_are_told_apart_as_the_schema_says() {
    let schema = |method: &str| {
        Schema::of(&json!({
            "metadata": {"name": "s"},
            "spec": {"distinguisherMethod": {"type": method}},
        }))
    };
    let nobody: [&str; 0] = [];
    let (ann, bob) = (
        User::authenticated("ann", nobody),
        User::authenticated("bob", nobody),
    );
    let pods = |namespace| {
        Action::Resource(Access {
            namespace,
            ..Access::default()
        })
    };
    let by_user = schema("ByUser");
    assert_eq!(
        by_user.flow(&ann, &pods("x")),
        by_user.flow(&ann, &pods("y"))
    );
    assert_ne!(
        by_user.flow(&ann, &pods("x")),
        by_user.flow(&bob, &pods("x"))
    );
    let by_namespace = schema("ByNamespace");
    assert_eq!(
        by_namespace.flow(&ann, &pods("x")),
        by_namespace.flow(&bob, &pods("x"))
    );
    assert_ne!(
        by_namespace.flow(&ann, &pods("x")),
        by_namespace.flow(&ann, &pods("y"))
    );
    assert_eq!(
        schema("").flow(&ann, &pods("x")),
        schema("").flow(&bob, &pods("y"))
    );
}

#[test]
fn shares_of_600_seats_are_upstreams() {
    let levels: Vec<&Value> = of_kind("PriorityLevelConfiguration").collect();
    let bounds = shares::bounds(levels.iter().map(|level| &level["spec"]), 600);
    let all = levels.iter().zip(bounds).map(|(level, bounds)| {
        (
            value::text(level, "metadata.name"),
            bounds.nominal,
            bounds.lower,
        )
    });
    let expected = [
        ("exempt", 0, 0),
        ("catch-all", 13, 13),
        ("system", 74, 50),
        ("node-high", 98, 73),
        ("leader-election", 25, 25),
        ("workload-high", 98, 49),
        ("workload-low", 245, 24),
        ("global-default", 49, 24),
    ];
    assert_eq!(all.collect::<Vec<_>>(), expected);
}

fn holding((nominal, lower, upper): (u32, u32, u32), limit: u32, in_use: u32) -> Holding {
    let bounds = Bounds {
        nominal,
        lower,
        upper,
    };
    Holding {
        bounds,
        limit,
        in_use,
        waits: false,
    }
}

#[test]
fn seats_are_lent_and_come_back() {
    let busy = holding((10, 10, 100), 10, 10);
    let idle = holding((20, 5, 100), 20, 3);
    assert_eq!(
        shares::borrow(&[busy, idle], 0, 4),
        Some(vec![(1, 16), (0, 14)])
    );
    // What is kept is not lent, nor what is in use.
    assert_eq!(shares::borrow(&[busy, idle], 0, 16), None);
    let used = holding((20, 5, 100), 20, 18);
    assert_eq!(shares::borrow(&[busy, used], 0, 3), None);
    // Nobody gets more than the most that it may have.
    let capped = holding((10, 10, 12), 10, 10);
    assert_eq!(shares::borrow(&[capped, idle], 0, 3), None);
    assert_eq!(
        shares::borrow(&[capped, idle], 0, 2),
        Some(vec![(1, 18), (0, 12)])
    );
    // Who lent takes back, although the other one works on it.
    let borrower = holding((10, 10, 100), 24, 24);
    let lender = holding((20, 5, 100), 6, 6);
    assert_eq!(
        shares::borrow(&[borrower, lender], 1, 1),
        Some(vec![(0, 23), (1, 7)])
    );
    assert_eq!(shares::borrow(&[borrower, lender], 1, 15), None);
    // Who waits for seats lends none.
    let waits = Holding {
        waits: true,
        ..idle
    };
    assert_eq!(shares::borrow(&[busy, waits], 0, 1), None);
}

#[test]
fn hands_have_different_cards_and_differ() {
    let mut seen = std::collections::BTreeSet::new();
    for flow in 0..200u64 {
        let dealt = hand(flow.wrapping_mul(0x9e37_79b9_7f4a_7c15), 128, 6);
        let different: std::collections::BTreeSet<_> = dealt.iter().copied().collect();
        assert_eq!(different.len(), 6);
        assert!(dealt.iter().all(|card| *card < 128));
        seen.insert(different);
    }
    assert_eq!(seen.len(), 200, "some flows share all their queues");
    assert_eq!(hand(7, 3, 8).len(), 3);
}

/// Serves `count` turns, each of a second, one seat at a time.
fn served(queues: &mut Queues<&'static str>, count: usize) -> Vec<&'static str> {
    let mut order = Vec::new();
    for second in 0..count {
        let now = second as f64;
        let Some(turn) = queues.next(now, (0, 1)) else {
            break;
        };
        order.push(turn.ticket);
        queues.finished(now + 1.0, (turn.queue, turn.width), 1.0, (0, 1));
    }
    order
}

const WIDE: Settings = Settings {
    queues: 64,
    hand: 1,
    length: 50,
};

#[test]
fn a_heavy_flow_does_not_hold_up_a_light_one() {
    let mut queues = Queues::new(WIDE);
    for _ in 0..30 {
        queues.enqueue(0.0, (1, 1), (1, 1), "heavy").unwrap();
    }
    for _ in 0..3 {
        queues.enqueue(0.0, (2, 1), (1, 1), "light").unwrap();
    }
    let order = served(&mut queues, 33);
    assert_eq!(order.len(), 33);
    let last = order.iter().rposition(|one| *one == "light").unwrap();
    assert!(
        last <= 6,
        "the light flow waited behind the heavy one: {order:?}"
    );
}

#[test]
fn queues_are_bounded_and_left() {
    let settings = Settings { length: 2, ..WIDE };
    let mut queues = Queues::new(settings);
    let first = queues.enqueue(0.0, (1, 1), (1, 1), "a").unwrap();
    queues.enqueue(0.0, (1, 1), (1, 1), "b").unwrap();
    assert!(queues.enqueue(0.0, (1, 1), (1, 1), "c").is_err());
    queues.enqueue(0.0, (2, 1), (1, 1), "other").unwrap();
    assert!(queues.give_up(first) && !queues.give_up(first));
    assert_eq!(queues.waiting(), 2);
    // A wide one waits until it fits, and goes alone when it never will.
    let mut queues = Queues::new(settings);
    queues.enqueue(0.0, (1, 5), (4, 8), "wide").unwrap();
    assert!(queues.next(0.0, (4, 8)).is_none());
    assert!(queues.next(0.0, (3, 8)).is_some());
    queues.enqueue(0.0, (1, 9), (4, 8), "wider").unwrap();
    assert!(queues.next(0.0, (1, 8)).is_none());
    assert!(queues.next(0.0, (0, 8)).is_some());
}

#[test]
fn those_who_wait_stay_when_the_queues_change() {
    let mut queues = Queues::new(WIDE);
    for flow in 0..40 {
        queues.enqueue(0.0, (flow, 1), (1, 1), "one").unwrap();
    }
    for count in [128, 2, 0] {
        queues.set(Settings {
            queues: count,
            ..WIDE
        });
        assert_eq!(queues.waiting(), 40);
    }
    assert_eq!(served(&mut queues, 50).len(), 40);
}

fn level(seats: u32, settings: Settings) -> (Arc<Level>, Arc<Ledger>) {
    let setup = Setup {
        exempt: false,
        bounds: Bounds {
            nominal: seats,
            lower: seats,
            upper: seats,
        },
        settings,
    };
    let meters = Meters::new(&mut Registry::default());
    let level = Arc::new(Level::new("l", setup, meters.level("l")));
    let ledger = Arc::new(Ledger::default());
    ledger.set(vec![level.clone()]);
    (level, ledger)
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_full_level_makes_wait_and_turns_away() {
    let (first, ledger) = level(2, WIDE);
    let enter = |flow, width| first.enter(&ledger, (flow, width), PATIENCE);
    let one = enter(1, 1).await.ok().unwrap();
    let two = enter(1, 1).await.ok().unwrap();
    let short = first.enter(&ledger, (1, 1), Duration::from_millis(20));
    assert_eq!(short.await.err(), Some(Refused::TimedOut));
    let (third, ()) = tokio::join!(enter(2, 1), async { drop(one) });
    assert!(third.is_ok());
    // Who goes away leaves no seat behind.
    drop((two, third));
    for _ in 0..10 {
        let seats = (enter(1, 1).await, enter(2, 1).await);
        assert!(seats.0.is_ok() && seats.1.is_ok());
        let abandoned = tokio::time::timeout(Duration::from_millis(5), enter(3, 1)).await;
        assert!(abandoned.is_err());
    }
    let (strict, ledger) = level(1, Settings { queues: 0, ..WIDE });
    let _held = strict.enter(&ledger, (1, 1), PATIENCE).await.ok().unwrap();
    let refused = strict.enter(&ledger, (1, 1), PATIENCE).await.err();
    assert_eq!(refused, Some(Refused::Limit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_seat_is_lost_under_contention() {
    let (level, ledger) = level(3, WIDE);
    let most = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let now = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut all = tokio::task::JoinSet::new();
    for flow in 0..16u64 {
        let (level, ledger) = (level.clone(), ledger.clone());
        let (most, now) = (most.clone(), now.clone());
        all.spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            for round in 0..100 {
                let limit = Duration::from_secs(60);
                let seats = level.enter(&ledger, (flow, 1), limit).await;
                assert!(seats.is_ok());
                let current = now.fetch_add(1, SeqCst) + 1;
                most.fetch_max(current, SeqCst);
                if round % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, SeqCst);
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert!(most.load(std::sync::atomic::Ordering::SeqCst) <= 3);
    // All three are free again, at once.
    let enter = || level.enter(&ledger, (1, 1), Duration::ZERO);
    let seats = (enter().await, enter().await, enter().await);
    assert!(seats.0.is_ok() && seats.1.is_ok() && seats.2.is_ok());
}

#[test]
fn objects_are_maintained_as_upstream() {
    let wanted = |name: &str| {
        let mut all = of_kind("PriorityLevelConfiguration");
        all.find(|one| value::text(one, "metadata.name") == name)
            .unwrap()
            .clone()
    };
    let changed = |name: &str, annotation: Option<&str>, generation: u32| {
        let mut object = wanted(name);
        object["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
        object["metadata"]["generation"] = generation.into();
        object["metadata"]["annotations"] = match annotation {
            Some(said) => json!({bootstrap::AUTOUPDATE: said}),
            None => json!({}),
        };
        object
    };
    for (name, present, expected) in [
        ("system", None, Step::Create),
        ("system", Some(wanted("system")), Step::Keep),
        (
            "system",
            Some(changed("system", Some("true"), 2)),
            Step::Update,
        ),
        (
            "system",
            Some(changed("system", Some("false"), 2)),
            Step::Keep,
        ),
        ("system", Some(changed("system", None, 1)), Step::Update),
        ("system", Some(changed("system", None, 2)), Step::Keep),
        (
            "catch-all",
            Some(changed("catch-all", Some("false"), 2)),
            Step::Update,
        ),
    ] {
        assert_eq!(
            step(&wanted(name), present.as_ref()),
            expected,
            "{name} {present:?}"
        );
    }
}

#[test]
fn schemas_without_a_level_dangle() {
    let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}});
    assert_eq!(dangling(&schema, &["l"])["status"], "False");
    let missing = dangling(&schema, &["m"]);
    assert_eq!(missing["status"], "True");
    assert_eq!(
        missing["message"],
        "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"
    );
}
