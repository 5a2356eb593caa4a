//! The objects that every cluster's flow control begins with: upstream's, by name and content.
//!
//! Mandatory ones are always as they stand here; suggested ones may be taken over by who
//! annotates them. <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::GROUP;
use crate::auth::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};

/// Whether an object's spec follows this table: `"true"` or `"false"`.
pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// The schema, and the level, of what is never made to wait.
pub const EXEMPT: &str = "exempt";
/// The schema, and the level, of what nothing else matches.
pub const CATCH_ALL: &str = "catch-all";

const NODES: &str = "system:nodes";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// All objects: priority levels, then the schemas that name them.
pub fn objects() -> &'static [Value] {
    static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(|| [levels(), schemas()].concat());
    &OBJECTS
}

/// Whether nobody may change an object.
pub fn is_mandatory(name: &str) -> bool {
    name == EXEMPT || name == CATCH_ALL
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}},
        "spec": spec,
    })
}

fn levels() -> Vec<Value> {
    let level = |name, spec| object("PriorityLevelConfiguration", name, spec);
    let queued = |name, shares: u32, lendable: u32, queues: u32, hand: u32| {
        let response = json!({
            "type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
        });
        level(
            name,
            json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": shares,
                "lendablePercent": lendable,
                "limitResponse": response,
            }}),
        )
    };
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let rejecting = json!({
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
    });
    vec![
        level(EXEMPT, json!({"type": "Exempt", "exempt": exempt})),
        level(CATCH_ALL, json!({"type": "Limited", "limited": rejecting})),
        queued("system", 30, 33, 64, 6),
        queued("node-high", 40, 25, 64, 6),
        queued("leader-election", 10, 0, 16, 4),
        queued("workload-high", 40, 50, 128, 6),
        queued("workload-low", 100, 90, 128, 6),
        queued("global-default", 20, 50, 128, 6),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
    names.iter().map(group).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    let user = |name: &&str| json!({"kind": "User", "user": {"name": name}});
    names.iter().map(user).collect()
}

fn system_accounts(names: &[&str]) -> Vec<Value> {
    let account = |name: &&str| {
        let account = json!({"name": name, "namespace": "kube-system"});
        json!({"kind": "ServiceAccount", "serviceAccount": account})
    };
    names.iter().map(account).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"],
    });
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Whatever some subjects do.
fn everything(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn schemas() -> Vec<Value> {
    let schema = |name: &str, level: &str, precedence: u32, method: &str, rule: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": [rule],
        });
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        object("FlowSchema", name, spec)
    };
    let all = [UNAUTHENTICATED, AUTHENTICATED];
    let writes = ["get", "create", "update"];
    let leases = json!([resources(
        &writes,
        "coordination.k8s.io",
        &["leases"],
        false
    )]);
    let electing = [
        users(&[CONTROLLER_MANAGER, SCHEDULER]),
        system_accounts(&["*"]),
    ]
    .concat();
    let probes = json!({
        "subjects": groups(&all),
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},
        ],
    });
    let node_high = json!({
        "subjects": groups(&[NODES]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false),
        ],
    });
    let accounts = ["endpoint-controller", "endpointslicemirroring-controller"];
    let of_endpoints = [users(&[CONTROLLER_MANAGER]), system_accounts(&accounts)].concat();
    let endpoints = json!({
        "subjects": of_endpoints,
        "resourceRules": [resources(&writes, "", &["endpoints"], false)],
    });
    let of_user = |name| everything(users(&[name]));
    vec![
        schema(EXEMPT, EXEMPT, 1, "", everything(groups(&[MASTERS]))),
        schema("probes", EXEMPT, 2, "", probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            json!({"subjects": electing, "resourceRules": leases}),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            endpoints,
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            json!({"subjects": system_accounts(&["*"]), "resourceRules": leases}),
        ),
        schema("system-node-high", "node-high", 400, "ByUser", node_high),
        schema(
            "system-nodes",
            "system",
            500,
            "ByUser",
            everything(groups(&[NODES])),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            of_user(CONTROLLER_MANAGER),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            of_user(SCHEDULER),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(system_accounts(&["*"])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&[SERVICE_ACCOUNTS])),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            "ByUser",
            everything(groups(&all)),
        ),
        schema(
            CATCH_ALL,
            CATCH_ALL,
            10_000,
            "ByUser",
            everything(groups(&all)),
        ),
    ]
}
