//! What the API is told of the node's sessions. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use peapod_api::k8s_openapi;
use peapod_api::net::{BgpDrain, BgpNodeStatus, BgpSession};
use peapod_router::RouterView;
use peapod_router::control::{FamilyView, ShownPeer};
use peapod_router::kernel::fib::Refusals;

use super::plan::Plan;

/// The one condition.
const PROGRAMMED: &str = "Programmed";

/// A session's beginning is known by its age in whole seconds: it is the same one if it differs by
/// no more than this.
const SAME: SignedDuration = SignedDuration::from_secs(2);

/// What is known of nodes that leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that still go through this node, which leaves.
    pub connections: u32,
    /// Another node that leaves, and gets the connections that it began.
    pub hands_over_to: Option<String>,
}

/// The status now. `before` is what was told last: what has not changed is told in the same words.
pub fn status(
    plan: Option<&Plan>,
    view: &RouterView,
    drained: &Drained,
    before: &BgpNodeStatus,
    now: Timestamp,
) -> BgpNodeStatus {
    let sessions = view.peers.iter().filter_map(|shown| {
        let (plan, name) = (plan?, &shown.peer.name);
        let mut session = session(shown, plan.peers.get(name)?, &before.sessions, now);
        if let Some(fault) = plan.faults.get(name) {
            session.last_error = Some(fault.clone());
        }
        Some(session)
    });
    let mut sessions: Vec<BgpSession> = sessions.collect();
    sessions.sort_by(|a, b| {
        (&a.interface, &a.neighbor, &a.peer).cmp(&(&b.interface, &b.neighbor, &b.peer))
    });
    let router = plan.map(|plan| &plan.router);
    BgpNodeStatus {
        asn: router.map(|router| router.asn),
        router_id: router.map(|router| router.router_id.to_string()),
        announced: router.map_or(0, |router| count(router.announce.len())),
        refused_routes: count(view.refusals.count),
        conditions: router
            .map(|_| programmed(&view.refusals, before, now))
            .into_iter()
            .collect(),
        drain: plan
            .and_then(|plan| plan.drain.name())
            .map(|step| BgpDrain {
                step: step.to_owned(),
                connections: drained.connections,
            }),
        hands_over_to: drained.hands_over_to.clone(),
        sessions,
        last_error: None,
    }
}

