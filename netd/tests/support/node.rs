//! A node, and a machine outside of the cluster.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use peapod_api::attach::{AttachError, AttachReply, DetachRequest, HostPort, PodNetwork, PodRef};
use peapod_netd::{Config, DnsConfig, Netd};
use serde_json::json;

use super::agent::Agent;
use super::api::Api;
use super::namespace::{Namespace, ip, move_into};
use super::objects::{put_slices, put_web, reference};
use super::{DNS_V4, DNS_V6, NODE_V4, NODE_V6, OUTSIDE, Pod, SILENCE, UPLINK, eventually};

/// A node with its agent.
pub struct Node {
    pub api: Api,
    pub here: Namespace,
    pub outside: Namespace,
    agent: Agent,
}

impl Node {
    /// Moves the calling thread into a namespace of its own, makes it a node, and starts the
    /// agent there.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl Fn(&mut Config)) -> Self {
        let mut node = Self::without_agent();
        node.restart_with(change);
        node
    }

    pub fn without_agent() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let here = Namespace::current();
        let outside = Namespace::new();
        // What the kernel shows must not depend on how far detection has come.
        let no_detection = || fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        no_detection().unwrap();
        outside.run(no_detection).unwrap();
        ip("link set lo up");
        ip(&format!("address add {NODE_V4}/32 dev lo"));
        ip(&format!("address add {NODE_V6}/128 dev lo"));
        // The uplink: the other end is a machine outside of the cluster.
        ip("link add uplink type veth peer name eth0");
        move_into("eth0", &outside);
        ip(&format!("address add {UPLINK}/24 dev uplink"));
        ip("link set uplink up");
        ip(&format!("route add default via {OUTSIDE}"));
        outside.ip("link set lo up");
        outside.ip(&format!("address add {OUTSIDE}/24 dev eth0"));
        outside.ip("link set eth0 up");
        eventually("the uplink is up", || {
            let output = Command::new("ip")
                .args(["-o", "link", "show", "uplink"])
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            text.contains("state UP").then_some(())
        });
        let api = Api::default();
        api.apply(BLOCKS);
        Node {
            api,
            agent: Agent::new(&here),
            here,
            outside,
        }
    }

    pub fn config(&self) -> Config {
        Config {
            dns: Some(DnsConfig {
                resolv_conf: self.state().join("resolv.conf"),
                ..DnsConfig::new(vec![DNS_V4.parse().unwrap(), DNS_V6.parse().unwrap()])
            }),
            ..self.agent.config("here", &[NODE_V4, NODE_V6])
        }
    }

    /// Where the agent keeps what must outlive it.
    pub fn state(&self) -> &Path {
        self.agent.state()
    }

    /// Ends the agent, and starts another.
    pub fn restart(&mut self) {
        self.restart_with(|_| {});
    }

    pub fn restart_with(&mut self, change: impl Fn(&mut Config)) {
        let mut config = self.config();
        change(&mut config);
        self.agent.restart(&self.api, config);
    }

    /// Ends the agent.
    pub fn stop(&mut self) {
        self.agent.stop();
    }

    pub fn netd(&self) -> Arc<Netd> {
        self.agent.netd()
    }

    pub fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.agent.block_on(work)
    }

    /// Attaches a pod.
    pub fn pod(&self, name: &str) -> Pod {
        self.pod_with_ports(name, vec![])
    }

    pub fn pod_with_ports(&self, name: &str, host_ports: Vec<HostPort>) -> Pod {
        let reference = reference(name);
        let netns = Namespace::new();
        let reply = self.attach(&reference, &netns, host_ports).unwrap();
        Pod {
            reference,
            netns,
            reply,
        }
    }

    pub fn attach(
        &self,
        pod: &PodRef,
        netns: &Namespace,
        host_ports: Vec<HostPort>,
    ) -> Result<AttachReply, AttachError> {
        self.agent.attach(pod, netns, host_ports)
    }

    pub fn detach(&self, pod: &Pod) {
        let request = DetachRequest {
            pod: pod.reference.clone(),
        };
        self.block_on(self.netd().detach(request)).unwrap();
    }

    /// A pod that answers on port 80, TCP and UDP.
    pub fn server(&self, name: &str) -> Pod {
        let pod = self.pod(name);
        pod.netns.serve_tcp(name, 80);
        pod.netns.serve_udp(name, 80);
        pod
    }

    /// A service `web` at 10.96.1.1 and fd00:10:96::11, port 80 TCP and UDP, with further
    /// fields of its spec.
    pub fn service(&self, more: serde_json::Value) {
        let ports = json!([
            {"name": "tcp", "port": 80, "protocol": "TCP", "nodePort": 30080},
            {"name": "udp", "port": 80, "protocol": "UDP", "nodePort": 30080},
        ]);
        put_web(&self.api, &ports, &more);
    }

    /// The endpoints of the service `web`.
    pub fn endpoints(&self, pods: &[&Pod]) {
        self.endpoints_on("here", pods);
    }

    pub fn endpoints_on(&self, node: &str, pods: &[&Pod]) {
        self.endpoints_that(node, pods, &json!({}));
    }

    /// The same with what their conditions say.
    pub fn endpoints_that(&self, node: &str, pods: &[&Pod], conditions: &serde_json::Value) {
        let ports = json!([
            {"name": "tcp", "port": 80, "protocol": "TCP"},
            {"name": "udp", "port": 80, "protocol": "UDP"},
        ]);
        let endpoints: Vec<_> = pods.iter().map(|pod| (node, *pod)).collect();
        let name = format!("web-{node}");
        put_slices(&self.api, &name, &ports, &endpoints, conditions);
    }

    /// Waits until a TCP server answers, asked from the node.
    pub fn wait_for(&self, server: &str) {
        // An attempt that comes too early may leave by the uplink, and never be answered.
        eventually(server, || self.here.ask_tcp_within(server, SILENCE).ok());
    }

    /// What the kernel shows of links, addresses, routes and rules.
    pub fn kernel(&self) -> String {
        let mut text = String::new();
        for command in [
            "ip -o link",
            "ip -o address",
            "ip route show table all",
            "ip -6 route show table all",
            "nft -j list ruleset",
        ] {
            let mut words = command.split(' ');
            let output = Command::new(words.next().unwrap()).args(words).output();
            text += &String::from_utf8(output.unwrap().stdout).unwrap();
        }
        text
    }
}

const BLOCKS: &str = r#"
apiVersion: net.peapod.dev/v1
kind: IpBlock
metadata: {name: 10-244-1-0-24}
spec: {cidr: 10.244.1.0/24, node: here}
---
apiVersion: net.peapod.dev/v1
kind: IpBlock
metadata: {name: fd00-0010-0244-0001-0000-0000-0000-0000-64}
spec: {cidr: "fd00:10:244:1::/64", node: here}
---
apiVersion: net.peapod.dev/v1
kind: IpBlock
metadata: {name: 10-244-2-0-24}
spec: {cidr: 10.244.2.0/24, node: elsewhere}
---
apiVersion: v1
kind: Node
metadata: {name: here}
status: {addresses: [{type: InternalIP, address: 10.243.0.1}]}
"#;
