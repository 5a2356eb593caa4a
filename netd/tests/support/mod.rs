//! A node in a network namespace of its own, with pods and a machine outside: real kernel,
//! real sockets, nothing of the machine that runs the tests.
#![allow(dead_code, reason = "every test file uses a part of it")]

pub mod api;
pub mod leaf;
pub mod site;

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Api;
use nix::sched::{CloneFlags, setns, unshare};
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, HostPort, PodNetwork, PodRef,
};
use peapod_netd::{Config, DnsConfig, Netd};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// The node's addresses.
pub const NODE_V4: &str = "10.243.0.1";
pub const NODE_V6: &str = "fd00:10:243::1";
/// The cluster's DNS.
pub const DNS_V4: &str = "10.96.0.10";
pub const DNS_V6: &str = "fd00:10:96::a";
/// Both ends of the link to the machine outside.
pub const UPLINK: &str = "192.0.2.1";
pub const OUTSIDE: &str = "192.0.2.10";

/// A network namespace, kept by its descriptor.
#[derive(Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Namespace::current()
        };
        std::thread::spawn(make).join().unwrap()
    }

    /// One that somebody else made.
    pub fn at(file: &std::path::Path) -> Self {
        Namespace(Arc::new(File::open(file).unwrap().into()))
    }

    fn current() -> Self {
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        Namespace(Arc::new(file.into()))
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Runs something inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    pub fn ip(&self, command: &str) {
        self.run(|| ip(command));
    }

    /// Answers every TCP connection on a port with its name and the client's address.
    pub fn serve_tcp(&self, name: &str, port: u16) {
        let name = name.to_owned();
        let listener = self.run(|| TcpListener::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let client = canonical(stream.peer_addr().unwrap());
                // A client that is gone already is no concern of a server.
                let _ = write!(stream, "{name} {client}");
            }
        });
    }

    /// Answers every UDP datagram on a port with its name and the client's address.
    pub fn serve_udp(&self, name: &str, port: u16) {
        let name = name.to_owned();
        let socket = self.run(|| UdpSocket::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let answer = format!("{name} {}", canonical(client));
                let _ = socket.send_to(answer.as_bytes(), client);
            }
        });
    }

    /// Connects to a server, and returns its name and the address that it saw.
    pub fn ask_tcp(&self, server: &str) -> io::Result<(String, IpAddr)> {
        self.ask_tcp_within(server, PATIENCE)
    }

    pub fn ask_tcp_within(&self, server: &str, time: Duration) -> io::Result<(String, IpAddr)> {
        let server: SocketAddr = server.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&server, time)?;
            stream.set_read_timeout(Some(time))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(parse(&answer))
        })
    }

    /// A UDP socket that only talks to `server`.
    pub fn udp(&self, server: &str) -> UdpClient {
        let server: SocketAddr = server.parse().unwrap();
        self.run(|| {
            let any = if server.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(server).unwrap();
            UdpClient(socket)
        })
    }
}

pub struct UdpClient(UdpSocket);

impl UdpClient {
    pub fn ask(&self) -> io::Result<(String, IpAddr)> {
        self.ask_within(PATIENCE)
    }

