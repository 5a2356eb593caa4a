//! What a route looks like to others: may it be told at all, and with which attributes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;

use super::paths::{Freshness, Path};
use super::route::{DEFAULT_LOCAL_PREF, Route, SourceKind};
use crate::policy::community::insert;
use crate::policy::{Decision, Policy};
use crate::types::{AsPath, Community, PathAttributes, Role, Segment};

/// By so much longer is the AS path of what is announced by one that leaves: neighbours that do not
/// know GRACEFUL_SHUTDOWN prefer others, too.
const LEAVING_PREPENDED: usize = 3;

/// Everything on which it depends what a peer is told. Peers that agree in it are one update
/// group: what they are told is worked out once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Egress {
    /// The peer is in another AS.
    pub external: bool,
    /// The AS that the peer knows us by.
    pub shown_as: u32,
    /// Our real AS stands in paths too, behind the one shown.
    pub show_real_as: bool,
    /// The peer is a client of our route reflection.
    pub client: bool,
    /// We are the next hop of what we pass on inside the AS.
    pub next_hop_self: bool,
    /// This AS is replaced by ours in paths.
    pub override_as: Option<u32>,
    /// Private ASes are removed from paths.
    pub remove_private_as: bool,
    /// The export policy.
    pub policy: Option<String>,
    /// Nothing is told: there is no policy where one is required (RFC 8212).
    pub nothing: bool,
    /// Our role (RFC 9234).
    pub role: Option<Role>,
    /// The peer understands long-lived stale routes (RFC 9494).
    pub long_lived: bool,
    /// How many paths of a prefix it is told; one without ADD-PATH.
    pub paths: u8,
    /// Paths have identifiers (RFC 7911).
    pub add_path: bool,
}

/// What of the speaker itself goes into what it tells.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// Its AS.
    pub asn: u32,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Its route reflection cluster.
    pub cluster: Ipv4Addr,
    /// It is about to leave (RFC 8326).
    pub graceful_shutdown: bool,
    /// Policies by name.
    pub policies: &'a BTreeMap<String, Arc<Policy>>,
}

// === impl Egress ===

impl Egress {
    /// Whether peers of this group may be told of the path, and what the policy says.
    pub fn decide(&self, prefix: &IpNet, path: &Path, local: &Local<'_>) -> Decision {
        let Ok(attributes) = &path.route.accepted else {
            return Decision::REJECT;
        };
        let long_lived = path.freshness == Freshness::LongLivedStale;
        if self.nothing || !path.route.eligible() || (long_lived && !self.long_lived) {
            return Decision::REJECT;
        }
        if !self.may_pass(&path.route) || !self.may_go(attributes) {
            return Decision::REJECT;
        }
        match &self.policy {
            None => Decision::ACCEPT,
            Some(name) => local
                .policies
                .get(name)
                .map_or(Decision::REJECT, |policy| policy.decide(prefix, attributes)),
        }
    }

    /// iBGP tells iBGP only by reflection (RFC 4456).
    fn may_pass(&self, route: &Route) -> bool {
        let inside = route.source.kind == SourceKind::Internal && !self.external;
        !inside || route.source.client || self.client
    }

    /// Communities and ONLY_TO_CUSTOMER that keep a route in.
    fn may_go(&self, attributes: &PathAttributes) -> bool {
        let has = |tag| attributes.communities.contains(&tag);
        if has(Community::NO_ADVERTISE) {
            return false;
        }
        if self.external && (has(Community::NO_EXPORT) || has(Community::LOCAL_AS)) {
            return false;
        }
        let upwards = matches!(
            self.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        );
        !(upwards && attributes.only_to_customer.is_some())
    }

    /// The attributes that peers of this group get. The next hop is absent where that is we.
    pub fn attributes(&self, path: &Path, decision: Decision, local: &Local<'_>) -> PathAttributes {
        let route = &path.route;
        let mut attributes = PathAttributes::clone(route.attributes());
        let own = route.source.kind == SourceKind::Local;
        if self.external && !own {
            attributes.med = None;
        }
        if let Some(policy) = self
            .policy
            .as_ref()
            .and_then(|name| local.policies.get(name))
        {
            policy.apply(decision, &mut attributes, self.shown_as);
        }
        if local.graceful_shutdown {
            insert(&mut attributes.communities, Community::GRACEFUL_SHUTDOWN);
            attributes.local_pref = Some(0);
        }
        if path.freshness == Freshness::LongLivedStale {
            insert(&mut attributes.communities, Community::LLGR_STALE);
        }
        if self.external {
            self.make_external(&mut attributes, local);
        } else {
            self.make_internal(&mut attributes, route, local);
        }
        attributes
    }

    fn make_external(&self, attributes: &mut PathAttributes, local: &Local<'_>) {
        if self.remove_private_as {
            attributes.as_path = without_private(&attributes.as_path);
        }
        if let Some(theirs) = self.override_as {
            attributes.as_path = attributes.as_path.replaced(theirs, self.shown_as);
        }
        if self.show_real_as {
            attributes.as_path = attributes.as_path.prepended(local.asn, 1);
        }
        let times = match local.graceful_shutdown {
            true => 1 + LEAVING_PREPENDED,
            false => 1,
        };
        attributes.as_path = attributes.as_path.prepended(self.shown_as, times);
        attributes.next_hop = None;
        attributes.local_pref = None;
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        attributes.ext_communities.retain(|tag| tag.is_transitive());
        let downwards = matches!(
            self.role,
            Some(Role::Provider | Role::Peer | Role::RouteServer)
        );
        if downwards && attributes.only_to_customer.is_none() {
            attributes.only_to_customer = Some(self.shown_as);
        }
    }

    fn make_internal(&self, attributes: &mut PathAttributes, route: &Route, local: &Local<'_>) {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        match route.source.kind {
            SourceKind::Local => attributes.next_hop = None,
            SourceKind::External if self.next_hop_self => attributes.next_hop = None,
            SourceKind::External => {}
            SourceKind::Internal => {
                attributes
                    .originator_id
                    .get_or_insert(route.source.router_id);
                attributes.cluster_list.insert(0, local.cluster);
            }
        }
    }
}

/// A path without its private ASes (RFC 6996).
fn without_private(path: &AsPath) -> AsPath {
    let public = |asns: &[u32]| -> Vec<u32> {
        asns.iter()
            .copied()
            .filter(|asn| !is_private(*asn))
            .collect()
    };
    let segments = path.segments().iter().map(|segment| match segment {
        Segment::Sequence(asns) => Segment::Sequence(public(asns)),
        Segment::Set(asns) => Segment::Set(public(asns)),
    });
    AsPath::from_segments(segments.collect())
}

fn is_private(asn: u32) -> bool {
    (64_512..=65_534).contains(&asn) || (4_200_000_000..=4_294_967_294).contains(&asn)
}
