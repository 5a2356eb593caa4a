//! Prefixes as routes carry them (NLRI, network layer reachability information).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;

/// A prefix, with the path identifier that tells apart several paths to it (RFC 7911).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri {
    /// The prefix; its host bits are zero.
    pub prefix: IpNet,
    /// The path identifier; 0 where ADD-PATH is not in use.
    pub path_id: u32,
}

impl Nlri {
    /// A prefix without path identifier.
    pub fn new(prefix: impl Into<IpNet>) -> Nlri {
        Nlri {
            prefix: prefix.into().trunc(),
            path_id: 0,
        }
    }

    /// Octets that it takes on the wire.
    pub fn encoded_len(&self, add_path: bool) -> usize {
        let path_id = if add_path { 4 } else { 0 };
        path_id + 1 + usize::from(self.prefix.prefix_len().div_ceil(8))
    }

    /// Appends its wire form (RFC 4271 §4.3, RFC 7911 §3).
    pub(crate) fn encode(&self, add_path: bool, out: &mut BytesMut) {
        if add_path {
            out.put_u32(self.path_id);
        }
        let length = self.prefix.prefix_len();
        let octets = usize::from(length.div_ceil(8));
        out.put_u8(length);
        match self.prefix {
            IpNet::V4(net) => out.put_slice(&net.network().octets()[..octets]),
            IpNet::V6(net) => out.put_slice(&net.network().octets()[..octets]),
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            0 => self.prefix.fmt(f),
            id => write!(f, "{} (path {id})", self.prefix),
        }
    }
}

impl fmt::Debug for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a prefix can be a destination of unicast routes: not (part of) multicast, loopback, link-local
/// or reserved space. Others are to be ignored (RFC 4271 §6.3). The default routes can be.
pub fn is_destination(prefix: &IpNet) -> bool {
    match prefix {
        _ if prefix.prefix_len() == 0 => true,
        IpNet::V4(net) => {
            let first = net.network().octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpNet::V6(net) => {
            let address = net.network();
            !(address.is_multicast()
                || address.is_unicast_link_local()
                || net.prefix_len() == 128 && (address.is_loopback() || address.is_unspecified()))
        }
    }
}

/// Prefixes of one family, packed as on the wire: one allocation (or none, when it is a slice of
/// the message that it came in) whatever their number. Well-formed by construction.
#[derive(Clone)]
pub struct NlriList {
    family: Family,
    add_path: bool,
    count: usize,
    bytes: Bytes,
}

/// Why octets are no list of prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NlriError {
    /// The family has no IP prefixes.
    #[error("{0} is not a family of IP unicast prefixes")]
    Family(Family),
    /// More bits than an address of the family has.
    #[error("prefix length {length} at octet {at} is longer than an address of {family}")]
    TooLong {
        /// The length in bits.
        length: u8,
        /// Where it stands.
        at: usize,
        /// The family.
        family: Family,
    },
    /// The last prefix is cut off.
    #[error("the prefix at octet {0} is cut off")]
    CutOff(usize),
}

impl NlriList {
    /// An empty list.
    pub fn empty(family: Family) -> NlriList {
        NlriList {
            family,
            add_path: false,
            count: 0,
            bytes: Bytes::new(),
        }
    }

    /// The list of prefixes in octets of a message, shared, not copied. `add_path`: each has a
    /// path identifier before it.
    ///
    /// # Errors
    /// If they are not whole prefixes of the family, which must be a supported one.
    pub fn parse(family: Family, add_path: bool, bytes: Bytes) -> Result<NlriList, NlriError> {
        if !family.is_supported() {
            return Err(NlriError::Family(family));
        }
        let bits = family.address_bits().ok_or(NlriError::Family(family))?;
        let lead = if add_path { 4 } else { 0 };
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            let length = *bytes.get(at + lead).ok_or(NlriError::CutOff(at))?;
            if length > bits {
                return Err(NlriError::TooLong {
                    length,
                    at: at + lead,
                    family,
                });
            }
            let next = at + lead + 1 + usize::from(length.div_ceil(8));
            if next > bytes.len() {
                return Err(NlriError::CutOff(at));
            }
            at = next;
            count += 1;
        }
        Ok(NlriList {
            family,
            add_path,
            count,
            bytes,
        })
    }

    /// A list of prefixes. Those of another family than `family` are left out.
    pub fn pack(
        family: Family,
        add_path: bool,
        prefixes: impl IntoIterator<Item = Nlri>,
    ) -> NlriList {
        let mut bytes = BytesMut::new();
        let mut count = 0;
        for nlri in prefixes {
            if Family::of(&nlri.prefix) == family {
                nlri.encode(add_path, &mut bytes);
                count += 1;
            }
        }
        NlriList {
            family,
            add_path,
            count,
            bytes: bytes.freeze(),
        }
    }

    /// Their family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether they have path identifiers.
    pub fn add_path(&self) -> bool {
        self.add_path
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The prefixes in order. Host bits that the sender set are cleared.
    pub fn iter(&self) -> NlriIter<'_> {
        let v6 = self.family.afi == Family::AFI_IPV6;
        NlriIter {
            rest: &self.bytes,
            left: self.count,
            add_path: self.add_path,
            v6,
        }
    }

    /// Their wire form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<'a> IntoIterator for &'a NlriList {
    type Item = Nlri;
    type IntoIter = NlriIter<'a>;

    fn into_iter(self) -> NlriIter<'a> {
        self.iter()
    }
}

