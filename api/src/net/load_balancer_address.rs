//! `LoadBalancerAddress`: an address that Services have.

use std::net::IpAddr;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An address of a `LoadBalancerPool` that a Service has, or several that share it. The object is
/// named after the address (see [`address_name`]), so that creating it is the atomic claim.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "net.peapod.dev",
    version = "v1",
    kind = "LoadBalancerAddress",
    plural = "loadbalanceraddresses"
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerAddressSpec {
    /// The address.
    pub address: String,
    /// Name of its pool.
    pub pool: String,
    /// Under which key Services share it; without one it has one Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing_key: Option<String>,
    /// Who has it.
    pub services: Vec<LoadBalancerAddressService>,
}

/// A Service that has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerAddressService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ports, as `TCP/80`, in order.
    #[serde(default)]
    pub ports: Vec<String>,
}

/// The name of the object for an address: every character that a name cannot hold becomes a dash,
/// with IPv6 written out, so that one address has one name.
///
/// ```
/// use peapod_api::net::address_name;
/// assert_eq!(address_name("192.0.2.1".parse().unwrap()), "192-0-2-1");
/// assert_eq!(
///     address_name("2001:db8::1".parse().unwrap()),
///     "2001-0db8-0000-0000-0000-0000-0000-0001"
/// );
/// ```
pub fn address_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|segment| format!("{segment:04x}"));
            groups.join("-")
        }
    }
}
