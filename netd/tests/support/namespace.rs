//! Network namespaces, and who asks and answers in them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::PATIENCE;

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

    /// Where the calling thread is.
    pub fn current() -> Self {
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

/// Runs a command of `ip` where the calling thread is.
pub fn ip(command: &str) {
    let output = Command::new("ip")
        .args(command.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {command}: {output:?}");
}

/// Moves a link of where the calling thread is.
pub fn move_into(link: &str, namespace: &Namespace) {
    let holder = namespace.path();
    let path = holder.to_str().unwrap().to_owned();
    // `ip` takes a name or a PID; the descriptor of this process is reached by its path.
    let path = path.replace("self", &std::process::id().to_string());
    ip(&format!("link set {link} netns {path}"));
}

/// Addresses are there at once, and packets are forwarded.
pub fn quicken(namespace: &Namespace) {
    namespace.run(|| {
        for (key, value) in [
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // As many distributions have it: an answer must leave by where the question came in.
            ("ipv4/conf/default/rp_filter", "1"),
            ("ipv4/conf/all/rp_filter", "1"),
        ] {
            fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        }
    });
}
