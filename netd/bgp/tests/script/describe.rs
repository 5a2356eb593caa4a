//! Messages and tables as transcripts show them.

use peapod_bgp::speaker::{PeerView, RouteView};
use peapod_bgp::types::{Capability, Family, Message, Open, PathAttributes, RefreshSubtype};

/// A message in one line.
pub fn message(message: &Message) -> Vec<String> {
    match message {
        Message::Open(message) => vec![open(message)],
        Message::Keepalive => vec!["KEEPALIVE".to_owned()],
        Message::Notification(notification) => vec![format!("NOTIFICATION {notification}")],
        Message::RouteRefresh(refresh) => {
            let what = match refresh.subtype {
                RefreshSubtype::Request => "",
                RefreshSubtype::Begin => " begin",
                RefreshSubtype::End => " end",
                RefreshSubtype::Other(_) => " ?",
            };
            vec![format!("ROUTE-REFRESH {}{what}", short(refresh.family))]
        }
        Message::Update(update) => {
            let mut lines = Vec::new();
            for list in update.withdrawn.iter().filter(|list| !list.is_empty()) {
                lines.push(format!("UPDATE withdraw {}", prefixes(list)));
            }
            for one in &update.announced {
                let list = prefixes(&one.nlri);
                lines.push(format!("UPDATE {list} {}", attributes(&one.attributes)));
            }
            if let Some(family) = update.end_of_rib {
                lines.push(format!("UPDATE end of rib {}", short(family)));
            }
            lines
        }
    }
}

fn prefixes(list: &peapod_bgp::types::NlriList) -> String {
    let mut shown: Vec<String> = list.iter().map(|nlri| nlri.to_string()).collect();
    shown.sort();
    shown.join(" ")
}

fn short(family: Family) -> &'static str {
    if family == Family::IPV6_UNICAST {
        "v6"
    } else {
        "v4"
    }
}

fn open(open: &Open) -> String {
    let mut words = vec![format!(
        "OPEN as={} id={} hold={}",
        open.asn(),
        open.router_id,
        open.hold_time
    )];
    for capability in &open.capabilities {
        words.push(match capability {
            Capability::FourOctetAs(_) => continue,
            Capability::MultiProtocol(family) => short(*family).to_owned(),
            Capability::RouteRefresh => "refresh".to_owned(),
            Capability::EnhancedRouteRefresh => "enhanced".to_owned(),
            Capability::ExtendedMessage => "long".to_owned(),
            Capability::ExtendedNextHop(_) => "ext-nh".to_owned(),
            Capability::Role(role) => format!("role={role}"),
            Capability::GracefulRestart(restart) => {
                let forwarding = restart.families.iter().any(|family| family.forwarding);
                format!(
                    "gr={}{}{}{}",
                    restart.restart_time,
                    if restart.notification {
                        ",notification"
                    } else {
                        ""
                    },
                    if restart.restarting {
                        ",restarting"
                    } else {
                        ""
                    },
                    if forwarding { ",forwarding" } else { "" },
                )
            }
            Capability::LongLivedGracefulRestart(families) => {
                format!(
                    "llgr={}",
                    families.first().map_or(0, |family| family.stale_time)
                )
            }
            Capability::AddPath(families) => {
                let one = families.first();
                let send = one.is_some_and(|one| one.send).then_some("send");
                let receive = one.is_some_and(|one| one.receive).then_some("receive");
                let ways: Vec<&str> = send.into_iter().chain(receive).collect();
                format!("add-path={}", ways.join(","))
            }
            Capability::Fqdn { hostname, .. } => format!("name={hostname}"),
            Capability::Unknown { code, .. } => format!("capability-{code}"),
        });
    }
    words.join(" ")
}

fn attributes(attributes: &PathAttributes) -> String {
    let mut words = vec![format!("path=\"{}\"", attributes.as_path)];
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            words.push(format!("{key}={value}"));
        }
    };
    add("nh", attributes.next_hop.as_ref().map(ToString::to_string));
    add("med", attributes.med.map(|med| med.to_string()));
    add("lp", attributes.local_pref.map(|pref| pref.to_string()));
    let tags: Vec<String> = attributes
        .communities
        .iter()
        .map(ToString::to_string)
        .collect();
    add("comm", (!tags.is_empty()).then(|| tags.join(",")));
    add(
        "originator",
        attributes.originator_id.map(|id| id.to_string()),
    );
    let clusters: Vec<String> = attributes
        .cluster_list
        .iter()
        .map(ToString::to_string)
        .collect();
    add(
        "clusters",
        (!clusters.is_empty()).then(|| clusters.join(",")),
    );
    add(
        "otc",
        attributes.only_to_customer.map(|asn| asn.to_string()),
    );
    words.join(" ")
}

/// A peer in one line.
pub fn peer(view: &PeerView) -> String {
    let mut line = format!(
        "{} as {} {} {}s",
        view.name, view.remote_as, view.state, view.since_seconds
    );
    for family in &view.families {
        line += &format!(
            ", {}: {} in {} out",
            family.family, family.received, family.advertised
        );
    }
    if let Some(error) = &view.last_error {
        line += &format!(", last: {error}");
    }
    line
}

/// A route, a line for each path.
pub fn route(view: &RouteView) -> Vec<String> {
    let hops: Vec<String> = view.next_hops.iter().map(ToString::to_string).collect();
    let mut lines = vec![match hops.is_empty() {
        true => view.prefix.to_string(),
        false => format!("{} -> {}", view.prefix, hops.join(", ")),
    }];
    for path in &view.paths {
        let mark = match path.choice.rank() {
            0 => '*',
            1 => '=',
            _ => ' ',
        };
        let mut line = format!("  {mark} {} path=\"{}\"", path.peer, path.as_path);
        let extras = [
            ("nh", path.next_hop.clone()),
            ("lp", path.local_pref.map(|pref| pref.to_string())),
            ("med", path.med.map(|med| med.to_string())),
            (
                "comm",
                (!path.communities.is_empty()).then(|| path.communities.join(",")),
            ),
            ("id", (path.path_id > 0).then(|| path.path_id.to_string())),
        ];
        for (key, value) in extras {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        let freshness = format!("{:?}", path.freshness).to_lowercase();
        if freshness != "fresh" {
            line += &format!(" {freshness}");
        }
        if !path.reason.is_empty() {
            line += &format!(" ({})", path.reason);
        }
        lines.push(line);
    }
    lines
}
