//! Names that are made of addresses: those below `pod`, and those of `in-addr.arpa` and
//! `ip6.arpa`.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::services::host_label;
use super::{Answer, Question, Zone, records};

impl Zone {
    /// `10-244-1-7.namespace.pod`: an address with dashes.
    pub(super) fn pod(&self, question: &Question<'_>, labels: &[&str]) -> Answer {
        match labels {
            [] | [_] => Answer::NoData,
            [dashed, _namespace] => match parse_dashed(dashed) {
                Some(ip) => self.addresses(question, std::iter::once(ip)),
                None => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    /// The names of an address: of its Service, and of endpoints of headless ones.
    pub(super) fn reverse(&self, question: &Question<'_>) -> Answer {
        let Ok(net) = question.name.parse_arpa_name() else {
            return Answer::NotOurs;
        };
        let ours = self.cidrs.iter().any(|cidr| cidr.contains(&net.addr()));
        if net.prefix_len() != net.max_prefix_len() {
            return Answer::NotOurs;
        }
        let ip = net.addr();
        let mut names: Vec<Name> = self
            .cluster_ips
            .get(&ip)
            .map(|key| self.below(&[&key.name, &key.namespace, "svc"]))
            .into_iter()
            .collect();
        let headless = self.services.iter().filter(|(_, facts)| facts.headless);
        for (key, _) in headless {
            let here = self.ready(key).filter(|(endpoint, _)| endpoint.ip == ip);
            names.extend(here.map(|(endpoint, _)| {
                self.below(&[&host_label(endpoint), &key.name, &key.namespace, "svc"])
            }));
        }
        match (names.is_empty(), ours, self.complete) {
            (true, true, true) => Answer::NoName,
            (true, true, false) => Answer::NotReady,
            (true, false, _) => Answer::NotOurs,
            (false, ..) if !question.wants(RecordType::PTR) => Answer::NoData,
            (false, ..) => {
                let records_of = names.into_iter().map(|name| {
                    let owner = question.name.clone();
                    Record::from_rdata(owner, self.ttl_s, RData::PTR(PTR(name)))
                });
                records(records_of.collect())
            }
        }
    }
}

fn parse_dashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>();
    v4.map(IpAddr::from)
        .ok()
        .or_else(|| text.replace('-', ":").parse().ok())
}
