//! The cluster's zone: what a name below the cluster's domain stands for.
//!
//! After the Kubernetes DNS specification 1.1.0 and what CoreDNS does where that is silent.
//! Facts of the API go in, records come out; how questions arrive, and what becomes of names
//! that are not the cluster's, is none of this module's business.

mod ips;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::facts::{ServiceFacts, ServiceKey, SliceFacts};

/// Version of the specification, at `dns-version`.
const SCHEMA_VERSION: &str = "1.1.0";
/// Seconds that a client may remember that there is no such name: new ones appear soon.
const NEGATIVE_TTL_S: u32 = 5;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records of the name, and others that the client will ask for next.
    Records {
        /// Of the name itself.
        answers: Vec<Record>,
        /// Addresses of what `answers` point to.
        additionals: Vec<Record>,
    },
    /// The name is another one's alias; whoever asked wants that one's records, too.
    Alias {
        /// The CNAME.
        record: Box<Record>,
        /// What it points to.
        target: Name,
    },
    /// The name exists, but has no record of this type.
    NoData,
    /// There is no such name.
    NoName,
    /// The zone is not known yet: to say that a name does not exist would be a lie.
    NotReady,
    /// Not a name of the cluster.
    NotOurs,
}

/// The zone.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    /// `origin` as lower case labels.
    labels: Vec<String>,
    ttl_s: u32,
    /// Addresses of the name server itself.
    server: Vec<IpAddr>,
    /// Ranges whose addresses nobody else can name.
    cidrs: Vec<IpNet>,
    complete: bool,
    services: BTreeMap<ServiceKey, Arc<ServiceFacts>>,
    slices: BTreeMap<ServiceKey, BTreeMap<String, Arc<SliceFacts>>>,
    owners: BTreeMap<(String, String), ServiceKey>,
    cluster_ips: BTreeMap<IpAddr, ServiceKey>,
}

/// A question about one name.
struct Question<'a> {
    name: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }
}

impl Zone {
    /// An empty zone that answers [`Answer::NotReady`] until it is [`complete`](Self::complete).
    pub fn new(origin: Name, ttl_s: u32, server: Vec<IpAddr>, cidrs: Vec<IpNet>) -> Self {
        let mut origin = origin.to_lowercase();
        origin.set_fqdn(true);
        Zone {
            labels: labels(&origin).unwrap_or_default(),
            origin,
            ttl_s,
            server,
            cidrs,
            complete: false,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
            cluster_ips: BTreeMap::new(),
        }
    }

    /// Everything that there is has been told.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// A Service was seen, or is gone.
    pub fn set_service(&mut self, key: &ServiceKey, facts: Option<Arc<ServiceFacts>>) {
        let old = match &facts {
            Some(facts) => self.services.insert(key.clone(), facts.clone()),
            None => self.services.remove(key),
        };
        for ip in old.iter().flat_map(|old| &old.cluster_ips) {
            if self.cluster_ips.get(ip) == Some(key) {
                self.cluster_ips.remove(ip);
            }
        }
        for ip in facts.iter().flat_map(|facts| &facts.cluster_ips) {
            self.cluster_ips.insert(*ip, key.clone());
        }
    }