impl PartialEq for NlriList {
    /// Equal prefixes in equal order; octets may differ in host bits.
    fn eq(&self, other: &Self) -> bool {
        self.family == other.family
            && self.add_path == other.add_path
            && self.count == other.count
            && (self.bytes == other.bytes || self.iter().eq(other))
    }
}

impl Eq for NlriList {}

impl fmt::Debug for NlriList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// Iterates over a [`NlriList`].
#[derive(Debug, Clone)]
pub struct NlriIter<'a> {
    rest: &'a [u8],
    left: usize,
    add_path: bool,
    v6: bool,
}

impl NlriIter<'_> {
    fn prefix(&mut self) -> Option<IpNet> {
        let (&length, rest) = self.rest.split_first()?;
        let len = usize::from(length.div_ceil(8));
        self.rest = rest.get(len..)?;
        Some(if self.v6 {
            let address = Ipv6Addr::from(address::<16>(rest, len)?);
            Ipv6Net::new(address, length).ok()?.trunc().into()
        } else {
            let address = Ipv4Addr::from(address::<4>(rest, len)?);
            Ipv4Net::new(address, length).ok()?.trunc().into()
        })
    }
}

/// An address of which the first `len` octets stand there. What is behind them comes along where
/// there is something, because that is faster: host bits are cleared anyway.
fn address<const N: usize>(octets: &[u8], len: usize) -> Option<[u8; N]> {
    if let Some(whole) = octets.first_chunk() {
        return Some(*whole);
    }
    let mut address = [0; N];
    address.get_mut(..len)?.copy_from_slice(octets.get(..len)?);
    Some(address)
}

impl Iterator for NlriIter<'_> {
    type Item = Nlri;

    fn next(&mut self) -> Option<Nlri> {
        let mut path_id = 0;
        if self.add_path {
            let (id, rest) = self.rest.split_first_chunk()?;
            path_id = u32::from_be_bytes(*id);
            self.rest = rest;
        }
        let prefix = self.prefix()?;
        self.left -= 1;
        Some(Nlri { prefix, path_id })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for NlriIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(family: Family, add_path: bool, bytes: &'static [u8]) -> Result<Vec<String>, String> {
        NlriList::parse(family, add_path, Bytes::from_static(bytes))
            .map(|list| list.iter().map(|nlri| nlri.to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn prefixes_of_both_families() {
        let v4 = parse(
            Family::IPV4_UNICAST,
            false,
            &[0, 8, 10, 24, 10, 244, 1, 32, 10, 0, 0, 1],
        );
        assert_eq!(
            v4.unwrap(),
            ["0.0.0.0/0", "10.0.0.0/8", "10.244.1.0/24", "10.0.0.1/32"]
        );
        let v6 = parse(Family::IPV6_UNICAST, false, &[0, 16, 0xfd, 0, 7, 0xfe]);
        assert_eq!(v6.unwrap(), ["::/0", "fd00::/16", "fe00::/7"]);
    }

    #[test]
    fn path_identifiers() {
        let list = parse(
            Family::IPV4_UNICAST,
            true,
            &[0, 0, 0, 7, 8, 10, 0, 0, 0, 0, 8, 11],
        );
        assert_eq!(list.unwrap(), ["10.0.0.0/8 (path 7)", "11.0.0.0/8"]);
    }

    #[test]
    fn host_bits_are_cleared() {
        let list = parse(Family::IPV4_UNICAST, false, &[12, 10, 0xff]);
        assert_eq!(list.unwrap(), ["10.240.0.0/12"]);
    }

    #[test]
    fn what_is_no_list() {
        let v4 = Family::IPV4_UNICAST;
        assert_eq!(
            parse(v4, false, &[8, 10, 33, 1, 2, 3, 4, 5]).unwrap_err(),
            "prefix length 33 at octet 2 is longer than an address of ipv4-unicast"
        );
        assert_eq!(
            parse(v4, false, &[24, 1, 2]).unwrap_err(),
            "the prefix at octet 0 is cut off"
        );
        assert_eq!(
            parse(v4, true, &[0, 0, 0]).unwrap_err(),
            "the prefix at octet 0 is cut off"
        );
        assert_eq!(
            parse(Family { afi: 1, safi: 128 }, false, &[]).unwrap_err(),
            "afi 1 safi 128 is not a family of IP unicast prefixes"
        );
    }

    #[test]
    fn packing_is_the_inverse() {
        let prefixes = ["0.0.0.0/0", "10.244.1.0/24", "10.0.0.1/32"];
        let nlri = prefixes.map(|text| Nlri::new(text.parse::<IpNet>().unwrap()));
        for add_path in [false, true] {
            let list = NlriList::pack(Family::IPV4_UNICAST, add_path, nlri);
            let again = NlriList::parse(list.family(), add_path, list.as_bytes().clone()).unwrap();
            assert_eq!(again, list);
            assert!(again.iter().eq(nlri));
            assert_eq!(again.iter().len(), 3);
        }
    }

    #[test]
    fn destinations() {
        for yes in [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "1.1.1.1/32",
            "fd00::/8",
            "2000::/3",
        ] {
            assert!(is_destination(&yes.parse().unwrap()), "{yes}");
        }
        for no in [
            "127.0.0.0/8",
            "224.0.0.0/4",
            "0.0.0.0/8",
            "ff00::/8",
            "fe80::/64",
            "::1/128",
        ] {
            assert!(!is_destination(&no.parse().unwrap()), "{no}");
        }
    }
}
