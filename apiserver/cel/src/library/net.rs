//! IP addresses, CIDRs and URLs.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use url::Url;

use super::call::Outcome;
use crate::eval::fault;
use crate::value::{Key, Value};

/// Reads an address: no zone, no leading zeros, no IPv4 inside of IPv6.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

/// Reads a block of addresses.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    parse_ip(address)?;
    let plain = length == "0" || !length.starts_with(['0', '+']);
    plain.then(|| text.parse().ok())?
}

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("ip", [Value::String(text)]) => match parse_ip(text) {
            Some(address) => Ok(Value::Ip(address)),
            None => fault(format!(
                "IP Address {text:?} parse error during conversion from string"
            )),
        },
        ("isIP", [Value::String(text)]) => Ok(Value::Bool(parse_ip(text).is_some())),
        ("ip.isCanonical", [Value::String(text)]) => match parse_ip(text) {
            Some(address) => Ok(Value::Bool(address.to_string() == **text)),
            None => fault(format!(
                "IP Address {text:?} parse error during conversion from string"
            )),
        },
        ("cidr", [Value::String(text)]) => match parse_cidr(text) {
            Some(block) => Ok(Value::Cidr(block)),
            None => fault(format!(
                "network address parse error during conversion from string: {text:?}"
            )),
        },
        ("isCIDR", [Value::String(text)]) => Ok(Value::Bool(parse_cidr(text).is_some())),
        ("url", [Value::String(text)]) => match parse_url(text) {
            Some(url) => Ok(Value::Url(Arc::new(url))),
            None => fault(format!(
                "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
            )),
        },
        ("isURL", [Value::String(text)]) => Ok(Value::Bool(parse_url(text).is_some())),
        (name, [Value::Ip(address)]) => return of_ip(name, *address),
        (name, [Value::Cidr(block), rest @ ..]) => return of_cidr(name, *block, rest),
        (name, [Value::Url(url)]) => return of_url(name, url),
        _ => return None,
    })
}

fn of_ip(name: &str, address: IpAddr) -> Option<Outcome> {
    let truth = match (name, address) {
        ("family", IpAddr::V4(_)) => return Some(Ok(Value::Int(4))),
        ("family", IpAddr::V6(_)) => return Some(Ok(Value::Int(6))),
        ("isUnspecified", address) => address.is_unspecified(),
        ("isLoopback", address) => address.is_loopback(),
        ("isLinkLocalMulticast", IpAddr::V4(v4)) => v4.octets()[..3] == [224, 0, 0],
        ("isLinkLocalMulticast", IpAddr::V6(v6)) => v6.segments()[0] & 0xff0f == 0xff02,
        ("isLinkLocalUnicast", address) => is_link_local(address),
        ("isGlobalUnicast", address) => {
            let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
            !(broadcast
                || address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || is_link_local(address))
        }
        _ => return None,
    };
    Some(Ok(Value::Bool(truth)))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn of_cidr(name: &str, block: IpNet, rest: &[Value]) -> Option<Outcome> {
    let inner = |text: &str| {
        text.parse::<IpNet>()
            .ok()
            .filter(|_| parse_cidr(text).is_some())
    };
    let truth = match (name, rest) {
        ("containsIP", [Value::Ip(address)]) => block.contains(address),
        ("containsIP", [Value::String(text)]) => match parse_ip(text) {
            Some(address) => block.contains(&address),
            None => {
                return Some(fault(format!(
                    "IP Address {text:?} parse error during conversion from string"
                )));
            }
        },
        ("containsCIDR", [Value::Cidr(other)]) => block.contains(other),
        ("containsCIDR", [Value::String(text)]) => match inner(text) {
            Some(other) => block.contains(&other),
            None => {
                return Some(fault(format!(
                    "network address parse error during conversion from string: {text:?}"
                )));
            }
        },
        ("ip", []) => return Some(Ok(Value::Ip(block.addr()))),
        ("masked", []) => return Some(Ok(Value::Cidr(block.trunc()))),
        ("prefixLength", []) => return Some(Ok(Value::Int(i64::from(block.prefix_len())))),
        _ => return None,
    };
    Some(Ok(Value::Bool(truth)))
}

/// An absolute URL, or an absolute path.
fn parse_url(text: &str) -> Option<Url> {
    match text.starts_with('/') {
        true => Url::parse("path:///").ok()?.join(text).ok(),
        false => Url::parse(text).ok(),
    }
}

fn of_url(name: &str, url: &Url) -> Option<Outcome> {
    let path_only = url.scheme() == "path";
    let host = || {
        url.host_str()
            .filter(|_| !path_only)
            .unwrap_or_default()
            .to_owned()
    };
    let text = match name {
        "getScheme" if path_only => String::new(),
        "getScheme" => url.scheme().to_owned(),
        "getHost" => match url.port() {
            Some(port) => format!("{}:{port}", host()),
            None => host(),
        },
        "getHostname" => host().trim_matches(['[', ']']).to_owned(),
        "getPort" => url.port().map(|port| port.to_string()).unwrap_or_default(),
        "getEscapedPath" => url.path().to_owned(),
        "getQuery" => {
            let mut found: std::collections::BTreeMap<Key, Vec<Value>> =
                std::collections::BTreeMap::new();
            for (key, value) in url.query_pairs() {
                found
                    .entry(Key::from(&*key))
                    .or_default()
                    .push(Value::text(&*value));
            }
            let entries = found
                .into_iter()
                .map(|(key, values)| (key, Value::list(values)));
            return Some(Ok(Value::Map(Arc::new(entries.collect()))));
        }
        _ => return None,
    };
    Some(Ok(Value::text(text)))
}
