//! GTSM (RFC 5082): what may have come from afar is not heard.

use peapod_lab::{Lab, eventually};

#[test]
fn only_a_neighbour_that_is_one_hop_away_is_heard() {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("frr", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("far", "10.0.1.2/24"));
    lab.frr(
        "frr",
        "hostname frr\nrouter bgp 65002\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         neighbor 10.0.0.1 remote-as 65001\n neighbor 10.0.0.1 ttl-security hops 1\n \
         neighbor 10.0.0.1 timers connect 1\n",
    );
    // Its packets have the TTL of any other external neighbour's.
    lab.router(
        "far",
        "asn: 65003\nrouterId: 10.0.1.2\n\
         neighbors: [{address: 10.0.1.1, remoteAs: 65001, timers: {connectRetrySeconds: 1}}]",
    );
    let neighbor = |at: &str, asn: u32| {
        format!(
            "{{address: {at}, remoteAs: {asn}, ttlSecurity: 1, timers: {{connectRetrySeconds: 1}}}}"
        )
    };
    lab.router(
        "a",
        &format!(
            "asn: 65001\nrouterId: 10.0.0.1\nneighbors: [{}, {}]",
            neighbor("10.0.0.2", 65002),
            neighbor("10.0.1.2", 65003)
        ),
    );
    lab.established("a", "10.0.0.2");
    // It calls, and answers calls, and not even TCP hears of it.
    lab.within("a", "nft add table ip seen");
    lab.within(
        "a",
        "nft add chain ip seen input { type filter hook input priority 0 ; }",
    );
    for port in ["dport", "sport"] {
        lab.within(
            "a",
            &format!("nft add rule ip seen input ip saddr 10.0.1.2 tcp {port} 179 counter"),
        );
    }
    eventually("the far one has called and answered", || {
        let seen = lab.within("a", "nft list table ip seen");
        seen.contains("counter") && !seen.contains("packets 0 ")
    });
    let unheard = lab.peer("a", "10.0.1.2").expect("a neighbour");
    assert_eq!((unheard.established, unheard.messages[0]), (0, 0));
    let far = lab.peer("far", "10.0.1.1").expect("a neighbour");
    assert_eq!(far.messages, [0, 0]);
}
