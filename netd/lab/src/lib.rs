//! A lab: routers in network namespaces of their own, connected by veth pairs; ours, and Debian's
//! FRR, BIRD and GoBGP; traffic between them ([`traffic`]), and a neighbour that says what it is
//! told to ([`script`]). Everything is gone when the lab is dropped.
//!
//! It is for tests and measurements, and panics where a test would fail. It needs root.

mod daemons;
pub mod process;
pub mod rack;
pub mod script;
pub mod traffic;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peapod_bgp::fsm::State;
use peapod_bgp::speaker::PeerView;
use peapod_router::RouterConfig;
use peapod_router::control::{self, Audit, ShownPeer};
use tokio_util::sync::CancellationToken;

static LABS: AtomicU32 = AtomicU32::new(0);
/// The last number of a link that was made with one. Each namespace counts its links for itself; if both
/// ends of a pair had the same number the kernel would take them for no pair, and tell of a carrier up to
/// a second late. Beyond the numbers that `up --fabric` gives.
static LINKS: AtomicU32 = AtomicU32::new(1_000_000);

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// Namespaces, links, routers.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: tempfile::TempDir,
    spaces: Vec<String>,
    /// Those of others: their processes are none of the lab's.
    adopted: Vec<String>,
    routers: Vec<Ours>,
    daemons: Vec<Child>,
}

/// A router of ours, in a thread of its own, in its namespace.
#[derive(Debug)]
struct Ours {
    name: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

// === impl Lab ===

impl Lab {
    /// A lab with nothing in it.
    pub fn new() -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let id = format!("bgp{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        Lab {
            id,
            dir,
            spaces: Vec::new(),
            adopted: Vec::new(),
            routers: Vec::new(),
            daemons: Vec::new(),
        }
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// The file of a namespace.
    pub fn space_file(&self, name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.space(name))
    }