    pub fn ask_within(&self, time: Duration) -> io::Result<(String, IpAddr)> {
        self.0.set_read_timeout(Some(time))?;
        self.0.send(b"?")?;
        let mut buffer = [0; 512];
        let len = self.0.recv(&mut buffer)?;
        Ok(parse(std::str::from_utf8(&buffer[..len]).unwrap()))
    }
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

fn parse(answer: &str) -> (String, IpAddr) {
    let (name, client) = answer.split_once(' ').unwrap();
    (name.to_owned(), client.parse().unwrap())
}

fn ip(command: &str) {
    let output = Command::new("ip")
        .args(command.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {command}: {output:?}");
}

/// Runs a command of nft where the calling thread is.
pub fn nft(command: &str) {
    let output = Command::new("nft").arg(command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
}

/// An attached pod.
#[derive(Clone)]
pub struct Pod {
    pub reference: PodRef,
    pub netns: Namespace,
    pub reply: AttachReply,
}

impl Pod {
    pub fn v4(&self) -> IpAddr {
        self.reply.ips[0]
    }

    pub fn v6(&self) -> IpAddr {
        self.reply.ips[1]
    }
}

/// A node with its agent.
pub struct Node {
    pub api: Api,
    pub here: Namespace,
    pub outside: Namespace,
    pub state: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    netd: Option<Arc<Netd>>,
    shutdown: CancellationToken,
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let api = Api::default();
        api.apply(BLOCKS);
        Node {
            api,
            here,
            outside,
            state: tempfile::tempdir().unwrap(),
            runtime,
            netd: None,
            shutdown: CancellationToken::new(),
        }
    }

    pub fn config(&self) -> Config {
        Config {
            node_name: "here".into(),
            node_ips: vec![NODE_V4.parse().unwrap(), NODE_V6.parse().unwrap()],
            private_ips: Vec::new(),
            pod_cidrs: ["10.244.0.0/16", "fd00:10:244::/56"]
                .map(|cidr| cidr.parse().unwrap())
                .to_vec(),
            service_cidrs: ["10.96.0.0/16", "fd00:10:96::/112"]
                .map(|cidr| cidr.parse().unwrap())
                .to_vec(),
            dns: Some(DnsConfig {
                resolv_conf: self.state.path().join("resolv.conf"),
                ..DnsConfig::new(vec![DNS_V4.parse().unwrap(), DNS_V6.parse().unwrap()])
            }),
            mtu: None,
            vxlan_port: 4789,
            bgp_socket: None,
            attach_socket: None,
            foreign_links: false,
            state_dir: self.state.path().to_owned(),
        }
    }

    /// Ends the agent, and starts another.
    pub fn restart(&mut self) {
        self.restart_with(|_| {});
    }

    pub fn restart_with(&mut self, change: impl Fn(&mut Config)) {
        self.stop();
        let mut config = self.config();
        change(&mut config);
        let start = async {
            let shutdown = self.shutdown.child_token();
            Netd::start(self.api.client(), config, shutdown).await
        };
        let netd = self.block_on(start).unwrap();
        self.block_on(netd.ready()).unwrap();
        self.netd = Some(netd);
    }

    /// Ends the agent.
    pub fn stop(&mut self) {
        if let Some(netd) = self.netd.take() {
            self.block_on(netd.stop());
        }
    }

    pub fn netd(&self) -> Arc<Netd> {
        self.netd.clone().unwrap()
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let timed = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime.block_on(timed).expect("not in time")
    }

    /// Attaches a pod.
    pub fn pod(&self, name: &str) -> Pod {
        self.pod_with_ports(name, vec![])
    }

    pub fn pod_with_ports(&self, name: &str, host_ports: Vec<HostPort>) -> Pod {
        let reference = PodRef {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-of-{name}"),
        };
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
        let request = AttachRequest {
            pod: pod.clone(),
            netns: netns.path(),
            interface: None,
            host_ports,
        };
        self.block_on(self.netd().attach(request))
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
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd00:10:96::11"],
                "ports": [
                    {"name": "tcp", "port": 80, "protocol": "TCP", "nodePort": 30080},
                    {"name": "udp", "port": 80, "protocol": "UDP", "nodePort": 30080},
                ],
            },
        });
        for (key, value) in more.as_object().unwrap() {
            service["spec"][key] = value.clone();
        }
        self.api.put(service);
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
        for (family, at) in [("IPv4", 0), ("IPv6", 1)] {
            let endpoints: Vec<_> = pods
                .iter()
                .map(|pod| {
                    json!({"addresses": [pod.reply.ips[at]], "nodeName": node,
                        "conditions": conditions})
                })
                .collect();
            self.api.put(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("web-{}-{node}", family.to_lowercase()), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "addressType": family, "endpoints": endpoints,
                "ports": [
                    {"name": "tcp", "port": 80, "protocol": "TCP"},
                    {"name": "udp", "port": 80, "protocol": "UDP"},
                ],
            }));
        }
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

fn move_into(link: &str, namespace: &Namespace) {
    let holder = namespace.path();
    let path = holder.to_str().unwrap().to_owned();
    // `ip` takes a name or a PID; the descriptor of this process is reached by its path.
    let path = path.replace("self", &std::process::id().to_string());
    ip(&format!("link set {link} netns {path}"));
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
