//! What a `BgpPeer` asks for besides the neighbour, with FRR on the other end.

mod support;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use support::leaf::{Leaf, patiently, route};
use support::{NODE_V4, Node, OUTSIDE};

/// The node's block.
const BLOCK: &str = "10.244.1.0/24";
/// Prefixes that the leaf announces.
const BEYOND: &str = "198.51.100.0/24";
const FARTHER: &str = "198.51.101.0/24";
/// An address of a load balancer.
const BALANCER: &str = "203.0.113.9";

const LEAF: &str = "
hostname leaf1
ip route 198.51.100.0/24 blackhole
ip route 198.51.101.0/24 blackhole
router bgp 65000
 bgp router-id 192.0.2.10
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as external
 neighbor 192.0.2.1 timers connect 1
 address-family ipv4 unicast
  network 198.51.100.0/24
  network 198.51.101.0/24
 exit-address-family
";

fn node() -> Node {
    let node = Node::start();
    node.api.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "uid": "u"}}));
    node
}

/// The neighbour outside, with further fields of its spec.
fn peer(node: &Node, more: Value) {
    let mut peer = json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
        "metadata": {"name": "leaf"},
        "spec": {"address": OUTSIDE, "remoteAs": 65000, "timers": {"connectRetrySeconds": 1}}});
    for (key, value) in more.as_object().unwrap() {
        peer["spec"][key] = value.clone();
    }
    node.api.put(peer);
}

fn secret(node: &Node, data: Value) {
    node.api.put(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"namespace": "kube-system", "name": "bgp"}, "data": data}));
}

/// The one session, as the API is told of it.
fn session(node: &Node) -> Value {
    let told = node.api.get("BgpNode", "/here").unwrap_or_default();
    told["status"]["sessions"][0].clone()
}

#[test]
fn sessions_are_signed_with_what_the_secret_says() {
    let node = node();
    let leaf = Leaf::start(&node.outside, LEAF);
    leaf.configure(&["router bgp 65000", "neighbor 192.0.2.1 password first"]);
    peer(&node, json!({"auth": {"secretRef": {"name": "bgp"}}}));
    patiently("the missing secret is named", || {
        session(&node)["lastError"] == "Secret kube-system/bgp does not exist"
    });
    assert_eq!(session(&node)["state"], "Idle");
    // `first`, under another name than is asked for.
    secret(&node, json!({"other": "Zmlyc3Q="}));
    patiently("the missing key is named", || {
        session(&node)["lastError"] == "Secret kube-system/bgp has no key \"password\""
    });
    // A password that the leaf does not have.
    secret(&node, json!({"password": "d3Jvbmc="}));
    patiently("a session is tried in vain", || {
        let state = session(&node)["state"].clone();
        state == "Connect" || state == "Active"
    });
    assert!(!leaf.routes(BLOCK), "nothing is said to whom does not sign");
    secret(&node, json!({"password": "Zmlyc3Q="}));
    patiently("the right password leads to a session", || {
        leaf.routes(BLOCK) && !route(&node.here, BEYOND).is_empty()
    });
    // It is changed: here first, then there.
    secret(&node, json!({"password": "c2Vjb25k"}));
    patiently("the session ends", || {
        session(&node)["state"] != "Established"
    });
    leaf.configure(&["router bgp 65000", "neighbor 192.0.2.1 password second"]);
    patiently("and comes back with the new one", || {
        session(&node)["state"] == "Established" && leaf.routes(BLOCK)
    });
    // Without the secret there is no session, and why is told.
    node.api.delete("Secret", "kube-system/bgp");
    patiently("the session ends with the secret", || {
        session(&node)["state"] == "Idle" && !leaf.routes(BLOCK)
    });
    assert_eq!(
        session(&node)["lastError"],
        "Secret kube-system/bgp does not exist"
    );
    // Neither end wants a signature any more.
    peer(&node, json!({"auth": null}));
    leaf.configure(&["router bgp 65000", "no neighbor 192.0.2.1 password"]);
    patiently("the session is up unsigned", || {
        session(&node)["state"] == "Established" && leaf.routes(BLOCK)
    });
}

fn bgp_config(node: &Node, spec: Value) {
    node.api.put(
        json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpConfig",
        "metadata": {"name": "default"}, "spec": spec}),
    );
}

/// The communities of a prefix at the leaf, large ones included, and its AS path.
fn tagged(leaf: &Leaf, prefix: &str) -> (String, String) {
    let path = &leaf.bgp(prefix)["paths"][0];
    let text = |value: &Value| value["string"].as_str().unwrap_or_default().to_owned();
    let all = [&path["community"], &path["largeCommunity"]].map(text);
    (all.join(" ").trim().to_owned(), text(&path["aspath"]))
}

