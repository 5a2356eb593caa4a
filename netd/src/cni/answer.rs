//! What the plugin prints. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use peapod_api::attach::AttachReply;
use peapod_api::cni::{Interface, Ip, Route, VERSIONS, at_least};
use serde_json::{Value, json};

use super::request::{Request, Target};
use crate::links::alias;
use crate::links::pod::{GATEWAY_V4, GATEWAY_V6};

/// The versions that are spoken, to a request of some version.
pub(super) fn versions(asked: &str) -> Value {
    let version = match asked {
        "" => VERSIONS[VERSIONS.len() - 1],
        asked => asked,
    };
    json!({"cniVersion": version, "supportedVersions": VERSIONS})
}

/// The result of an attachment, after what the plugins before it had.
pub(super) fn attached(
    request: &Request,
    target: &Target,
    reply: &AttachReply,
    mac: Option<String>,
) -> Value {
    let mut result = request.previous.clone().unwrap_or_default();
    result.cni_version = request.version.clone();
    let mtu = at_least(&request.version, "1.1.0").then_some(reply.mtu);
    result.interfaces.push(Interface {
        name: alias::link_name(&target.pod.uid),
        mtu,
        ..Interface::default()
    });
    let own = result.interfaces.len();
    result.interfaces.push(Interface {
        name: reply.interface.clone(),
        mac: mac.unwrap_or_default(),
        mtu,
        sandbox: target.netns.to_string_lossy().into_owned(),
    });
    for &ip in &reply.ips {
        let (family, gateway, everywhere): (_, IpAddr, IpAddr) = match ip {
            IpAddr::V4(_) => ("4", GATEWAY_V4.into(), Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => ("6", GATEWAY_V6.into(), Ipv6Addr::UNSPECIFIED.into()),
        };
        let old = !at_least(&request.version, "1.0.0");
        result.ips.push(Ip {
            version: old.then(|| family.to_owned()),
            address: ip.into(),
            gateway: Some(gateway),
            interface: Some(own),
        });
        result.routes.push(Route {
            dst: IpNet::new_assert(everywhere, 0),
            gw: Some(gateway),
            more: Default::default(),
        });
    }
    if !request.dns.is_null() {
        result.dns = request.dns.clone();
    }
    json!(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::request::Command;
    use peapod_api::attach::PodRef;

    fn result(version: &str) -> Value {
        let target = Target {
            pod: PodRef {
                namespace: "shop".into(),
                name: "web".into(),
                uid: "cni.a.b".into(),
            },
            netns: "/run/netns/abc".into(),
            interface: "eth0".into(),
            host_ports: vec![],
        };
        let request = Request {
            version: version.into(),
            command: Command::Add(target.clone()),
            socket: "/s".into(),
            dns: json!({"nameservers": ["10.96.0.10"]}),
            previous: None,
        };
        let reply = AttachReply {
            ips: vec!["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            interface: "eth0".into(),
            mtu: 1450,
        };
        attached(&request, &target, &reply, Some("02:00:00:00:00:05".into()))
    }

    #[test]
    fn a_result_has_what_its_version_has() {
        let newest = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": alias::link_name("cni.a.b"), "mtu": 1450},
                {"name": "eth0", "mac": "02:00:00:00:00:05", "mtu": 1450, "sandbox": "/run/netns/abc"},
            ],
            "ips": [
                {"address": "10.244.1.5/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd00::5/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                {"dst": "::/0", "gw": "fe80::1"},
            ],
            "dns": {"nameservers": ["10.96.0.10"]},
        });
        assert_eq!(result("1.1.0"), newest);
        let oldest = result("0.3.1");
        assert_eq!(oldest["ips"][1]["version"], "6");
        assert_eq!(oldest["interfaces"][1]["mtu"], Value::Null);
    }

    #[test]
    fn versions_are_told() {
        let told = versions("0.4.0");
        assert_eq!(told["cniVersion"], "0.4.0");
        assert_eq!(
            told["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }
}
