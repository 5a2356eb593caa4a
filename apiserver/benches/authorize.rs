//! What a decision by roles costs: `cargo bench -p peapod-apiserver`.
//!
//! The default roles and bindings, and 10,000 users with a binding each in one of 100 namespaces;
//! the mean time of a decision is printed for several askers.

use std::hint::black_box;
use std::time::Instant;

use peapod_apiserver::auth::action::{Access, Action};
use peapod_apiserver::auth::rbac::index::{Index, Place};
use peapod_apiserver::auth::rbac::policy;
use peapod_apiserver::auth::user::User;
use serde_json::{Value, json};

const USERS: usize = 10_000;
const NAMESPACES: usize = 100;
const TURNS: u32 = 200_000;

fn put(index: &mut Index, object: &Value) {
    let meta = &object["metadata"];
    let place = Place {
        namespace: meta["namespace"].as_str().unwrap_or_default(),
        name: meta["name"].as_str().unwrap_or_default(),
    };
    let json = object.to_string().into_bytes();
    let taken = match object["roleRef"].is_null() {
        true => index.put_role(place, &json),
        false => index.put_binding(place, &json),
    };
    taken.expect("the objects are well-formed");
}

fn world() -> Index {
    let mut index = Index::default();
    for object in policy::objects() {
        put(&mut index, object);
    }
    for user in 0..USERS {
        let name = format!("user-{user}");
        let binding = json!({
            "metadata": {"name": name, "namespace": format!("ns-{}", user % NAMESPACES)},
            "roleRef": {"kind": "ClusterRole", "name": "system:aggregate-to-edit"},
            "subjects": [{"kind": "User", "name": name}],
        });
        put(&mut index, &binding);
    }
    index
}

fn main() {
    let index = world();
    let access = |verb, group, resource, namespace| Access {
        verb,
        group,
        resource,
        namespace,
        ..Access::default()
    };
    let user = User::authenticated("user-17", ["team-a", "team-b", "team-c"]);
    let scheduler = User::authenticated("system:kube-scheduler", [""; 0]);
    let controllers = User::authenticated("system:kube-controller-manager", [""; 0]);
    for (what, user, access) in [
        (
            "a user who may",
            &user,
            access("update", "apps", "deployments", "ns-17"),
        ),
        (
            "a user who may not",
            &user,
            access("update", "apps", "deployments", "ns-18"),
        ),
        (
            "the scheduler",
            &scheduler,
            access("update", "", "pods", "ns-17"),
        ),
        (
            "the controllers",
            &controllers,
            access("update", "policy", "poddisruptionbudgets", "ns-17"),
        ),
    ] {
        let action = Action::Resource(access);
        let started = Instant::now();
        for _ in 0..TURNS {
            let decide = |grant: peapod_apiserver::auth::rbac::index::Grant<'_>| {
                grant.rule.allows(&action).then(|| grant.to_string())
            };
            black_box(index.find(black_box(user), access.namespace, decide));
        }
        let each = started.elapsed() / TURNS;
        println!("{what:<20} {:>6.2} us", each.as_secs_f64() * 1e6);
    }
}