    /// An EndpointSlice was seen, or is gone.
    pub fn set_slice(&mut self, namespace: &str, name: &str, facts: Option<Arc<SliceFacts>>) {
        let id = (namespace.to_owned(), name.to_owned());
        let old = match &facts {
            Some(facts) => self.owners.insert(id, facts.service.clone()),
            None => self.owners.remove(&id),
        };
        if let Some(old) = old
            && let Some(slices) = self.slices.get_mut(&old)
        {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&old);
            }
        }
        if let Some(facts) = facts {
            let slices = self.slices.entry(facts.service.clone()).or_default();
            slices.insert(name.to_owned(), facts);
        }
    }

    /// Forgets what a fresh list does not have.
    pub fn retain_services(&mut self, listed: &BTreeSet<ServiceKey>) {
        let gone = self.services.keys().filter(|key| !listed.contains(key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.set_service(&key, None);
        }
    }

    /// Forgets what a fresh list does not have.
    pub fn retain_slices(&mut self, listed: &BTreeSet<(String, String)>) {
        let gone = self.owners.keys().filter(|id| !listed.contains(id));
        for (namespace, name) in gone.cloned().collect::<Vec<_>>() {
            self.set_slice(&namespace, &name, None);
        }
    }

    /// The record that goes with [`Answer::NoData`] and [`Answer::NoName`].
    pub fn negative(&self) -> Record {
        let mut record = self.soa(&self.origin);
        record.ttl = NEGATIVE_TTL_S;
        record
    }

    /// What `name` stands for.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(labels) = labels(name) else {
            return Answer::NotOurs;
        };
        let question = Question { name, kind };
        if let [.., "in-addr" | "ip6", "arpa"] = words(&labels)[..] {
            return self.reverse(&question);
        }
        let Some(relative) = labels.strip_suffix(&self.labels[..]) else {
            return Answer::NotOurs;
        };
        if !self.complete {
            return Answer::NotReady;
        }
        match words(relative)[..] {
            [] => self.apex(&question),
            ["dns-version"] => self.version(&question),
            ["dns"] => Answer::NoData,
            ["ns", "dns"] => self.addresses(&question, self.server.iter().copied()),
            [.., "svc"] => self.service(&question, &words(relative)[..relative.len() - 1]),
            [.., "pod"] => self.pod(&question, &words(relative)[..relative.len() - 1]),
            _ => Answer::NoName,
        }
    }

    fn apex(&self, question: &Question<'_>) -> Answer {
        let mut answers = Vec::new();
        if question.wants(RecordType::SOA) {
            answers.push(self.soa(question.name));
        }
        if question.wants(RecordType::NS) {
            let server = RData::NS(NS(self.below(&["ns", "dns"])));
            answers.push(Record::from_rdata(
                question.name.clone(),
                self.ttl_s,
                server,
            ));
        }
        records(answers)
    }

    fn soa(&self, owner: &Name) -> Record {
        let soa = SOA::new(
            self.below(&["ns", "dns"]),
            self.below(&["hostmaster"]),
            1,
            7200,
            1800,
            86400,
            NEGATIVE_TTL_S,
        );
        Record::from_rdata(owner.clone(), self.ttl_s, RData::SOA(soa))
    }

    fn version(&self, question: &Question<'_>) -> Answer {
        if !question.wants(RecordType::TXT) {
            return Answer::NoData;
        }
        let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
        records(vec![Record::from_rdata(
            question.name.clone(),
            self.ttl_s,
            text,
        )])
    }

    fn addresses(&self, question: &Question<'_>, ips: impl Iterator<Item = IpAddr>) -> Answer {
        let wanted = ips.filter(|ip| match ip {
            IpAddr::V4(_) => question.wants(RecordType::A),
            IpAddr::V6(_) => question.wants(RecordType::AAAA),
        });
        records(wanted.map(|ip| self.address(question.name, ip)).collect())
    }

    fn address(&self, owner: &Name, ip: IpAddr) -> Record {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        Record::from_rdata(owner.clone(), self.ttl_s, data)
    }

    /// A name below the zone's origin.
    fn below(&self, labels: &[&str]) -> Name {
        let relative = Name::from_labels(labels.iter().map(|label| label.as_bytes()));
        let full = relative.and_then(|relative| relative.append_domain(&self.origin));
        // Only a name of more than 255 bytes fails, which the API server does not let in.
        full.unwrap_or_else(|_| self.origin.clone())
    }
}

fn records(answers: Vec<Record>) -> Answer {
    if answers.is_empty() {
        return Answer::NoData;
    }
    Answer::Records {
        answers,
        additionals: Vec::new(),
    }
}

/// A name's labels in lower case; `None` for one that is not text.
fn labels(name: &Name) -> Option<Vec<String>> {
    let text = |label: &[u8]| String::from_utf8(label.to_ascii_lowercase()).ok();
    name.iter().map(text).collect()
}

fn words(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}
