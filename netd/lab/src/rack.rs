//! A host on two leaves, and another behind them: what an outage costs there.
//!
//! ```text
//!        ┌── leaf1 ──┐
//!   a ───┤           ├─── b        a sends to 10.99.0.1 at b, over both leaves
//!        └── leaf2 ──┘
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};

use peapod_bgp::Chance;
use peapod_router::kernel::routes::installed;

use crate::traffic::{Flow, Traffic, longest_gap};
use crate::{Lab, eventually, patiently};

/// Flows that are watched.
const FLOWS: u16 = 32;
/// The prefix that a sends to.
const PREFIX: &str = "10.99.0.0/16";
const LEGS: [&str; 2] = ["10.0.0.2", "10.0.1.2"];
/// Traffic goes on for so long after something was done to it.
const AFTER: Duration = Duration::from_millis(1500);

/// The lab.
#[derive(Debug)]
pub struct Rack {
    /// Its namespaces and routers.
    pub lab: Lab,
}

/// What a fault cost.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The longest time without an arrival in any flow, from the fault on.
    pub longest: Duration,
    /// The same before the fault: what the machine's load alone does.
    pub before: Duration,
}

// === impl Rack ===

impl Rack {
    /// Everything is up, with both legs in a's kernel and BFD (3 × 100 ms) on all sessions.
    pub fn new() -> Self {
        let mut lab = Lab::new();
        for (near, far, net) in [
            ("a", "leaf1", 0),
            ("a", "leaf2", 1),
            ("b", "leaf1", 2),
            ("b", "leaf2", 3),
        ] {
            let address = |end: u8| format!("10.0.{net}.{end}/24");
            lab.link((near, &address(1)), (far, &address(2)));
        }
        for (host, address) in [("a", "10.244.1.1/32"), ("b", "10.99.0.1/32")] {
            lab.within(host, &format!("ip addr add {address} dev lo"));
            lab.within(host, "sysctl -qw net.ipv4.fib_multipath_hash_policy=1");
        }
        for (name, asn, id, announce, neighbors) in [
            ("a", 65001, 1, "10.244.1.0/24", ["10.0.0.2", "10.0.1.2"]),
            ("b", 65002, 2, PREFIX, ["10.0.2.2", "10.0.3.2"]),
            ("leaf1", 65101, 3, "10.1.0.0/16", ["10.0.0.1", "10.0.2.1"]),
            ("leaf2", 65102, 4, "10.2.0.0/16", ["10.0.1.1", "10.0.3.1"]),
        ] {
            let options = "remoteAs: external, bfd: {intervalMs: 100, multiplier: 3}, \
                           timers: {connectRetrySeconds: 1}";
            let [one, two] = neighbors.map(|at| format!("{{address: {at}, {options}}}"));
            lab.router(
                name,
                &format!(
                    "asn: {asn}\nrouterId: 10.9.9.{id}\ninstall: true\nannounce: [{announce}]\n\
                     neighbors: [{one}, {two}]"
                ),
            );
        }
        lab.kernel_route("a", PREFIX, &LEGS);
        lab.kernel_route("b", "10.244.1.0/24", &["10.0.2.2", "10.0.3.2"]);
        let rack = Rack { lab };
        rack.bfd_up();
        rack
    }

    /// What a fault costs the flows from a to b. It is seen that the flows use both legs.
    pub fn outage(&self, fault: impl FnOnce(&Lab)) -> Outage {
        let traffic = Traffic::start(&self.lab, "a", "10.244.1.1", "b", "10.99.0.1", FLOWS);
        std::thread::sleep(AFTER);
        let at = Instant::now();
        fault(&self.lab);
        std::thread::sleep(AFTER);
        let flows = traffic.stop();
        let before: Vec<Flow> = flows.iter().map(|flow| flow.until(at)).collect();
        // The first packets wait for the addresses of the leaves.
        let settled = before.iter().flat_map(|flow| flow.arrivals.get(50)).max();
        let settled = settled.copied().expect("packets arrived before the fault");
        for (number, flow) in flows.iter().enumerate() {
            let last = flow.arrivals.last().copied().expect("a flow that arrives");
            assert!(last > at, "flow {number} never came back");
        }
        Outage {
            longest: longest_gap(&flows, at),
            before: longest_gap(&before, settled),
        }
    }

    /// The leg over leaf1 fails, and a sees its carrier go.
    pub fn carrier_lost(&self) -> Outage {
        self.outage(|lab| lab.set_link("leaf1", "a", false))
    }

    /// Waits for BFD with both leaves.
    pub fn bfd_up(&self) {
        LEGS.into_iter().for_each(|leaf| self.lab.bfd_up("a", leaf));
    }

    /// Leaf1 falls silent: no carrier is lost, only BFD can tell.
    pub fn silent_loss(&self) -> Outage {
        self.outage(|lab| lab.silence("leaf1"))
    }

    /// Leaf1 speaks again.
    pub fn speak_again(&self) {
        self.lab.within("leaf1", "nft delete table inet silent");
        self.lab.kernel_route("a", PREFIX, &LEGS);
        eventually("BFD with leaf1 is up again", || {
            let shown = self.lab.shown("a", LEGS[0]);
            shown.and_then(|shown| shown.bfd).as_deref() == Some("Up")
        });
    }

    /// The link to leaf1 comes back: how long until both legs are in a's kernel again.
    pub fn link_back(&self) -> Duration {
        let start = Instant::now();
        self.lab.set_link("leaf1", "a", true);
        let both = self.lab.spawn_in("a", move || {
            let there = patiently(|| legs() == 2);
            assert!(there, "only one leg came back");
            Instant::now()
        });
        both.join().expect("both legs") - start
    }

    /// Cuts and restores links so many times: at either end, either one, for a random time, the
    /// next one often before the last has healed. Then everything must be as at first.
    pub fn random_flaps(&self, count: u64, seed: u64) {
        let mut chance = Chance::new(seed);
        let mut pick = |of: u64| chance.number() % of;
        for _ in 0..count {
            let leaf = ["leaf1", "leaf2"][usize::from(pick(2) == 0)];
            let (near, far) = if pick(2) == 0 {
                ("a", leaf)
            } else {
                (leaf, "a")
            };
            self.lab.set_link(near, far, false);
            std::thread::sleep(Duration::from_millis(pick(40)));
            self.lab.set_link(near, far, true);
            std::thread::sleep(Duration::from_millis(pick(80)));
        }
        self.as_at_first();
    }

    /// Both legs are in a's kernel, and each router's kernel has what its RIB says.
    pub fn as_at_first(&self) {
        self.lab.kernel_route("a", PREFIX, &LEGS);
        for name in ["a", "b", "leaf1", "leaf2"] {
            self.agrees(name);
        }
    }

    /// A router's kernel has what its RIB says.
    pub fn agrees(&self, name: &str) {
        let mut audit = self.lab.audit(name);
        let clean = patiently(|| {
            audit = self.lab.audit(name);
            audit.clean()
        });
        assert!(clean, "{name}: {audit:?}");
    }
}

impl Default for Rack {
    fn default() -> Self {
        Rack::new()
    }
}

/// The legs that the kernel of this thread's namespace uses for the prefix.
fn legs() -> usize {
    let routes = installed().unwrap_or_default();
    let route = routes
        .iter()
        .find(|route| route.prefix.to_string() == PREFIX);
    let known = |hop: &IpAddr| LEGS.contains(&hop.to_string().as_str());
    route.map_or(0, |route| {
        route.hops.iter().filter(|hop| known(&hop.gateway)).count()
    })
}