#[test]
fn what_goes_out_and_comes_in_follows_policies() {
    let node = node();
    let leaf = Leaf::start(&node.outside, LEAF);
    let server = node.server("server");
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER]}));
    node.endpoints(&[&server]);
    bgp_config(
        &node,
        json!({"announce": {"communities": ["65000:1", "4200000000:1:2"]}}),
    );
    peer(&node, json!({}));
    patiently("communities stand on all", || {
        let all = ("65000:1 4200000000:1:2".to_owned(), "64512".to_owned());
        tagged(&leaf, BLOCK) == all && tagged(&leaf, &format!("{BALANCER}/32")) == all
    });
    patiently("all is taken", || {
        !route(&node.here, BEYOND).is_empty() && !route(&node.here, FARTHER).is_empty()
    });
    // The session goes on while its policies change.
    let since = session(&node)["since"].clone();
    let block = json!({"prefixes": [{"prefix": "10.244.0.0/16", "le": 32}]});
    let far = json!({"prefixes": [{"prefix": FARTHER}]});
    peer(
        &node,
        json!({
            "export": {"statements": [
                {"match": block, "set": {"addCommunities": ["no-export"], "prepend": 2}}]},
            "import": {"statements": [{"match": far, "action": "reject"}], "default": "accept"},
        }),
    );
    patiently("only the block is told, with what was set", || {
        !leaf.routes(BALANCER)
            && tagged(&leaf, BLOCK)
                == (
                    "65000:1 no-export 4200000000:1:2".to_owned(),
                    "64512 64512 64512".to_owned(),
                )
    });
    patiently("what is refused is not used", || {
        route(&node.here, FARTHER).is_empty() && !route(&node.here, BEYOND).is_empty()
    });
    assert_eq!(session(&node)["since"], since);
    // Without policies all is as before.
    peer(&node, json!({}));
    patiently("all goes out and comes in", || {
        leaf.routes(BALANCER) && !route(&node.here, FARTHER).is_empty()
    });
}

/// What the agent's metrics say, by the beginning of their lines.
struct Scrape(String);

impl Scrape {
    fn of(node: &Node) -> Self {
        let (mut registry, mut text) = (Registry::default(), String::new());
        node.netd().register_metrics(&mut registry);
        text::encode(&mut text, &registry).unwrap();
        Scrape(text)
    }

    fn get(&self, name: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no {name} in\n{}", self.0))
    }
}

#[test]
fn what_the_kernel_refuses_is_told_and_tried_again() {
    let node = node();
    let leaf = Leaf::start(&node.outside, LEAF);
    peer(&node, json!({}));
    patiently("all is taken", || {
        !route(&node.here, BEYOND).is_empty() && !route(&node.here, FARTHER).is_empty()
    });
    let condition = || {
        let told = node.api.get("BgpNode", "/here").unwrap_or_default();
        told["status"]["conditions"][0].clone()
    };
    patiently("the kernel has all", || condition()["status"] == "True");
    // The leaf may tell the node of its own block, too.
    for (name, least) in [
        ("peapod_bgp_sessions{state=\"Established\"}".to_owned(), 1.0),
        (labelled("received_prefixes"), 2.0),
        (labelled("accepted_prefixes"), 2.0),
        (labelled("advertised_prefixes"), 1.0),
    ] {
        patiently(&format!("{name} is {least}"), || {
            Scrape::of(&node).get(&name) >= least
        });
    }
    let converged = Scrape::of(&node).get("peapod_bgp_convergence_seconds_count");
    assert!(
        converged >= 1.0,
        "{converged} batches of routes are in the kernel"
    );
    // Routes come from an address that the node does not have any more.
    node.here.ip(&format!("address del {NODE_V4}/32 dev lo"));
    patiently("the refusal is told", || {
        let told = condition();
        let message = told["message"].as_str().unwrap_or_default().to_owned();
        told["status"] == "False" && message.contains("198.51.10")
    });
    patiently("and counted", || {
        Scrape::of(&node).get("peapod_bgp_fib_refused_routes") >= 1.0
    });
    node.here.ip(&format!("address add {NODE_V4}/32 dev lo"));
    patiently("the kernel has all again", || {
        condition()["status"] == "True"
            && !route(&node.here, BEYOND).is_empty()
            && !route(&node.here, FARTHER).is_empty()
    });
    let scrape = Scrape::of(&node);
    assert_eq!(scrape.get("peapod_bgp_fib_refused_routes"), 0.0);
    assert!(scrape.get("peapod_bgp_fib_audits_total") >= 1.0);
    assert_eq!(
        scrape.get("peapod_bgp_session_flaps_total{neighbor=\"192.0.2.10\"}"),
        0.0
    );
    drop(leaf);
    patiently("the lost session is counted", || {
        let lost = "peapod_bgp_session_flaps_total{neighbor=\"192.0.2.10\"}";
        Scrape::of(&node).get(lost) == 1.0
    });
}

fn labelled(what: &str) -> String {
    format!("peapod_bgp_{what}{{neighbor=\"{OUTSIDE}\",family=\"ipv4-unicast\"}}")
}