/// Whether the kernel has all routes that it should have.
fn programmed(refusals: &Refusals, before: &BgpNodeStatus, now: Timestamp) -> Condition {
    let (status, reason, message) = match refusals.some.first() {
        None => ("True", "KernelAgrees", String::new()),
        Some((prefix, why)) => (
            "False",
            "KernelRefuses",
            format!(
                "the kernel refuses {} routes and is asked again; {prefix}: {why}",
                refusals.count
            ),
        ),
    };
    let same = before
        .conditions
        .iter()
        .find(|one| one.type_ == PROGRAMMED && one.status == status);
    let since = same.map_or(Time(now), |one| one.last_transition_time.clone());
    Condition {
        type_: PROGRAMMED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: None,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn session(shown: &ShownPeer, object: &str, before: &[BgpSession], now: Timestamp) -> BgpSession {
    let peer = &shown.peer;
    let sum = |of: fn(&FamilyView) -> u32| peer.families.iter().map(of).sum();
    let mut session = BgpSession {
        node: None,
        peer: object.to_owned(),
        neighbor: peer.address.map(|address| address.to_string()),
        interface: peer.interface.clone(),
        remote_as: peer.remote_as.parse().ok(),
        remote_router_id: peer.router_id.map(|id| id.to_string()),
        remote_hostname: peer.hostname.clone(),
        state: peer.state.to_string(),
        since: None,
        bfd: shown.bfd.clone(),
        received: sum(|family| family.received),
        accepted: sum(|family| family.accepted),
        advertised: sum(|family| family.advertised),
        last_error: peer.last_error.clone(),
    };
    let age = i64::try_from(peer.since_seconds).unwrap_or(i64::MAX);
    let since = now
        .checked_sub(SignedDuration::from_secs(age))
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let told = before.iter().find(|told| {
        (&told.interface, &told.peer) == (&session.interface, &session.peer)
            && told.is_established() == session.is_established()
    });
    let same = told.and_then(|told| told.since.clone()).filter(|text| {
        let told: Option<Timestamp> = text.parse().ok();
        told.is_some_and(|told| told.duration_since(since).abs() <= SAME)
    });
    session.since = same.or_else(|| Some(since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    session
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::plan::Drain;
    use serde_json::json;

    fn shown(state: &str, seconds: u64) -> ShownPeer {
        let peer = json!({"name": "eth1", "id": 1, "address": "fe80::1", "interface": "eth1",
            "remoteAs": "65000", "routerId": "10.0.0.9", "hostname": "leaf1", "state": state,
            "sinceSeconds": seconds, "established": 1, "messages": [3, 4], "problems": 0,
            "families": [
                {"family": "ipv4-unicast", "received": 5, "advertised": 2, "endOfRib": true},
                {"family": "ipv6-unicast", "received": 1, "advertised": 1, "endOfRib": true}],
            "bfd": "Up"});
        serde_json::from_value(peer).unwrap()
    }

    fn plan(neighbors: &[&str]) -> Plan {
        let peer = |name: &&str| ((*name).to_owned(), "leaves".to_owned());
        Plan {
            router: peapod_router::RouterConfig::new(65001, [192, 0, 2, 1].into()),
            drain: Drain::None,
            peers: neighbors.iter().map(peer).collect(),
            faults: std::collections::BTreeMap::new(),
            announces_blocks: true,
        }
    }

    fn view(peers: Vec<ShownPeer>) -> RouterView {
        RouterView {
            peers,
            ..RouterView::default()
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (plan, mut view) = (plan(&[]), RouterView::default());
        let idle = Drained::default();
        let first = status(Some(&plan), &view, &idle, &BgpNodeStatus::default(), at(1));
        let told = |status: &BgpNodeStatus| status.conditions[0].clone();
        assert_eq!(told(&first).status, "True");
        view.refusals = Refusals {
            count: 2,
            some: vec![("10.0.0.0/8".parse().unwrap(), "no way".to_owned())],
        };
        let second = status(Some(&plan), &view, &idle, &first, at(2));
        assert_eq!(second.refused_routes, 2);
        assert_eq!(
            told(&second).message,
            "the kernel refuses 2 routes and is asked again; 10.0.0.0/8: no way"
        );
        assert_eq!(told(&second).last_transition_time, Time(at(2)));
        let third = status(Some(&plan), &view, &idle, &second, at(3));
        assert_eq!(third, second, "nothing new");
        let none = status(None, &RouterView::default(), &idle, &third, at(4));
        assert!(none.conditions.is_empty(), "no router");
    }

    #[test]
    fn how_far_the_node_has_left_is_told() {
        let mut plan = plan(&[]);
        let drained = Drained {
            connections: 3,
            hands_over_to: Some("n2".to_owned()),
        };
        let tell = |plan: &Plan| {
            let (view, none) = (RouterView::default(), BgpNodeStatus::default());
            status(Some(plan), &view, &drained, &none, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(tell(&plan).drain, None);
        plan.drain = Drain::Services;
        let told = tell(&plan).drain.unwrap();
        assert_eq!((told.step.as_str(), told.connections), ("services", 3));
        assert_eq!(tell(&plan).hands_over_to.as_deref(), Some("n2"));
    }

    #[test]
    fn why_a_session_may_not_be_is_told() {
        let mut plan = plan(&["eth1"]);
        plan.faults
            .insert("eth1".to_owned(), "no password".to_owned());
        let none = BgpNodeStatus::default();
        let told = status(
            Some(&plan),
            &view(vec![shown("Idle", 0)]),
            &Drained::default(),
            &none,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(told.sessions[0].last_error.as_deref(), Some("no password"));
    }

    #[test]
    fn sessions_are_told_once() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let plan = plan(&["eth1"]);
        let tell = |state, seconds, before: &BgpNodeStatus, now| {
            status(
                Some(&plan),
                &view(vec![shown(state, seconds)]),
                &Drained::default(),
                before,
                at(now),
            )
        };
        let none = BgpNodeStatus::default();
        let first = tell("Established", 10, &none, "2026-01-01T00:01:00.2Z");
        let session = &first.sessions[0];
        assert_eq!(session.since.as_deref(), Some("2026-01-01T00:00:50Z"));
        assert_eq!((session.received, session.advertised), (6, 3));
        assert_eq!(session.peer, "leaves");
        // Ages are whole seconds: a second more or less says nothing new.
        let second = tell("Established", 20, &first, "2026-01-01T00:01:11.9Z");
        assert_eq!(second, first);
        let down = tell("Active", 0, &first, "2026-01-01T00:01:12Z");
        assert_eq!(
            down.sessions[0].since.as_deref(),
            Some("2026-01-01T00:01:12Z")
        );
        // A neighbour that no object asks for any more is none of ours to tell of.
        let gone = status(
            Some(&super::tests::plan(&[])),
            &view(vec![shown("Idle", 0)]),
            &Drained::default(),
            &first,
            at("2026-01-01T00:02:00Z"),
        );
        assert!(gone.sessions.is_empty());
    }
}
