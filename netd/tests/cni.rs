//! The agent as a CNI plugin, as a container runtime would run it.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peapod_api::attach::PodNetwork;
use peapod_api::cni::{Error, code};
use peapod_netd::cni;
use serde_json::{Value, json};
use support::{NODE_V4, Namespace, Node, OUTSIDE, UPLINK, eventually};

/// A node with an agent that answers at a socket.
struct Plugin {
    node: Node,
    socket: PathBuf,
}

impl Plugin {
    fn start() -> Self {
        let mut node = Node::without_agent();
        let socket = node.state().join("netd.sock");
        node.restart_with(|config| config.attach_socket = Some(socket.clone()));
        Self { node, socket }
    }

    fn config(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "pods", "type": "peapod-cni", "socket": self.socket})
    }

    /// Runs the plugin.
    fn run(&self, command: &str, container: &Container, config: &Value) -> Result<Value, Error> {
        let env: BTreeMap<String, String> = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &container.id),
            ("CNI_NETNS", container.netns.path().to_str().unwrap()),
            ("CNI_IFNAME", &container.interface),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let input = config.to_string();
        let done = self.node.block_on(cni::run(&env, input.as_bytes()));
        done.map(|printed| printed.unwrap_or_default())
    }

    fn add(&self, container: &Container) -> Value {
        self.run("ADD", container, &self.config()).unwrap()
    }

    /// What an ADD gave, given to another command.
    fn with(&self, key: &str, value: Value) -> Value {
        let mut config = self.config();
        config[key] = value;
        config
    }

    fn attached(&self) -> usize {
        let text = self.node.kernel();
        text.matches("alias peapod cni.").count()
    }
}

struct Container {
    id: String,
    interface: String,
    netns: Namespace,
}

impl Container {
    fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            interface: "eth0".into(),
            netns: Namespace::new(),
        }
    }
}

fn address(result: &Value, at: usize) -> String {
    let with_length = result["ips"][at]["address"].as_str().unwrap();
    with_length.split('/').next().unwrap().to_owned()
}

#[test]
fn containers_that_no_api_knows_reach_each_other_and_the_outside() {
    let plugin = Plugin::start();
    let (a, b) = (Container::new("a"), Container::new("b"));
    let (to_a, to_b) = (plugin.add(&a), plugin.add(&b));
    b.netns.serve_tcp("b", 80);
    for (server, own) in [
        (format!("{}:80", address(&to_b, 0)), address(&to_a, 0)),
        (format!("[{}]:80", address(&to_b, 1)), address(&to_a, 1)),
    ] {
        let seen = a.netns.ask_tcp(&server).unwrap();
        assert_eq!(seen, ("b".into(), own.parse().unwrap()));
    }
    let from_node = plugin
        .node
        .here
        .ask_tcp(&format!("{}:80", address(&to_b, 0)));
    assert_eq!(from_node.unwrap(), ("b".into(), NODE_V4.parse().unwrap()));
    plugin.node.outside.serve_tcp("outside", 80);
    let seen = a.netns.ask_tcp(&format!("{OUTSIDE}:80")).unwrap();
    assert_eq!(seen, ("outside".into(), UPLINK.parse().unwrap()));
    let link = &to_a["interfaces"][1];
    assert_eq!(link["name"], "eth0");
    assert_eq!(link["mac"].as_str().unwrap().len(), 17, "{link}");
}

#[test]
fn a_second_add_is_refused_and_a_second_del_is_fine() {
    let plugin = Plugin::start();
    let before = plugin.node.kernel();
    let container = Container::new("a");
    plugin.add(&container);
    let again = plugin.run("ADD", &container, &plugin.config()).unwrap_err();
    assert_eq!(again.code, code::FAILED);
    assert!(again.msg.contains("has a link eth0 already"), "{again}");
    assert_eq!(plugin.attached(), 1);
    for _ in 0..2 {
        plugin.run("DEL", &container, &plugin.config()).unwrap();
    }
    eventually("the link is gone", || {
        (plugin.node.kernel() == before).then_some(())
    });
}

#[test]
fn another_interface_of_a_container_is_another_attachment() {
    let plugin = Plugin::start();
    let first = Container::new("a");
    let second = Container {
        id: "a".into(),
        interface: "net1".into(),
        netns: first.netns.clone(),
    };
    let (one, other) = (plugin.add(&first), plugin.add(&second));
    assert_ne!(address(&one, 0), address(&other, 0));
    plugin.run("DEL", &first, &plugin.config()).unwrap();
    eventually("one link is gone", || {
        (plugin.attached() == 1).then_some(())
    });
    let config = plugin.with("prevResult", other);
    plugin.run("CHECK", &second, &config).unwrap();
}

