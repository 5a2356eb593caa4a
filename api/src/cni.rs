//! The Container Network Interface as JSON (<https://www.cni.dev/docs/spec/>): what a plugin is
//! told and what it answers. The network agent is a plugin, and the node agent runs plugins.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attach::{HostPort, Protocol};

/// The versions of the specification that both sides speak, oldest first.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Key of the attachments that a collection (GC) keeps.
pub const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// Codes of [`Error`], by the specification's section "Error".
pub mod code {
    /// The version of the configuration is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The container or its network namespace is not there.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or malformed.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// What came in is not JSON.
    pub const UNDECODABLE: u32 = 6;
    /// The configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// The same may succeed later.
    pub const TRY_AGAIN: u32 = 11;
    /// No container can be attached now (STATUS).
    pub const UNAVAILABLE: u32 = 50;
    /// The plugin's own: it did not work.
    pub const FAILED: u32 = 100;
}

/// Whether a version is at least another, both of [`VERSIONS`].
pub fn at_least(version: &str, other: &str) -> bool {
    let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
    place(version) >= place(other)
}

/// What a plugin answers when it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[error("{msg}{}{details} (code {code})", if .details.is_empty() { "" } else { ": " })]
pub struct Error {
    /// Version of the configuration.
    pub cni_version: String,
    /// Of [`code`], or the plugin's own from 100 on.
    pub code: u32,
    /// What failed, briefly.
    pub msg: String,
    /// More of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// What a plugin answers when it attached a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Success {
    /// Version of the configuration.
    pub cni_version: String,
    /// The links that it made, here and in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses that it gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Ip>,
    /// The routes that it made in the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// How the container resolves names.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub dns: Value,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes; since version 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The container's network namespace, for a link in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// `4` or `6`; until version 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With its prefix length.
    pub address: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Place of its link among the interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// What else it has.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A container's attachment to a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The link in it.
    pub ifname: String,
}

/// A port of the node that leads to the container (capability `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`; `tcp` without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The node's address; every one without it.
    #[serde(default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

impl From<&HostPort> for PortMapping {
    fn from(port: &HostPort) -> Self {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        Self {
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: protocol.to_owned(),
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<&PortMapping> for HostPort {
    type Error = String;

    fn try_from(mapping: &PortMapping) -> Result<Self, String> {
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            other => return Err(format!("protocol {other:?} is not tcp, udp or sctp")),
        };
        let host_ip: Option<IpAddr> = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| format!("hostIP {text:?} is no address"))?,
            ),
        };
        if mapping.host_port == 0 || mapping.container_port == 0 {
            return Err("port 0 cannot be mapped".to_owned());
        }
        Ok(Self {
            host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
            host_port: mapping.host_port,
            container_port: mapping.container_port,
            protocol,
        })
    }
}

/// Whether a text can name a network or a container: a letter or digit, then those and `_.-`.
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether the kernel takes a text as a link's name.
pub fn is_interface_name(text: &str) -> bool {
    let length = 1..=15;
    let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    length.contains(&text.len()) && text != "." && text != ".." && !text.contains(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_ordered() {
        assert!(at_least("1.1.0", "1.1.0") && at_least("1.0.0", "0.4.0"));
        assert!(!at_least("0.3.1", "0.4.0") && !at_least("0.2.0", "0.3.1"));
    }

    #[test]
    fn results_of_other_plugins_are_read() {
        let of_bridge = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "cni0", "mac": "aa:bb:cc:dd:ee:ff"},
                {"name": "eth0", "mac": "aa:bb:cc:dd:ee:f0", "sandbox": "/ns/a"}],
            "ips": [{"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.1", "mtu": 1400}],
            "dns": {"nameservers": ["10.96.0.10"]},
        });
        let read: Success = serde_json::from_value(of_bridge.clone()).unwrap();
        assert_eq!(read.ips[0].gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!(serde_json::to_value(read).unwrap(), of_bridge);
    }

    #[test]
    fn port_mappings_read_back() {
        for (text, good) in [
            (
                json!({"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}),
                true,
            ),
            (
                json!({"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "::"}),
                true,
            ),
            (
                json!({"hostPort": 1, "containerPort": 1, "protocol": "icmp"}),
                false,
            ),
            (json!({"hostPort": 0, "containerPort": 1}), false),
            (
                json!({"hostPort": 1, "containerPort": 1, "hostIP": "here"}),
                false,
            ),
        ] {
            let mapping: PortMapping = serde_json::from_value(text).unwrap();
            let port = HostPort::try_from(&mapping);
            assert_eq!(port.is_ok(), good, "{mapping:?}");
            if let Ok(port) = port {
                assert_eq!(HostPort::try_from(&PortMapping::from(&port)), Ok(port));
            }
        }
    }

    #[test]
    fn names() {
        assert!(is_identifier("a_b.c-1") && !is_identifier("-a") && !is_identifier(""));
        assert!(is_interface_name("eth0") && !is_interface_name("a234567890123456"));
        assert!(!is_interface_name("..") && !is_interface_name("a/b"));
    }
}
