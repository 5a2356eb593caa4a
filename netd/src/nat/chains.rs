//! The chains that pick an endpoint: one for each number of endpoints, not for each service.

use peapod_nft::{Base, CmpOp, Expr, FibResult, MetaKey, NatKind, Reg, Rule, Verdict};

use super::Ip;
use super::base::{CLUSTER, if_address_in_set, load_destination, load_source};

/// Places of endpoints for clients outside of the cluster begin here: a frontend's two lists
/// share one map.
pub(crate) const OUTER: u32 = 1 << 16;
/// `RTN_LOCAL`.
pub(crate) const LOCAL: u32 = 2;

/// By what a frontend is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Keyed {
    /// Address, protocol and port.
    Address,
    /// Protocol and port: any address of this node.
    NodePort,
}

/// What a chain does; its name says it, so that a listing can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// Picks among `count` places, beginning at [`OUTER`] if so.
    Pick { outer: bool, count: u32 },
    /// Clients of the cluster pick among `inner` places, others among `outer`.
    Gate { outer: u32, inner: u32 },
    /// Leads a returning client to its place.
    Slot { place: u32 },
}

/// A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chain {
    pub(crate) keyed: Keyed,
    pub(crate) shape: Shape,
    /// For how many seconds a client stays with its endpoint.
    pub(crate) affinity_s: Option<u32>,
}

impl Keyed {
    fn prefix(self) -> &'static str {
        match self {
            Keyed::Address => "svc",
            Keyed::NodePort => "port",
        }
    }

    pub(crate) fn services(self) -> &'static str {
        match self {
            Keyed::Address => "services",
            Keyed::NodePort => "nodeports",
        }
    }

    pub(crate) fn endpoints(self) -> &'static str {
        match self {
            Keyed::Address => "endpoints",
            Keyed::NodePort => "nodeport-endpoints",
        }
    }

    pub(crate) fn affinity(self) -> &'static str {
        match self {
            Keyed::Address => "affinity",
            Keyed::NodePort => "nodeport-affinity",
        }
    }

    /// Loads the key from `reg` on; returns the expressions and the register behind it.
    pub(crate) fn load(self, ip: Ip, reg: Reg) -> (Vec<Expr>, Reg) {
        let (mut exprs, protocol) = match self {
            Keyed::Address => (vec![load_destination(ip, reg)], ip.behind(reg)),
            Keyed::NodePort => (Vec::new(), reg),
        };
        exprs.push(Expr::Meta {
            key: MetaKey::L4Proto,
            dreg: protocol,
        });
        exprs.push(Expr::Payload {
            base: Base::Transport,
            offset: 2,
            len: 2,
            dreg: protocol.plus(1),
        });
        (exprs, protocol.plus(2))
    }
}

