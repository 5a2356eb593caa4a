//! Messages as text for people: in logs, and in golden tests.

use std::fmt::{self, Display, Formatter};

use super::{
    Capability, Family, Message, NlriList, Notification, Open, Origin, PathAttributes,
    RawAttribute, RouteRefresh, Update,
};

impl Display for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Message::Open(open) => open.fmt(f),
            Message::Update(update) => update.fmt(f),
            Message::Notification(notification) => show_notification(notification, f),
            Message::Keepalive => f.write_str("KEEPALIVE"),
            Message::RouteRefresh(refresh) => refresh.fmt(f),
        }
    }
}

fn show_notification(notification: &Notification, f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "NOTIFICATION {notification}")?;
    if !notification.data.is_empty() && notification.communication().is_none() {
        write!(f, "\n  data{}", Hex(&notification.data))?;
    }
    Ok(())
}

impl Display for RouteRefresh {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ROUTE-REFRESH {} {}", self.family, self.subtype)
    }
}

impl Display for Open {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Open {
            my_as,
            hold_time,
            router_id,
            capabilities,
        } = self;
        write!(
            f,
            "OPEN as {my_as} hold-time {hold_time} router-id {router_id}"
        )?;
        capabilities
            .iter()
            .try_for_each(|one| write!(f, "\n  {one}"))
    }
}

impl Display for Capability {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let flag = |set, name| if set { name } else { "" };
        match self {
            Capability::MultiProtocol(family) => write!(f, "multiprotocol {family}"),
            Capability::RouteRefresh => f.write_str("route-refresh"),
            Capability::ExtendedNextHop(pairs) => {
                f.write_str("extended-next-hop")?;
                pairs
                    .iter()
                    .try_for_each(|one| write!(f, " {} over afi {}", one.family, one.next_hop_afi))
            }
            Capability::ExtendedMessage => f.write_str("extended-message"),
            Capability::Role(role) => write!(f, "role {role}"),
            Capability::GracefulRestart(restart) => {
                write!(f, "graceful-restart {} s", restart.restart_time)?;
                f.write_str(flag(restart.restarting, " restarting"))?;
                f.write_str(flag(restart.notification, " notification"))?;
                restart.families.iter().try_for_each(|one| {
                    write!(f, " {}{}", one.family, flag(one.forwarding, " forwarding"))
                })
            }
            Capability::FourOctetAs(asn) => write!(f, "four-octet-as {asn}"),
            Capability::AddPath(families) => {
                f.write_str("add-path")?;
                families.iter().try_for_each(|one| {
                    let (send, receive) = (flag(one.send, " send"), flag(one.receive, " receive"));
                    write!(f, " {}{send}{receive}", one.family)
                })
            }
            Capability::EnhancedRouteRefresh => f.write_str("enhanced-route-refresh"),
            Capability::LongLivedGracefulRestart(families) => {
                f.write_str("long-lived-graceful-restart")?;
                families.iter().try_for_each(|one| {
                    let forwarding = flag(one.forwarding, " forwarding");
                    write!(f, " {} {} s{forwarding}", one.family, one.stale_time)
                })
            }
            Capability::Fqdn { hostname, domain } => write!(f, "fqdn {hostname:?} {domain:?}"),
            Capability::Unknown { code, value } => write!(f, "capability {code}{}", Hex(value)),
        }
    }
}

impl Display for Update {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("UPDATE")?;
        for list in &self.withdrawn {
            show_prefixes("withdraw", list, f)?;
        }
        for one in &self.announced {
            show_prefixes("announce", &one.nlri, f)?;
            write!(f, "{}", one.attributes)?;
        }
        if let Some(family) = self.end_of_rib {
            write!(f, "\n  end-of-rib {family}")?;
        }
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n  problem {problem}"))
    }
}

fn show_prefixes(what: &str, list: &NlriList, f: &mut Formatter<'_>) -> fmt::Result {
    let family: Family = list.family();
    write!(f, "\n  {what} {family}")?;
    list.iter().try_for_each(|nlri| write!(f, " {nlri}"))
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// A line for each attribute that is there, each on a line of its own.
impl Display for PathAttributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: Option<&dyn Display>| match value {
            Some(value) => write!(f, "\n    {}", format!("{name} {value}").trim_end()),
            None => Ok(()),
        };
        line("origin", Some(&self.origin))?;
        line("as-path", Some(&self.as_path))?;
        line("next-hop", shown(&self.next_hop))?;
        line("med", shown(&self.med))?;
        line("local-pref", shown(&self.local_pref))?;
        line(
            "atomic-aggregate",
            self.atomic_aggregate.then_some(&"" as &dyn Display),
        )?;
        let aggregator = self
            .aggregator
            .map(|one| format!("{} {}", one.asn, one.router_id));
        line("aggregator", shown(&aggregator))?;
        line("communities", shown(&joined(&self.communities)))?;
        line("ext-communities", shown(&joined(&self.ext_communities)))?;
        line("large-communities", shown(&joined(&self.large_communities)))?;
        line("originator-id", shown(&self.originator_id))?;
        line("cluster-list", shown(&joined(&self.cluster_list)))?;
        line("only-to-customer", shown(&self.only_to_customer))?;
        self.unknown
            .iter()
            .try_for_each(|raw| line("attribute", Some(raw)))
    }
}

fn shown<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
    value.as_ref().map(|value| value as &dyn Display)
}

/// The items with spaces between; `None` without any.
fn joined<T: Display>(items: &[T]) -> Option<String> {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

impl Display for RawAttribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} flags {:#04x}{}",
            self.code,
            self.flags,
            Hex(&self.value)
        )
    }
}

/// Octets as hexadecimal digits behind a space; nothing without any.
struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { " " })?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
