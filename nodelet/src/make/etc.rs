//! The files in `/etc` that a node gives to its pods: hosts, hostname, resolv.conf.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use peapod_api::k8s_openapi;

use super::sandbox::hostname;
use crate::core::spec_of;

/// The resolver takes no more of them.
const NAMESERVERS_MAX: usize = 3;
/// More search domains than this are cut.
const SEARCHES_MAX: usize = 32;

/// How names are resolved in the cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    /// Addresses of the cluster's DNS.
    pub servers: Vec<IpAddr>,
    /// `cluster.local`
    pub domain: String,
}

/// A `resolv.conf`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver`
    pub nameservers: Vec<String>,
    /// `search`
    pub searches: Vec<String>,
    /// `options`
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads one; what is not understood is skipped.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            let values = words.take_while(|word| !word.starts_with(['#', ';']));
            match key {
                "nameserver" => conf.nameservers.extend(values.take(1).map(str::to_owned)),
                "search" | "domain" => conf.searches = values.map(str::to_owned).collect(),
                "options" => conf.options = values.map(str::to_owned).collect(),
                _ => {}
            }
        }
        conf
    }

    /// Whether it only names a resolver on the machine itself, which pods do not reach.
    pub fn is_stub(&self) -> bool {
        let local = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !self.nameservers.is_empty() && self.nameservers.iter().all(local)
    }

    /// Writes it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

fn unique(list: Vec<String>, max: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for item in list {
        if !seen.contains(&item) && seen.len() < max {
            seen.push(item);
        }
    }
    seen
}

/// A pod's `resolv.conf`, from its `dnsPolicy` and `dnsConfig` and the node's own.
pub fn resolv_conf(pod: &Pod, cluster: &ClusterDns, host: &ResolvConf) -> ResolvConf {
    let spec = spec_of(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "ClusterFirst" => spec.host_network != Some(true),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut conf = match policy {
        "None" => ResolvConf::default(),
        _ if cluster_first && !cluster.servers.is_empty() => of_cluster(pod, cluster, host),
        _ => host.clone(),
    };
    let own = spec.dns_config.as_ref();
    let extend = |into: &mut Vec<String>, more: Option<&Vec<String>>| {
        into.extend(more.into_iter().flatten().cloned());
    };
    extend(
        &mut conf.nameservers,
        own.and_then(|own| own.nameservers.as_ref()),
    );
    extend(
        &mut conf.searches,
        own.and_then(|own| own.searches.as_ref()),
    );
    for option in own
        .and_then(|own| own.options.as_deref())
        .unwrap_or_default()
    {
        let name = option.name.clone().unwrap_or_default();
        conf.options
            .retain(|old| old.split(':').next() != Some(name.as_str()));
        conf.options.push(match &option.value {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name,
        });
    }
    conf.nameservers = unique(conf.nameservers, NAMESERVERS_MAX);
    conf.searches = unique(conf.searches, SEARCHES_MAX);
    conf
}

fn of_cluster(pod: &Pod, cluster: &ClusterDns, host: &ResolvConf) -> ResolvConf {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = &cluster.domain;
    let mut searches = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    searches.extend(host.searches.iter().cloned());
    ResolvConf {
        nameservers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// A pod's `/etc/hosts`. With the host's network it is the host's, and the aliases.
pub fn hosts(pod: &Pod, ips: &[IpAddr], domain: &str, host_file: &str) -> String {
    let spec = spec_of(pod);
    let mut text = String::new();
    if spec.host_network == Some(true) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(host_file);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        let (host, full) = hostname(pod, domain);
        for ip in ips {
            let _ = match &full {
                Some(full) => writeln!(text, "{ip}\t{full}\t{host}"),
                None => writeln!(text, "{ip}\t{host}"),
            };
        }
    }
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let meta = json!({"name": "web", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn conf(spec: serde_json::Value) -> String {
        let cluster = ClusterDns {
            servers: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
        };
        let host = "# by hand\nnameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n";
        resolv_conf(&pod(spec), &cluster, &ResolvConf::parse(host)).render()
    }

    #[test]
    fn dns_policies() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local \
                       corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
        let host = "search corp.example\nnameserver 192.0.2.53\noptions timeout:1\n";
        assert_eq!(conf(json!({"containers": []})), cluster);
        assert_eq!(conf(json!({"containers": [], "hostNetwork": true})), host);
        assert_eq!(
            conf(json!({"containers": [], "dnsPolicy": "Default"})),
            host
        );
        let with_net = json!({"containers": [], "hostNetwork": true,
            "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(conf(with_net), cluster);
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "searches": ["a.b"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}});
        assert_eq!(
            conf(own),
            "search a.b\nnameserver 1.1.1.1\noptions ndots:2 rotate\n"
        );
    }

    #[test]
    fn a_stub_is_recognised() {
        assert!(ResolvConf::parse("nameserver 127.0.0.53\n").is_stub());
        assert!(!ResolvConf::parse("nameserver 127.0.0.53\nnameserver 9.9.9.9\n").is_stub());
    }

    #[test]
    fn hosts_with_aliases() {
        let spec = json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let text = hosts(
            &pod(spec),
            &["10.244.0.5".parse().unwrap()],
            "cluster.local",
            "",
        );
        assert!(text.contains("10.244.0.5\th.s.shop.svc.cluster.local\th\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
    }
}