impl Chain {
    pub(crate) fn name(&self) -> String {
        let prefix = self.keyed.prefix();
        let sticky = self
            .affinity_s
            .map_or_else(String::new, |s| format!("-sticky-{s}"));
        match self.shape {
            Shape::Pick {
                outer: false,
                count,
            } => format!("{prefix}-in-{count}{sticky}"),
            Shape::Pick { outer: true, count } => format!("{prefix}-out-{count}{sticky}"),
            Shape::Gate { outer, inner } => format!("{prefix}-gate-{outer}-{inner}{sticky}"),
            Shape::Slot { place } => format!("{prefix}-slot-{place}{sticky}"),
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (name, affinity_s) = match name.split_once("-sticky-") {
            Some((name, seconds)) => (name, Some(seconds.parse().ok()?)),
            None => (name, None),
        };
        let words: Vec<&str> = name.split('-').collect();
        let number = |word: &str| word.parse::<u32>().ok();
        let shape = match words[1..] {
            ["in", count] => Shape::Pick {
                outer: false,
                count: number(count)?,
            },
            ["out", count] => Shape::Pick {
                outer: true,
                count: number(count)?,
            },
            ["gate", outer, inner] => Shape::Gate {
                outer: number(outer)?,
                inner: number(inner)?,
            },
            ["slot", place] => Shape::Slot {
                place: number(place)?,
            },
            _ => return None,
        };
        let keyed = match words[0] {
            "svc" => Keyed::Address,
            "port" => Keyed::NodePort,
            _ => return None,
        };
        Some(Chain {
            keyed,
            shape,
            affinity_s,
        })
    }

    fn with(self, shape: Shape) -> Self {
        Chain { shape, ..self }
    }

    /// The chains that this one leads to.
    pub(crate) fn leads_to(self) -> Vec<Chain> {
        match (self.shape, self.affinity_s) {
            (Shape::Gate { outer, inner }, _) => {
                let mut chains = vec![self.with(Shape::Pick {
                    outer: false,
                    count: inner,
                })];
                if outer > 0 {
                    chains.push(self.with(Shape::Pick {
                        outer: true,
                        count: outer,
                    }));
                }
                chains
            }
            (Shape::Pick { outer, count }, Some(_)) => places(outer, count)
                .map(|place| self.with(Shape::Slot { place }))
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn rules(&self, ip: Ip) -> Vec<Rule> {
        match (self.shape, self.affinity_s) {
            (Shape::Gate { outer, inner }, _) => self.gate(ip, outer, inner),
            (Shape::Pick { outer, count }, None) => vec![self.pick(ip, outer, count)],
            (Shape::Pick { outer, count }, Some(seconds)) => {
                self.sticky_pick(ip, outer, count, seconds)
            }
            (Shape::Slot { place }, affinity) => {
                vec![self.slot(ip, place, affinity.unwrap_or_default())]
            }
        }
    }

    fn gate(&self, ip: Ip, outer: u32, inner: u32) -> Vec<Rule> {
        let within = self.with(Shape::Pick {
            outer: false,
            count: inner,
        });
        let goto = |chain: Chain| Expr::Verdict(Verdict::Goto(chain.name()));
        let mut from_cluster = if_address_in_set(load_source(ip, Reg::R0), CLUSTER, false);
        from_cluster.push(goto(within));
        let from_here = [
            Expr::Fib {
                result: FibResult::SourceType,
                dreg: Reg::R0,
            },
            Expr::Cmp {
                op: CmpOp::Eq,
                sreg: Reg::R0,
                data: LOCAL.to_ne_bytes().to_vec(),
            },
            goto(within),
        ];
        let from_outside = match outer {
            0 => Expr::Verdict(Verdict::Drop),
            count => goto(self.with(Shape::Pick { outer: true, count })),
        };
        vec![
            Rule::new(from_cluster),
            Rule::new(from_here),
            Rule::new([from_outside]),
        ]
    }

    fn pick(&self, ip: Ip, outer: bool, count: u32) -> Rule {
        let (mut exprs, place) = self.keyed.load(ip, Reg::R0);
        exprs.push(random_place(outer, count, place));
        exprs.extend(self.translate(ip, Reg::R0));
        Rule::new(exprs)
    }

    /// A returning client goes to its slot; a new one picks a place and is remembered, or is
    /// not when there is no room to remember.
    fn sticky_pick(&self, ip: Ip, outer: bool, count: u32, seconds: u32) -> Vec<Rule> {
        let mut rules: Vec<Rule> = places(outer, count)
            .map(|place| {
                let (mut exprs, at) = self.load_with_client(ip);
                exprs.push(Expr::Immediate {
                    data: place.to_ne_bytes().to_vec(),
                    dreg: at,
                });
                exprs.push(Expr::Contains {
                    set: self.keyed.affinity().to_owned(),
                    key: Reg::R0,
                    inverted: false,
                });
                let slot = self.with(Shape::Slot { place });
                exprs.push(Expr::Verdict(Verdict::Goto(slot.name())));
                Rule::new(exprs)
            })
            .collect();
        let (mut exprs, at) = self.load_with_client(ip);
        exprs.push(random_place(outer, count, at));
        exprs.push(self.remember(seconds));
        exprs.extend(self.translate(ip, ip.behind(Reg::R0)));
        rules.push(Rule::new(exprs));
        rules.push(self.pick(ip, outer, count));
        rules
    }

    fn slot(&self, ip: Ip, place: u32, seconds: u32) -> Rule {
        let (mut exprs, at) = self.load_with_client(ip);
        exprs.push(Expr::Immediate {
            data: place.to_ne_bytes().to_vec(),
            dreg: at,
        });
        exprs.push(self.remember(seconds));
        exprs.extend(self.translate(ip, ip.behind(Reg::R0)));
        Rule::new(exprs)
    }

    /// Loads the client's address and the frontend's key behind it.
    fn load_with_client(&self, ip: Ip) -> (Vec<Expr>, Reg) {
        let (key, at) = self.keyed.load(ip, ip.behind(Reg::R0));
        let mut exprs = vec![load_source(ip, Reg::R0)];
        exprs.extend(key);
        (exprs, at)
    }

    fn remember(&self, seconds: u32) -> Expr {
        Expr::Update {
            set: self.keyed.affinity().to_owned(),
            key: Reg::R0,
            timeout_ms: u64::from(seconds) * 1000,
        }
    }

    /// Looks the endpoint up by the key and place at `key`, and sends the packet there.
    fn translate(&self, ip: Ip, key: Reg) -> [Expr; 2] {
        translate(ip, self.keyed.endpoints(), key)
    }
}

/// Looks a destination up in a map of address and port, and sends the packet there.
pub(crate) fn translate(ip: Ip, map: &str, key: Reg) -> [Expr; 2] {
    [
        Expr::Map {
            map: map.to_owned(),
            key,
            dreg: Reg::R0,
        },
        Expr::Nat {
            kind: NatKind::Destination,
            family: ip.family(),
            address: Reg::R0,
            port: Some(ip.behind(Reg::R0)),
        },
    ]
}

fn random_place(outer: bool, count: u32, dreg: Reg) -> Expr {
    Expr::RandomNumber {
        modulus: count,
        offset: if outer { OUTER } else { 0 },
        dreg,
    }
}

fn places(outer: bool, count: u32) -> impl Iterator<Item = u32> {
    let first = if outer { OUTER } else { 0 };
    first..first + count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        for name in [
            "svc-in-3",
            "port-out-1-sticky-10800",
            "svc-gate-0-2",
            "port-slot-65537-sticky-60",
        ] {
            let chain = Chain::parse(name).unwrap();
            assert_eq!(chain.name(), name);
        }
        for other in ["services", "svc-in", "svc-in-x", "prerouting", "a-in-1", ""] {
            assert_eq!(Chain::parse(other), None, "{other}");
        }
    }
}
