//! Names below `svc`: Services, their ports and their endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use peapod_api::attach::Protocol;

use super::{Answer, Question, Zone};
use crate::core::facts::{EndpointFacts, PortFacts, ServiceFacts, ServiceKey, SliceFacts};

impl Zone {
    /// `labels` are those before `svc`.
    pub(super) fn service(&self, question: &Question<'_>, labels: &[&str]) -> Answer {
        let (name, namespace) = match labels {
            [] => return Answer::NoData,
            [namespace] => return self.namespace(namespace),
            [.., name, namespace] => (*name, *namespace),
        };
        let key = ServiceKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let Some(service) = self.services.get(&key) else {
            return Answer::NoName;
        };
        match labels[..labels.len() - 2] {
            [] => self.service_itself(question, &key, service),
            ["_tcp" | "_udp" | "_sctp"] => Answer::NoData,
            [hostname] => self.endpoint(question, &key, hostname),
            [port, protocol] => match (port.strip_prefix('_'), protocol) {
                (Some(port), "_tcp") => self.srv(question, &key, service, port, Protocol::Tcp),
                (Some(port), "_udp") => self.srv(question, &key, service, port, Protocol::Udp),
                (Some(port), "_sctp") => self.srv(question, &key, service, port, Protocol::Sctp),
                _ => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    /// A namespace is no name of its own, but exists where it has services.
    fn namespace(&self, namespace: &str) -> Answer {
        let first = ServiceKey {
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        match self.services.range(first..).next() {
            Some((key, _)) if key.namespace == namespace => Answer::NoData,
            _ => Answer::NoName,
        }
    }

    fn service_itself(
        &self,
        question: &Question<'_>,
        key: &ServiceKey,
        service: &ServiceFacts,
    ) -> Answer {
        if let Some(target) = &service.external_name {
            return self.alias(question, target);
        }
        if question.kind == RecordType::SRV {
            let ports = service.ports.iter();
            return self.srv_of(question, key, service, ports.collect());
        }
        if !service.headless {
            return self.addresses(question, service.cluster_ips.iter().copied());
        }
        let ready = self.ready(key).map(|(endpoint, _)| endpoint.ip);
        let ips: BTreeSet<IpAddr> = ready.collect();
        // A headless service without endpoints has no name, says the specification.
        if ips.is_empty() {
            return Answer::NoName;
        }
        self.addresses(question, ips.into_iter())
    }

    fn alias(&self, question: &Question<'_>, target: &str) -> Answer {
        let Ok(mut target) = Name::from_ascii(target) else {
            return Answer::NoData;
        };
        target.set_fqdn(true);
        Answer::Alias {
            record: Box::new(Record::from_rdata(
                question.name.clone(),
                self.ttl_s,
                RData::CNAME(CNAME(target.clone())),
            )),
            target,
        }
    }

    /// Endpoints that take connections, each with its slice.
    pub(super) fn ready(
        &self,
        key: &ServiceKey,
    ) -> impl Iterator<Item = (&EndpointFacts, &SliceFacts)> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        slices.flat_map(|slice| {
            let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
            ready.map(move |endpoint| (endpoint, &**slice))
        })
    }

    /// `hostname.service.namespace.svc`, or an endpoint's address with dashes for a host name.
    fn endpoint(&self, question: &Question<'_>, key: &ServiceKey, hostname: &str) -> Answer {
        let named = self.ready(key).filter(|(e, _)| host_label(e) == hostname);
        let ips: BTreeSet<IpAddr> = named.map(|(endpoint, _)| endpoint.ip).collect();
        if ips.is_empty() {
            return Answer::NoName;
        }
        self.addresses(question, ips.into_iter())
    }

    fn srv(
        &self,
        question: &Question<'_>,
        key: &ServiceKey,
        service: &ServiceFacts,
        port: &str,
        protocol: Protocol,
    ) -> Answer {
        let named = |p: &&PortFacts| p.name == port && p.protocol == protocol;
        let ports: Vec<&PortFacts> = service.ports.iter().filter(named).collect();
        if ports.is_empty() {
            return Answer::NoName;
        }
        if !question.wants(RecordType::SRV) {
            return Answer::NoData;
        }
        self.srv_of(question, key, service, ports)
    }

    fn srv_of(
        &self,
        question: &Question<'_>,
        key: &ServiceKey,
        service: &ServiceFacts,
        ports: Vec<&PortFacts>,
    ) -> Answer {
        let own = [key.name.as_str(), key.namespace.as_str(), "svc"];
        let mut targets = BTreeSet::new();
        let mut addresses: BTreeMap<Name, BTreeSet<IpAddr>> = BTreeMap::new();
        for port in ports {
            if !service.headless {
                let target = self.below(&own);
                let ips = addresses.entry(target.clone()).or_default();
                ips.extend(&service.cluster_ips);
                targets.insert((target, port.port));
                continue;
            }
            for (endpoint, slice) in self.ready(key) {
                let same = |p: &&PortFacts| p.name == port.name && p.protocol == port.protocol;
                let label = host_label(endpoint);
                let target = self.below(&[label.as_str(), own[0], own[1], own[2]]);
                if let Some(number) = slice.ports.iter().find(same).map(|p| p.port) {
                    let ips = addresses.entry(target.clone()).or_default();
                    ips.insert(endpoint.ip);
                    targets.insert((target, number));
                }
            }
        }
        if targets.is_empty() {
            return Answer::NoName;
        }
        let weight = (100 / targets.len()).max(1) as u16;
        let srv = |(target, port)| {
            let srv = RData::SRV(SRV::new(0, weight, port, target));
            Record::from_rdata(question.name.clone(), self.ttl_s, srv)
        };
        let addresses = addresses
            .iter()
            .flat_map(|(target, ips)| ips.iter().map(move |ip| self.address(target, *ip)));
        Answer::Records {
            answers: targets.into_iter().map(srv).collect(),
            additionals: addresses.collect(),
        }
    }
}

/// An endpoint's label below its service: its host name, or its address with dashes.
pub(super) fn host_label(endpoint: &EndpointFacts) -> String {
    match &endpoint.hostname {
        Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
        _ => endpoint.ip.to_string().replace(['.', ':'], "-"),
    }
}
