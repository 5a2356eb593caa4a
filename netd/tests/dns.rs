//! The cluster's DNS, asked by the system's own resolver and by hand.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use support::{DNS_V4, DNS_V6, Namespace, Node, OUTSIDE, eventually};

/// Looks a name up as a program in a pod does: by the C library, with a pod's resolv.conf.
fn lookup(node: &Node, from: &Namespace, database: &str, name: &str) -> Option<String> {
    let path = node.state().join("pod-resolv.conf");
    let text = format!(
        "nameserver {DNS_V4}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5\n"
    );
    std::fs::write(&path, text).unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec getent {database} {name}",
        path.display()
    );
    let run = || {
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
    };
    let output = from.run(run).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // `ahosts` prints addresses, `hosts` an address and its name.
    let word = usize::from(database == "hosts");
    let found = text.split_whitespace().nth(word).map(str::to_owned);
    found.filter(|_| output.status.success())
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask_udp(from: &Namespace, server: &str, bytes: &[u8]) -> Vec<u8> {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    from.run(|| {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(server).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket.send(bytes).unwrap();
        let mut buffer = vec![0; 65536];
        let len = socket.recv(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    })
}

fn ask(from: &Namespace, message: &Message) -> Message {
    Message::from_vec(&ask_udp(from, DNS_V4, &message.to_vec().unwrap())).unwrap()
}

fn ask_tcp(from: &Namespace, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    from.run(|| {
        let mut stream = TcpStream::connect((DNS_V4, 53)).unwrap();
        stream
            .write_all(&(bytes.len() as u16).to_be_bytes())
            .unwrap();
        stream.write_all(&bytes).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut reply).unwrap();
        Message::from_vec(&reply).unwrap()
    })
}

/// An upstream server on the machine outside: every name has one address, save `big.test`,
/// which has a hundred, and `nothing.test`, which does not exist.
fn upstream(node: &Node) {
    let socket = node.outside.run(|| UdpSocket::bind((OUTSIDE, 53)).unwrap());
    let listener = node
        .outside
        .run(|| std::net::TcpListener::bind((OUTSIDE, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, client)) = socket.recv_from(&mut buffer) {
            let mut reply = answer(&buffer[..len]);
            if reply.answers.len() > 1 {
                reply = reply.truncate();
            }
            socket.send_to(&reply.to_vec().unwrap(), client).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut request = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut request).unwrap();
            let reply = answer(&request).to_vec().unwrap();
            stream
                .write_all(&(reply.len() as u16).to_be_bytes())
                .unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    let conf = node.state().join("resolv.conf");
    std::fs::write(conf, format!("nameserver {OUTSIDE}\n")).unwrap();
}

fn answer(request: &[u8]) -> Message {
    let request = Message::from_vec(request).unwrap();
    let mut reply = Message::response(request.metadata.id, OpCode::Query);
    reply.queries = request.queries.clone();
    let name = request.queries[0].name().clone();
    let count = match name.to_ascii().as_str() {
        "big.test." => 100,
        "nothing.test." => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            0
        }
        _ => u8::from(request.queries[0].query_type() == RecordType::A),
    };
    for n in 0..count {
        let data = RData::A(A::new(198, 51, 100, n));
        reply.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    reply
}

#[test]
fn a_pod_and_the_node_resolve_services() {
    let node = Node::start();
    let pod = node.pod("client");
    node.service(json!({}));
    for from in [&pod.netns, &node.here] {
        eventually("web", || lookup(&node, from, "ahostsv4", "web"));
        let v4 = lookup(&node, from, "ahostsv4", "web.default.svc.cluster.local");
        assert_eq!(v4.as_deref(), Some("10.96.1.1"));
        let v6 = lookup(&node, from, "ahostsv6", "web.default");
        assert_eq!(v6.as_deref(), Some("fd00:10:96::11"));
        assert_eq!(lookup(&node, from, "ahostsv4", "none"), None);
        let kind = question("web.default.svc.cluster.local.", RecordType::A);
        let bytes = kind.to_vec().unwrap();
        let reply = Message::from_vec(&ask_udp(from, DNS_V6, &bytes)).unwrap();
        assert_eq!(reply.answers.len(), 1);
    }
    let name = lookup(&node, &pod.netns, "hosts", "10.96.1.1");
    assert_eq!(name.as_deref(), Some("web.default.svc.cluster.local"));
}

#[test]
fn other_names_are_asked_upstream_and_kept() {
    let node = Node::start();
    upstream(&node);
    let pod = node.pod("client");
    let found = lookup(&node, &pod.netns, "ahostsv4", "www.test");
    assert_eq!(found.as_deref(), Some("198.51.100.0"));
    assert_eq!(lookup(&node, &pod.netns, "ahostsv4", "nothing.test"), None);
    // From here on only what is kept can answer.
    node.outside.ip("link set eth0 down");
    let kept = ask(&pod.netns, &question("www.test.", RecordType::A));
    assert_eq!(kept.answers.len(), 1);
    assert!(!kept.metadata.authoritative && kept.metadata.recursion_available);
}

#[test]
fn an_external_name_is_followed() {
    let node = Node::start();
    upstream(&node);
    let pod = node.pod("client");
    node.api.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: default}\n\
         spec: {type: ExternalName, externalName: www.test}\n",
    );
    let found = eventually("out", || lookup(&node, &pod.netns, "ahostsv4", "out"));
    assert_eq!(found, "198.51.100.0");
}

#[test]
fn a_reply_that_does_not_fit_is_asked_for_again_by_tcp() {
    let node = Node::start();
    upstream(&node);
    let pod = node.pod("client");
    let big = question("big.test.", RecordType::A);
    let by_udp = ask(&pod.netns, &big);
    assert!(by_udp.metadata.truncation && by_udp.answers.is_empty());
    let by_tcp = ask_tcp(&pod.netns, &big);
    assert_eq!(
        (by_tcp.answers.len(), by_tcp.metadata.truncation),
        (100, false)
    );
}

#[test]
fn what_is_wrong_is_said() {
    let node = Node::start();
    let code = |message: &Message| ask(&node.here, message).metadata.response_code;
    let refused = question("cluster.local.", RecordType::AXFR);
    assert_eq!(code(&refused), ResponseCode::Refused);
    let mut twice = question("cluster.local.", RecordType::A);
    twice.add_query(twice.queries[0].clone());
    assert_eq!(code(&twice), ResponseCode::FormErr);
    let mut update = question("cluster.local.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut future = question("cluster.local.", RecordType::SOA);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    // The code of a bad version has two names.
    assert_eq!(u16::from(code(&future)), u16::from(ResponseCode::BADVERS));
    // No upstream is known.
    assert_eq!(
        code(&question("www.test.", RecordType::A)),
        ResponseCode::ServFail
    );
    let garbage = ask_udp(&node.here, DNS_V4, &[7; 40]);
    let reply = Message::from_vec(&garbage).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
}

#[test]
fn the_service_is_published() {
    let node = Node::start();
    let published = || node.api.get("Service", "kube-system/kube-dns");
    let service = eventually("kube-dns", published);
    assert_eq!(service["spec"]["clusterIPs"], json!([DNS_V4, DNS_V6]));
    // It has no endpoints, and is served all the same.
    let soa = || ask(&node.here, &question("cluster.local.", RecordType::SOA));
    assert_eq!(soa().answers.len(), 1);
    eventually("kube-dns resolves", || {
        lookup(&node, &node.here, "ahostsv4", "kube-dns.kube-system")
    });
    assert_eq!(soa().answers.len(), 1);
}
