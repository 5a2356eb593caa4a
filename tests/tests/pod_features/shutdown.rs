//! A machine that goes down ends its pods in order first, with a login manager of the test's own.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use peapod_tests::{Cluster, wait};
use tokio::sync::oneshot;
use zbus::{Connection, Guid, Message, MessageStream};

use super::ready;

const MANAGER: &str = "org.freedesktop.login1.Manager";

/// The system's bus and its login manager, for one client.
struct Logind {
    connection: Connection,
    /// The other end of what the client holds to have the machine wait.
    inhibitor: tokio::sync::mpsc::Receiver<UnixStream>,
}

impl Logind {
    /// On a thread of its own, whose one task at a time reads nothing before somebody listens: a
    /// quick client's first message would be missed.
    fn start(listener: UnixListener) -> Result<oneshot::Receiver<Result<Self>>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (accepted, logind) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let _ = accepted.send(Self::accept(listener).await);
                std::future::pending::<()>().await;
            });
        });
        Ok(logind)
    }

    async fn accept(listener: UnixListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (socket, _) = listener.accept().await?;
        let connection = zbus::connection::Builder::unix_stream(socket.into_std()?)
            .server(Guid::generate())
            .p2p()
            .build()
            .await?;
        let calls = MessageStream::from(&connection);
        let (held, inhibitor) = tokio::sync::mpsc::channel(4);
        tokio::spawn(answer(connection.clone(), calls, held));
        Ok(Self {
            connection,
            inhibitor,
        })
    }

    async fn prepare_for_shutdown(&self) -> Result<()> {
        let signal = Message::signal("/org/freedesktop/login1", MANAGER, "PrepareForShutdown")
            .sender(":1.0")
            .build(&true)?;
        Ok(self.connection.send(&signal).await?)
    }
}

async fn answer(
    connection: Connection,
    mut calls: MessageStream,
    held: tokio::sync::mpsc::Sender<UnixStream>,
) -> Result<()> {
    while let Some(call) = calls.next().await {
        let call = call?;
        let header = call.header();
        let member = header.member().map(|member| member.to_string());
        match member.as_deref().unwrap_or_default() {
            "Hello" => connection.reply(&header, &":1.1").await?,
            "GetNameOwner" => connection.reply(&header, &":1.0").await?,
            "Get" => {
                let most = zbus::Variant::from(30_000_000_u64);
                connection.reply(&header, &most).await?;
            }
            "Inhibit" => {
                let (ours, theirs) = UnixStream::pair()?;
                let theirs = zbus::OwnedFd::from(OwnedFd::from(theirs));
                connection.reply(&header, &theirs).await?;
                held.send(ours).await?;
            }
            _ => connection.reply(&header, &()).await?,
        }
    }
    Ok(())
}

/// Whether the other end is held no more.
fn released(held: &UnixStream) -> Result<bool> {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let seen = fds[0].revents().unwrap_or(PollFlags::empty());
    Ok(seen.contains(PollFlags::POLLHUP))
}

const SETTINGS: &str = "
shutdownGracePeriodByPodPriority:
- {priority: 0, shutdownGracePeriodSeconds: 8}
- {priority: 1000, shutdownGracePeriodSeconds: 9}
";

/// A pod that writes when it was told to end, and one that ends only when it is killed.
const PODS: &str = "
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: important}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  containers:
  - name: c
    image: 'busybox:test'
    command: [/bin/sh, -c, 'trap \"sleep 2; exit 0\" TERM; while true; do sleep 0.1; done']
---
apiVersion: v1
kind: Pod
metadata: {name: important}
spec:
  priorityClassName: important
  containers:
  - name: c
    image: 'busybox:test'
    command: [/bin/sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.1; done']
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_end_in_order_before_the_machine_does() -> Result<()> {
    let cluster = Cluster::prepare()?;
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), SETTINGS)?;
    let socket = cluster.data_dir().join("bus.sock");
    let listener = UnixListener::bind(&socket)?;
    let logind = Logind::start(listener)?;
    let bus = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", socket.display());
    cluster.start_among(&[&bus])?;
    let mut logind = logind.await??;
    let held = logind.inhibitor.recv().await.context("nobody inhibits")?;
    cluster.load_busybox()?;
    cluster.apply(PODS)?;
    ready(&cluster, "plain")?;
    ready(&cluster, "important")?;
    ensure!(!released(&held)?);

    logind.prepare_for_shutdown().await?;
    let path = r"{.status.conditions[?(@.type=='Ready')].message}";
    let node = cluster.kubectl("get nodes -o name")?.ok()?;
    wait::until("the node to say so", || {
        Ok(cluster
            .field(node.trim(), path)?
            .contains("node is shutting down"))
    })?;
    wait::until("the machine to be let go", || released(&held))?;
    let ended = |pod: &str| -> Result<String> {
        let at = "{.status.phase}/{.status.reason}/{.status.containerStatuses[0].state.terminated.finishedAt}";
        cluster.field(&format!("pod/{pod}"), at)
    };
    wait::until("their statuses", || {
        Ok(ended("plain")?.starts_with("Failed/Terminated/2")
            && ended("important")?.starts_with("Failed/Terminated/2"))
    })?;
    // The plain one took two seconds to end, and the important one waited for it.
    let at = |text: String| -> Result<jiff::Timestamp> {
        Ok(text.rsplit('/').next().context("no time")?.parse()?)
    };
    ensure!(at(ended("plain")?)? <= at(ended("important")?)?);
    let message = cluster.field("pod/plain", "{.status.message}")?;
    ensure!(message.contains("imminent node shutdown"), "{message}");

    // Nothing new begins.
    cluster.apply(&PODS.replace("name: plain", "name: late").replace(
        "spec:\n  containers",
        &format!(
            "spec:\n  nodeName: {}\n  containers",
            node.trim().trim_start_matches("node/"),
        ),
    ))?;
    wait::until("a late pod to be refused", || {
        Ok(cluster.field("pod/late", "{.status.reason}")? == "NodeShutdown")
    })
}
