//! The agent's socket: other processes attach pods by it, and only root's.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peapod_api::attach::{AttachError, AttachRequest, DetachRequest, PodNetwork, PodRef};
use peapod_netd::seam::Client;
use support::{Namespace, Node};

/// An agent with a socket.
fn node() -> (Node, PathBuf) {
    let mut node = Node::without_agent();
    let socket = node.state().join("netd.sock");
    restart(&mut node, &socket);
    (node, socket)
}

fn restart(node: &mut Node, socket: &Path) {
    node.restart_with(|config| config.attach_socket = Some(socket.to_owned()));
}

fn request(name: &str, netns: &Namespace) -> AttachRequest {
    AttachRequest {
        pod: PodRef {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-of-{name}"),
        },
        netns: netns.path(),
        interface: None,
        host_ports: vec![],
    }
}

#[test]
fn another_process_attaches_and_detaches() {
    let (node, socket) = node();
    let client = Client::new(&socket, Duration::from_secs(5));
    let netns = Namespace::new();
    node.block_on(client.ready()).unwrap();
    let request = request("a", &netns);
    let reply = node.block_on(client.attach(request.clone())).unwrap();
    assert_eq!(
        node.block_on(client.attach(request.clone())).unwrap(),
        reply
    );
    netns.serve_tcp("a", 80);
    let answer = node.here.ask_tcp(&format!("{}:80", reply.ips[0])).unwrap();
    assert_eq!(answer.0, "a");
    let attached = node.block_on(client.attached()).unwrap();
    assert_eq!(attached, std::slice::from_ref(&request.pod));
    let gone = DetachRequest { pod: request.pod };
    node.block_on(client.detach(gone.clone())).unwrap();
    node.block_on(client.detach(gone)).unwrap();
    assert_eq!(node.block_on(client.attached()).unwrap(), []);
}

#[test]
fn an_attachment_waits_for_an_agent_that_is_restarted() {
    let (mut node, socket) = node();
    let client = Client::new(&socket, Duration::from_secs(30));
    let (a, b) = (Namespace::new(), Namespace::new());
    let first = node.block_on(client.attach(request("a", &a))).unwrap();
    a.serve_tcp("a", 80);
    node.stop();
    let (asking, request) = (client.clone(), request("b", &b));
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(asking.attach(request))
    });
    let address = format!("{}:80", first.ips[0]);
    assert_eq!(node.here.ask_tcp(&address).unwrap().0, "a");
    assert!(!waiting.is_finished());
    restart(&mut node, &socket);
    let second = waiting.join().unwrap().unwrap();
    assert_ne!(second.ips, first.ips);
    assert_eq!(node.block_on(client.attached()).unwrap().len(), 2);
}

#[test]
fn an_agent_that_stays_away_is_named() {
    let (mut node, socket) = node();
    node.stop();
    let client = Client::new(&socket, Duration::from_millis(50));
    let error: AttachError = node.block_on(client.attached()).unwrap_err();
    assert!(error.retriable);
    let told = [socket.to_str().unwrap(), "is `peapod netd` running"];
    assert!(
        told.iter().all(|part| error.message.contains(part)),
        "{error}"
    );
}

fn say(socket: &Path, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // What is refused may not be read to its end.
    let _ = stream.write_all(text);
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let (node, socket) = node();
    for (text, reason) in [
        ("{}\n", "malformed message"),
        ("\u{0}\u{1}garbage\n", "malformed message"),
        (
            "{\"version\":7,\"message\":\"Attached\"}\n",
            "a message of version 7",
        ),
        ("{\"version\":1,\"message\":\"Fly\"}\n", "unknown variant"),
    ] {
        let answer = say(&socket, text.as_bytes());
        assert!(
            answer.contains("Failed") && answer.contains(reason),
            "{answer}"
        );
    }
    let endless = vec![b' '; 5 * 1024 * 1024];
    assert!(say(&socket, &endless).contains("malformed message"));
    let client = Client::new(&socket, Duration::from_secs(5));
    assert_eq!(node.block_on(client.attached()).unwrap(), []);
}

#[test]
fn only_root_is_answered() {
    let (node, socket) = node();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    // Even where somebody opened the way to it.
    for (path, mode) in [(node.state(), 0o755), (&*socket, 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let answer = std::thread::spawn(move || {
        // SAFETY: the plain system call changes the credentials of this thread only, which the
        // kernel looks at when it connects.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(changed, 0);
        say(&socket, b"{\"version\":1,\"message\":\"Attached\"}\n")
    });
    let answer = answer.join().unwrap();
    assert!(
        answer.contains("root only, and user 65534 asked"),
        "{answer}"
    );
}