    /// Runs something in a thread of its own in a namespace.
    pub fn spawn_in<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let space = self.space_file(name);
        std::thread::spawn(move || {
            enter(&space);
            work()
        })
    }

    /// A folder for files of the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a namespace, if it is not there.
    pub fn ensure_space(&mut self, name: &str) {
        let space = self.space(name);
        if !self.spaces.contains(&space) {
            run("ip", &["netns", "add", &space]).unwrap();
            self.spaces.push(space);
            self.within(name, "ip link set lo up");
            for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
                self.within(name, &format!("sysctl -qw {key}=1"));
            }
            for which in ["all", "default"] {
                // An address is there at once, and still there after its link was down.
                for setting in ["accept_dad=0", "keep_addr_on_down=1"] {
                    self.within(name, &format!("sysctl -qw net.ipv6.conf.{which}.{setting}"));
                }
            }
        }
    }

    /// Makes a namespace that somebody else made, and keeps, one of the lab's by its file.
    pub fn adopt(&mut self, name: &str, file: &Path) {
        let space = self.space(name);
        let place = self.space_file(name);
        std::fs::create_dir_all("/run/netns").unwrap();
        std::fs::File::create(&place).unwrap();
        let (file, place) = (file.display().to_string(), place.display().to_string());
        run("mount", &["--bind", &file, &place]).unwrap();
        self.adopted.push(space.clone());
        self.spaces.push(space);
    }

    /// Connects two namespaces, by interfaces named after the other end, with addresses (or none,
    /// when empty).
    pub fn link(&mut self, (a, at_a): (&str, &str), (b, at_b): (&str, &str)) {
        self.ensure_space(a);
        self.ensure_space(b);
        let (space_a, space_b) = (self.space(a), self.space(b));
        let number = LINKS.fetch_add(1, Ordering::Relaxed) + 1;
        let arguments = [
            "link",
            "add",
            &format!("to-{b}"),
            "index",
            &number.to_string(),
            "netns",
            &space_a,
            "type",
            "veth",
            "peer",
            "name",
            &format!("to-{a}"),
            "netns",
            &space_b,
        ];
        run("ip", &arguments).unwrap();
        for (space, other, addresses) in [(a, b, at_a), (b, a, at_b)] {
            for address in addresses.split_whitespace() {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                self.within(
                    space,
                    &format!("ip addr add {address} dev to-{other}{nodad}"),
                );
            }
            self.within(space, &format!("ip link set to-{other} up"));
        }
    }

    /// Runs a command in a namespace; what it prints.
    pub fn within(&self, name: &str, command: &str) -> String {
        let said = self.try_within(name, command);
        said.unwrap_or_else(|error| panic!("{name}: {command}: {error}"))
    }

    /// The same for one that may fail.
    ///
    /// # Errors
    /// With what it says of it.
    pub fn try_within(&self, name: &str, command: &str) -> io::Result<String> {
        let space = self.space(name);
        let mut arguments = vec!["netns", "exec", &space];
        arguments.extend(command.split_whitespace());
        run("ip", &arguments)
    }

    /// Writes a file of the lab.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The control socket of a router of ours.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// Starts a router of ours.
    pub fn router(&mut self, name: &str, config: &str) {
        self.ensure_space(name);
        let socket = self.socket(name);
        let text = format!("{config}\ncontrolSocket: {}\n", socket.display());
        let config = RouterConfig::read(&self.file(&format!("{name}.yaml"), &text)).unwrap();
        let space = self.space_file(name);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::spawn(move || in_namespace(&space, config, token));
        self.routers.push(Ours {
            name: name.to_owned(),
            stop,
            thread: Some(thread),
        });
        eventually(&format!("{name} answers"), || {
            control::peers(&socket).is_ok()
        });
    }

    /// Stops a router of ours as for a planned restart.
    pub fn stop(&mut self, name: &str) {
        let at = self
            .routers
            .iter()
            .position(|router| router.name == name)
            .unwrap();
        drop(self.routers.remove(at));
    }

    /// What a router of ours says of a neighbour.
    pub fn peer(&self, router: &str, neighbor: &str) -> Option<PeerView> {
        self.shown(router, neighbor).map(|shown| shown.peer)
    }

    /// What a router of ours says of a neighbour, with BFD.
    pub fn shown(&self, router: &str, neighbor: &str) -> Option<ShownPeer> {
        let peers = control::peers(&self.socket(router)).ok()?;
        peers.into_iter().find(|shown| shown.peer.name == neighbor)
    }

    /// Waits for a session.
    pub fn established(&self, router: &str, neighbor: &str) {
        let up = || {
            self.peer(router, neighbor)
                .is_some_and(|view| view.state == State::Established)
        };
        if !patiently(up) {
            let mut story = format!("{router}: {:?}\n", self.peer(router, neighbor));
            for entry in std::fs::read_dir(self.dir.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    let _ = writeln!(story, "{}:\n{text}", path.display());
                }
            }
            panic!("{router} has no session with {neighbor}\n{story}");
        }
    }

    /// Waits until a namespace's kernel has a route by BGP, and it reads as expected: the next
    /// hops in order.
    pub fn kernel_route(&self, name: &str, prefix: &str, hops: &[&str]) {
        let mut have = Vec::new();
        let right = patiently(|| {
            have = self.hops(name, prefix);
            have == hops
        });
        assert!(right, "{name}: {prefix}: {have:?}, not {hops:?}");
    }

    /// The next hops of a route by BGP in a namespace's kernel, in order.
    pub fn hops(&self, name: &str, prefix: &str) -> Vec<String> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let text = self.within(name, &format!("ip {family} route show {prefix} proto bgp"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut hops: Vec<String> = words
            .windows(3)
            .filter(|three| three[0] == "via")
            .map(|three| {
                if three[1] == "inet6" {
                    three[2]
                } else {
                    three[1]
                }
                .to_owned()
            })
            .collect();
        hops.sort();
        hops
    }

    /// The kernel's routes of a router of ours against those that should be there.
    pub fn audit(&self, router: &str) -> Audit {
        control::audit(&self.socket(router)).unwrap()
    }

    /// Waits for BFD with a neighbour to be up.
    pub fn bfd_up(&self, router: &str, neighbor: &str) {
        eventually(&format!("{router} has BFD with {neighbor}"), || {
            self.shown(router, neighbor)
                .and_then(|shown| shown.bfd)
                .as_deref()
                == Some("Up")
        });
    }

    /// The link-local address of an interface.
    pub fn link_local(&self, name: &str, interface: &str) -> String {
        let text = self.within(
            name,
            &format!("ip -6 -o addr show dev {interface} scope link"),
        );
        let address = text
            .split_whitespace()
            .nth(3)
            .expect("a link-local address");
        address.split('/').next().unwrap_or_default().to_owned()
    }

    /// Cuts a link or mends it, at the end in one namespace.
    pub fn set_link(&self, name: &str, other: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        self.within(name, &format!("ip link set to-{other} {state}"));
    }

    /// Has a namespace neither hear nor say anything, with all links up.
    pub fn silence(&self, name: &str) {
        self.within(name, "nft add table inet silent");
        for hook in ["input", "output", "forward"] {
            let chain = format!("{{ type filter hook {hook} priority 0; policy drop; }}");
            self.within(name, &format!("nft add chain inet silent {hook} {chain}"));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.routers.clear();
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for space in &self.spaces {
            // FRR's and BIRD's children, if they left any.
            if !self.adopted.contains(space)
                && let Ok(pids) = run("ip", &["netns", "pids", space])
            {
                for pid in pids.split_whitespace() {
                    let _ = run("kill", &["-9", pid]);
                }
            }
            let _ = run("ip", &["netns", "del", space]);
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Puts this thread into a network namespace.
///
/// # Panics
/// If it cannot.
pub fn enter(space: &Path) {
    let file = std::fs::File::open(space).unwrap();
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

fn in_namespace(space: &Path, config: RouterConfig, stop: CancellationToken) {
    enter(space);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(peapod_router::run(config, stop)).unwrap();
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

/// Waits for a condition; whether it came about in time.
pub fn patiently(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Waits for a condition.
///
/// # Panics
/// If it does not come about in time.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(patiently(condition), "never: {what}");
}
