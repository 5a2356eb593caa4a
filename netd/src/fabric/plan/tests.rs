//! What a node's router is told, by the objects that select the node.

use peapod_api::labels::RACK;
use peapod_api::net::DEFAULT_ASN;
use peapod_bgp::config::RemoteAs;
use peapod_bgp::types::Role;
use serde_json::json;

use super::identity::made_of;
use super::*;

fn facts(config: serde_json::Value, peers: serde_json::Value) -> Facts {
    Facts {
        node: "n1".to_owned(),
        labels: BTreeMap::from([(RACK.to_owned(), "a".to_owned())]),
        ips: vec!["192.0.2.1".parse().unwrap()],
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        config: serde_json::from_value(config).unwrap(),
        peers: serde_json::from_value(peers).unwrap(),
        announced: Announced {
            blocks: vec!["10.244.5.0/24".parse().unwrap()],
            external: BTreeSet::from(["203.0.113.7".parse().unwrap()]),
            cluster: BTreeSet::from(["10.96.0.9".parse().unwrap()]),
        },
        ..Facts::default()
    }
}

fn leaf() -> serde_json::Value {
    json!({"leaf": {"interface": "eth1", "remoteAs": "external"}})
}

fn announced(facts: &Facts) -> Vec<String> {
    let plan = plan(facts).unwrap().unwrap();
    plan.router.announce.iter().map(IpNet::to_string).collect()
}

#[test]
fn as_plans() {
    let asn = |config| plan(&facts(config, leaf())).map(|plan| plan.unwrap().router.asn);
    assert_eq!(asn(json!({})), Ok(DEFAULT_ASN));
    assert_eq!(asn(json!({"asPlan": {"shared": {"asn": 7}}})), Ok(7));
    let per_node = json!({"asPlan": {"perNode": {"from": 4_200_000_000_u32}}});
    assert_eq!(asn(per_node), Ok(4_200_000_005));
    let racks = |rack: &str| json!({"asPlan": {"perRack": {"racks": {rack: 65_001}}}});
    assert_eq!(asn(racks("a")), Ok(65_001));
    assert_eq!(asn(racks("b")), Err(Fault::Rack("a".to_owned())));
    let high = json!({"asPlan": {"perNode": {"from": u32::MAX}}});
    assert_eq!(asn(high), Err(Fault::TooHigh));
}

#[test]
fn who_is_spoken_to() {
    let peers = json!({
        "a": {"address": "192.0.2.9", "remoteAs": 65000, "bfd": {"intervalMs": 100}},
        "b": {"address": "192.0.2.9", "remoteAs": 65001},
        "other-rack": {"interface": "eth9", "remoteAs": "external",
            "nodeSelector": {"matchLabels": {RACK: "z"}}},
    });
    let plan = plan(&facts(json!({}), peers)).unwrap().unwrap();
    assert_eq!(
        plan.peers,
        BTreeMap::from([("192.0.2.9".into(), "a".into())])
    );
    let options = &plan.router.neighbors[0].options;
    assert_eq!(options.remote_as, RemoteAs::Number(65000));
    assert_eq!(options.bfd.unwrap().interval_ms, 100);
    // The other nodes of the AS are behind the leaf.
    assert_eq!(options.allowas_in, 1);
    let nobody = json!({"z": {"interface": "e", "remoteAs": 1,
        "nodeSelector": {"matchLabels": {RACK: "z"}}}});
    assert_eq!(super::plan(&facts(json!({}), nobody)), Ok(None));
}

#[test]
fn policies_are_the_peer_s_and_the_rest_is_usual() {
    let peers = json!({
        "a": {"address": "192.0.2.9", "remoteAs": 65000, "allowasIn": 3, "role": "customer",
            "localAs": {"asn": 64999, "replaceAs": true}, "addPath": {"receive": true},
            "import": {"statements": [{"set": {"localPref": 50}}]},
            "export": {"statements": [{"set": {"addCommunities": ["65000:7"]}}]}},
        "b": {"interface": "eth1", "remoteAs": "external"},
    });
    let config = json!({"gracefulRestart": {"restartSeconds": 30}});
    let router = plan(&facts(config, peers)).unwrap().unwrap().router;
    router.speaker().check().unwrap();
    let names: Vec<&String> = router.policies.keys().collect();
    assert_eq!(names, ["export-a", "import-a", "own-routes"]);
    let [a, b] = router.neighbors.as_slice() else {
        panic!("two neighbours");
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(
        (&a.options.import, &a.options.export),
        (&named("import-a"), &named("export-a"))
    );
    assert_eq!(
        (&b.options.import, &b.options.export),
        (&None, &named("own-routes"))
    );
    assert_eq!((a.options.allowas_in, b.options.allowas_in), (3, 1));
    assert_eq!(a.options.role, Some(Role::Customer));
    assert_eq!(a.options.local_as.unwrap().asn, 64999);
    assert!(a.options.add_path.receive);
    assert_eq!(router.graceful_restart.restart_seconds, 30);
}

#[test]
fn identifiers() {
    let mut facts = facts(json!({}), leaf());
    let id = |facts: &Facts| plan(facts).map(|plan| plan.unwrap().router.router_id.to_string());
    assert_eq!(id(&facts).unwrap(), "192.0.2.1");
    facts.ips = vec!["fd00::1".parse().unwrap()];
    assert_eq!(id(&facts), Err(Fault::NoIdentifier));
    facts.config = serde_json::from_value(json!({"routerId": "NodeName"})).unwrap();
    // FNV-1a of "n1".
    assert_eq!(id(&facts).unwrap(), made_of("n1").to_string());
    assert_ne!(made_of("n1"), made_of("n2"));
    facts.router_id = Some("10.0.0.9".to_owned());
    assert_eq!(id(&facts).unwrap(), "10.0.0.9");
    facts.router_id = Some("0.0.0.0".to_owned());
    assert!(id(&facts).unwrap_err().to_string().contains("\"0.0.0.0\""));
}

#[test]
fn what_is_announced() {
    let usual = facts(json!({}), leaf());
    let all = ["10.244.5.0/24", "203.0.113.7/32"];
    assert_eq!(announced(&usual), all);
    let config = json!({"announce": {"podCIDRs": false, "services": false, "nodeIPs": true,
        "clusterIPs": true}});
    assert_eq!(
        announced(&facts(config, leaf())),
        ["10.96.0.9/32", "192.0.2.1/32"]
    );
}

#[test]
fn a_node_leaves_in_steps() {
    let mut facts = facts(json!({}), leaf());
    for (drain, shutdown, count) in [
        (Drain::None, false, 2),
        (Drain::Handover, false, 2),
        (Drain::Graceful, true, 2),
        (Drain::Services, true, 1),
        (Drain::All, true, 0),
    ] {
        facts.drain = drain;
        let plan = plan(&facts).unwrap().unwrap();
        assert_eq!(plan.router.graceful_shutdown, shutdown, "{drain:?}");
        assert_eq!(plan.router.announce.len(), count, "{drain:?}");
    }
}
