//! Messages as scripts write them.

use std::sync::Arc;

use peapod_bgp::types::{
    AddPath, Announcement, Capability, ExtendedNextHop, Family, GracefulRestart, LongLivedFamily,
    Message, Nlri, NlriList, Open, Origin, PathAttributes, Restartable, Role, Update,
};
use peapod_bgp::wire::Session;

/// Words `key=value` of a command, and those without `=`.
pub struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    pub fn new(text: &'a str) -> Self {
        Words(text.split_whitespace().collect())
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn number(&self, key: &str) -> Option<u32> {
        self.get(key)
            .map(|text| text.parse().unwrap_or_else(|_| panic!("{key}={text}")))
    }

    pub fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    pub fn plain(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.0.iter().copied().filter(|word| !word.contains('='))
    }

    fn list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        let words = self.get(key).into_iter().flat_map(|text| text.split(','));
        words
            .filter(|word| !word.is_empty())
            .map(|word| word.parse().unwrap_or_else(|_| panic!("{key}: {word}")))
            .collect()
    }
}

/// A family by its short name.
pub fn family(name: &str) -> Family {
    match name {
        "v4" => Family::IPV4_UNICAST,
        "v6" => Family::IPV6_UNICAST,
        other => panic!("{other} is no family: v4 or v6"),
    }
}

/// An OPEN.
pub fn open(words: &Words<'_>) -> Open {
    let families: Vec<Family> = words
        .get("families")
        .unwrap_or("v4")
        .split(',')
        .map(family)
        .collect();
    let mut offered: Vec<Capability> = families
        .iter()
        .copied()
        .map(Capability::MultiProtocol)
        .collect();
    if words.has("refresh") || words.has("enhanced") {
        offered.push(Capability::RouteRefresh);
    }
    if words.has("enhanced") {
        offered.push(Capability::EnhancedRouteRefresh);
    }
    if words.has("ext-nh") {
        offered.push(Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Family::IPV4_UNICAST,
            next_hop_afi: Family::AFI_IPV6,
        }]));
    }
    if let Some(seconds) = words.number("gr") {
        let forwarding = words.has("forwarding");
        offered.push(Capability::GracefulRestart(GracefulRestart {
            restarting: words.has("restarting"),
            notification: words.has("gr-notification"),
            restart_time: seconds as u16,
            families: families
                .iter()
                .map(|family| Restartable {
                    family: *family,
                    forwarding,
                })
                .collect(),
        }));
    }
    if let Some(stale_time) = words.number("llgr") {
        let each = families.iter().map(|family| LongLivedFamily {
            family: *family,
            forwarding: words.has("forwarding"),
            stale_time,
        });
        offered.push(Capability::LongLivedGracefulRestart(each.collect()));
    }
    if let Some(ways) = words.get("add-path") {
        let (send, receive) = (ways.contains("send"), ways.contains("receive"));
        let each = families.iter().map(|family| AddPath {
            family: *family,
            send,
            receive,
        });
        offered.push(Capability::AddPath(each.collect()));
    }
    if let Some(name) = words.get("role") {
        let role = Role::REGISTERED
            .iter()
            .find(|role| role.to_string() == name);
        offered.push(Capability::Role(
            *role.unwrap_or_else(|| panic!("role {name}")),
        ));
    }
    let asn = words.number("as").expect("as=");
    let id = words
        .get("id")
        .expect("id=")
        .parse()
        .expect("an identifier");
    Open::new(asn, words.number("hold").unwrap_or(90) as u16, id, offered)
}

/// The attributes of an announcement.
pub fn attributes(words: &Words<'_>) -> PathAttributes {
    let mut attributes = PathAttributes {
        as_path: words
            .get("path")
            .unwrap_or("")
            .replace(',', " ")
            .parse()
            .expect("a path"),
        next_hop: words
            .get("nh")
            .map(|text| text.parse::<std::net::IpAddr>().expect("a next hop").into()),
        med: words.number("med"),
        local_pref: words.number("lp"),
        originator_id: words
            .get("originator")
            .map(|text| text.parse().expect("an address")),
        cluster_list: words.list("clusters"),
        only_to_customer: words.number("otc"),
        origin: match words.get("origin") {
            Some("egp") => Origin::Egp,
            Some("incomplete") => Origin::Incomplete,
            _ => Origin::Igp,
        },
        ..PathAttributes::default()
    };
    attributes.communities = words.list("comm");
    attributes.communities.sort_unstable();
    attributes
}

fn packed(words: &Words<'_>, session: &Session) -> NlriList {
    let path_id = words.number("id").unwrap_or(0);
    let prefixes: Vec<ipnet::IpNet> = words
        .plain()
        .map(|word| word.parse().unwrap_or_else(|_| panic!("prefix {word}")))
        .collect();
    let family = Family::of(prefixes.first().expect("a prefix"));
    let add_path = session
        .family(family)
        .is_some_and(|family| family.add_path_send);
    let nlri = prefixes.into_iter().map(|prefix| Nlri { prefix, path_id });
    NlriList::pack(family, add_path, nlri)
}

/// An UPDATE that announces.
pub fn update(words: &Words<'_>, session: &Session) -> Message {
    let nlri = packed(words, session);
    let announced = vec![Announcement {
        attributes: Arc::new(attributes(words)),
        nlri,
    }];
    Message::Update(Update {
        announced,
        ..Update::default()
    })
}

/// An UPDATE that withdraws.
pub fn withdraw(words: &Words<'_>, session: &Session) -> Message {
    Message::Update(Update {
        withdrawn: vec![packed(words, session)],
        ..Update::default()
    })
}
