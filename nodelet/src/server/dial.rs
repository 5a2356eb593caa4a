//! Connects to a port of a pod from inside its network namespace, where its `localhost` is.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// Longest time for a connection.
const LIMIT: Duration = Duration::from_secs(10);

/// Connects to a port of a pod; without a namespace, of the node.
pub async fn dial(netns: Option<PathBuf>, port: u16) -> io::Result<tokio::net::TcpStream> {
    let (answer, answered) = oneshot::channel();
    // A thread of its own: it changes its namespace and ends in it.
    std::thread::Builder::new()
        .name("dial".to_owned())
        .spawn(move || {
            // Nobody waits any more: the connection closes.
            let _ = answer.send(connect(netns.as_deref(), port));
        })?;
    let stream = answered
        .await
        .map_err(|_| io::Error::other("the dialling thread broke off"))??;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

fn connect(netns: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    if let Some(path) = netns {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    }
    let [four, six]: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let first = TcpStream::connect_timeout(&SocketAddr::new(four, port), LIMIT);
    first.or_else(|error| {
        let second = TcpStream::connect_timeout(&SocketAddr::new(six, port), LIMIT);
        second.map_err(|_| error)
    })
}
