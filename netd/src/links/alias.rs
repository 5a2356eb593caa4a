//! How a pod's link is named, and what its alias says. Pure.
//!
//! The kernel keeps up to 255 bytes of alias with a link (`ip link` shows it), enough for who
//! it belongs to: so a restarted agent knows every attached pod by listing links.

use std::net::IpAddr;

use peapod_api::attach::PodRef;

/// Names of pods' links on the node start so. Nothing else may use it.
pub const PREFIX: &str = "pea";
/// First word of an alias.
const MARK: &str = "peapod";
/// `IFALIASZ` less its NUL.
const ALIAS_MAX: usize = 255;

/// The name of a pod's link on the node: the prefix and 48 bits of a hash of the UID, which
/// fills the 15 characters that a link's name may have.
pub fn link_name(uid: &str) -> String {
    format!("{PREFIX}{:012x}", fnv1a(uid.as_bytes()) & 0xffff_ffff_ffff)
}

/// FNV-1a, 64 bits: stable across versions, unlike the standard library's hashes.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The alias of a pod's link: mark, UID, addresses, namespace and name. A name that does not
/// fit is cut short; the UID is what identifies the pod.
pub fn encode(pod: &PodRef, ips: &[IpAddr]) -> String {
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    let mut alias = format!(
        "{MARK} {} {} {}/{}",
        pod.uid,
        ips.join(","),
        pod.namespace,
        pod.name
    );
    let end = (0..=ALIAS_MAX.min(alias.len())).rev();
    let cut = end.into_iter().find(|&at| alias.is_char_boundary(at));
    alias.truncate(cut.unwrap_or_default());
    alias
}

/// Reads an alias back; `None` for one that is not ours.
pub fn decode(alias: &str) -> Option<(PodRef, Vec<IpAddr>)> {
    let mut words = alias.split(' ');
    if words.next()? != MARK {
        return None;
    }
    let uid = words.next()?.to_owned();
    let ips = words.next()?;
    let ips: Result<Vec<IpAddr>, _> = ips.split(',').map(str::parse).collect();
    let (namespace, name) = words.next()?.split_once('/')?;
    let pod = PodRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid,
    };
    Some((pod, ips.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodRef {
        PodRef {
            namespace: "default".into(),
            name: name.into(),
            uid: "9c0d4d8e-6f0a-4c69-a59a-8f5f0d3a1b11".into(),
        }
    }

    #[test]
    fn an_alias_reads_back() {
        let ips = ["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let alias = encode(&pod("web"), &ips);
        assert_eq!(
            alias,
            "peapod 9c0d4d8e-6f0a-4c69-a59a-8f5f0d3a1b11 10.244.0.5,fd00::5 default/web"
        );
        assert_eq!(decode(&alias), Some((pod("web"), ips.to_vec())));
    }

    #[test]
    fn a_long_name_is_cut_and_the_rest_is_kept() {
        let ips = ["10.244.0.5".parse().unwrap()];
        let alias = encode(&pod(&"x".repeat(253)), &ips);
        assert_eq!(alias.len(), ALIAS_MAX);
        let (read, read_ips) = decode(&alias).unwrap();
        assert_eq!((read.uid, read_ips), (pod("").uid, ips.to_vec()));
    }

    #[test]
    fn other_aliases_are_not_ours() {
        for alias in ["", "my uplink", "peapod", "peapod uid", "peapod uid x a/b"] {
            assert_eq!(decode(alias), None, "{alias}");
        }
    }

    #[test]
    fn a_name_fits_a_link() {
        assert_eq!(link_name("a").len(), 15);
        assert_ne!(link_name("a"), link_name("b"));
    }
}