#[test]
fn a_check_finds_what_was_tampered_with() {
    let plugin = Plugin::start();
    let container = Container::new("a");
    let result = plugin.add(&container);
    let config = plugin.with("prevResult", result.clone());
    let check = || plugin.run("CHECK", &container, &config);
    check().unwrap();
    let (v4, node) = (address(&result, 0), &plugin.node);
    let fault = |what: &str| {
        let error = check().unwrap_err();
        assert_eq!(error.code, code::FAILED);
        assert!(error.msg.contains(what), "{error}");
    };
    let route = format!("route del {v4}/32");
    node.here.ip(&route);
    fault(&format!("the node has no route to {v4}"));
    container.netns.ip(&format!("addr del {v4}/32 dev eth0"));
    fault(&format!("eth0 has no address {v4}"));
    container.netns.ip("link set eth0 down");
    fault("there is no default route for IPv4 by eth0");
    container.netns.ip("link del eth0");
    fault("the node has no link pea");
    let elsewhere = plugin.with("prevResult", json!({"cniVersion": "1.1.0"}));
    let error = plugin.run("CHECK", &container, &elsewhere).unwrap_err();
    assert_eq!(error.code, code::INVALID_CONFIG);
}

#[test]
fn a_collection_releases_what_is_not_listed_of_its_network_only() {
    let plugin = Plugin::start();
    let (a, b, c) = (
        Container::new("a"),
        Container::new("b"),
        Container::new("c"),
    );
    plugin.add(&a);
    plugin.add(&b);
    let others = plugin.with("name", json!("others"));
    plugin.run("ADD", &c, &others).unwrap();
    // What the node agent attached is none of this plugin's, and the other way round.
    let pod = plugin.node.pod("pod");
    let own = plugin.node.block_on(plugin.node.netd().attached()).unwrap();
    assert_eq!(own, std::slice::from_ref(&pod.reference));
    let valid = json!([{"containerID": "a", "ifname": "eth0"}]);
    let config = plugin.with("cni.dev/valid-attachments", valid);
    plugin.run("GC", &a, &config).unwrap();
    eventually("b is released", || (plugin.attached() == 2).then_some(()));
    a.netns.serve_tcp("a", 80);
    let own = plugin.node.block_on(plugin.node.netd().attached()).unwrap();
    assert_eq!(own, [pod.reference]);
    plugin.run("DEL", &b, &plugin.config()).unwrap();
}

#[test]
fn ports_of_the_node_lead_to_a_container() {
    let plugin = Plugin::start();
    let container = Container::new("a");
    let mapping = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
    let config = plugin.with("runtimeConfig", mapping);
    plugin.run("ADD", &container, &config).unwrap();
    container.netns.serve_tcp("a", 80);
    let answer = plugin.node.outside.ask_tcp(&format!("{UPLINK}:8080"));
    assert_eq!(answer.unwrap().0, "a");
}

#[test]
fn an_agent_that_is_down_is_told() {
    let mut plugin = Plugin::start();
    let container = Container::new("a");
    plugin.run("STATUS", &container, &plugin.config()).unwrap();
    plugin.node.stop();
    let error = plugin
        .run("STATUS", &container, &plugin.config())
        .unwrap_err();
    assert_eq!(error.code, code::UNAVAILABLE);
    assert!(error.msg.contains("netd.sock"), "{error}");
    let version = plugin.run("VERSION", &container, &plugin.config()).unwrap();
    assert_eq!(version["supportedVersions"][3], "1.1.0");
}

#[test]
fn namespaces_that_are_none_are_refused() {
    let plugin = Plugin::start();
    let env = |netns: &Path| -> BTreeMap<String, String> {
        [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_NETNS", netns.to_str().unwrap()),
            ("CNI_IFNAME", "eth0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    };
    let input = Arc::new(plugin.config().to_string());
    for (netns, expected) in [
        ("/run/netns/that-is-not", code::UNKNOWN_CONTAINER),
        ("/proc/self/ns/net", code::INVALID_ENVIRONMENT),
    ] {
        let (env, input) = (env(Path::new(netns)), input.clone());
        let done = plugin.node.block_on(cni::run(&env, input.as_bytes()));
        assert_eq!(done.unwrap_err().code, expected, "{netns}");
    }
    assert_eq!(plugin.attached(), 0);
}
