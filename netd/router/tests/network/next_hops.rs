//! Next hops that are on no link: which is nearest is known by the kernel's routes to them.

use peapod_lab::Lab;

const PREFIX: &str = "10.99.0.0/16";
/// The routers that announce it, and how a reaches them.
const ONE: (&str, &str) = ("10.9.9.2", "10.0.0.2");
const TWO: (&str, &str) = ("10.9.9.3", "10.0.1.2");

/// Two routers of a's own AS announce a prefix from addresses on `lo`.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("one", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("two", "10.0.1.2/24"));
    lab.within("a", "ip addr add 10.9.9.1/32 dev lo");
    for (name, (own, via), back) in [("one", ONE, "10.0.0.1"), ("two", TWO, "10.0.1.1")] {
        lab.within(name, &format!("ip addr add {own}/32 dev lo"));
        lab.within(name, &format!("ip route add 10.9.9.1/32 via {back}"));
        lab.within("a", &format!("ip route add {own}/32 via {via} metric 10"));
        lab.router(
            name,
            &format!(
                "asn: 65001\nrouterId: {own}\nannounce: [{PREFIX}]\n\
                 neighbors: [{{address: 10.9.9.1, source: {own}, remoteAs: internal}}]"
            ),
        );
    }
    let neighbors = [ONE, TWO].map(|(address, _)| {
        format!("{{address: {address}, source: 10.9.9.1, remoteAs: internal}}")
    });
    lab.router(
        "a",
        &format!(
            "asn: 65001\nrouterId: 10.9.9.1\ninstall: true\nneighbors: [{}]",
            neighbors.join(", ")
        ),
    );
    lab
}

#[test]
fn the_nearer_next_hop_wins_and_one_out_of_reach_does_not() {
    let lab = lab();
    let goes = |hops: &[&str]| lab.kernel_route("a", PREFIX, hops);
    goes(&[ONE.1, TWO.1]);
    // Farther away, then out of reach: a default route is no way to a next hop.
    let (own, via) = ONE;
    lab.within("a", &format!("ip route add {own}/32 via {via} metric 30"));
    lab.within("a", &format!("ip route del {own}/32 metric 10"));
    goes(&[TWO.1]);
    let (own, via) = TWO;
    lab.within("a", &format!("ip route del {own}/32 via {via}"));
    lab.within("a", &format!("ip route add default via {via}"));
    goes(&[ONE.1]);
    lab.within("a", &format!("ip route add {own}/32 via {via} metric 30"));
    goes(&[ONE.1, TWO.1]);
    // By another router.
    lab.within("a", "ip addr add 10.0.0.3/24 dev to-one");
    lab.within("one", "ip addr add 10.0.0.4/24 dev to-a");
    lab.within(
        "a",
        &format!("ip route replace {}/32 via 10.0.0.4 metric 30", ONE.0),
    );
    goes(&["10.0.0.4", TWO.1]);
    peapod_lab::eventually("RIB and FIB agree", || lab.audit("a").clean());
}
