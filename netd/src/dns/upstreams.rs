//! Whom the node itself asks: the `nameserver` lines of its resolver configuration.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::PORT;

/// Where systemd-resolved keeps the servers behind its stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Addresses of that stub, and of the one that only proxies.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];
/// Servers asked, at most: as many as a resolver library would.
const MOST: usize = 3;

/// The servers of a configuration file's text, in its order. Pure.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A scope (`fe80::1%eth0`) names a link; such a server is left to the system.
        let server = words.next().and_then(|word| word.parse().ok());
        servers.extend(server.filter(|server| !servers.contains(server)));
    }
    servers
}

fn is_stub(server: &IpAddr) -> bool {
    STUBS.iter().any(|stub| server.to_string() == *stub)
}

/// The node's upstream servers, read again when their file changes.
#[derive(Debug)]
pub struct Upstreams {
    path: PathBuf,
    resolved: PathBuf,
    /// Our own addresses: to ask ourselves would be a loop.
    own: Vec<IpAddr>,
    read_at: Option<[Option<SystemTime>; 2]>,
    servers: Vec<SocketAddr>,
}

impl Upstreams {
    /// Those of a configuration file, without our `own` addresses.
    pub fn new(path: &Path, own: &[IpAddr]) -> Self {
        Upstreams {
            path: path.to_owned(),
            resolved: PathBuf::from(RESOLVED),
            own: own.to_vec(),
            read_at: None,
            servers: Vec::new(),
        }
    }

    /// The servers now, first choice first. Looks at the files' times only, as a rule.
    pub fn servers(&mut self) -> &[SocketAddr] {
        let changed = [&self.path, &self.resolved]
            .map(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
        if self.read_at != Some(changed) {
            self.read_at = Some(changed);
            self.servers = self.read();
            tracing::info!(servers = ?self.servers, "upstream DNS servers");
        }
        &self.servers
    }

    fn read(&self) -> Vec<SocketAddr> {
        let file = |path: &Path| parse(&fs::read_to_string(path).unwrap_or_default());
        let mut servers = file(&self.path);
        if servers.iter().any(is_stub) {
            let behind = file(&self.resolved);
            // Without the file behind it, the stub is better than nothing: it answers this
            // node, if no pod.
            if !behind.is_empty() {
                servers = behind;
            }
        }
        servers.retain(|server| !self.own.contains(server));
        servers.truncate(MOST);
        let with_port = servers.into_iter().map(|ip| SocketAddr::new(ip, PORT));
        with_port.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_in_order_and_once() {
        let text = "# made by hand\nsearch lan\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\n\
                    nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\noptions edns0\n";
        let servers: Vec<String> = parse(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn the_stub_is_looked_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (path, behind) = (dir.path().join("resolv.conf"), dir.path().join("real"));
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        let mut upstreams = Upstreams::new(&path, &["192.0.2.9".parse().unwrap()]);
        upstreams.resolved = behind.clone();
        assert_eq!(upstreams.servers(), ["127.0.0.53:53".parse().unwrap()]);
        fs::write(&behind, "nameserver 192.0.2.9\nnameserver 192.0.2.7\n").unwrap();
        assert_eq!(upstreams.servers(), ["192.0.2.7:53".parse().unwrap()]);
    }
}
