//! Communities: tags on routes (RFC 1997), extended (RFC 4360) and large (RFC 8092).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::codes::serde_as_text;

/// A community: the AS that defined it, and a value of its own. Text: `65000:100`, or the name of
/// a well-known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

impl Community {
    /// RFC 8326: this path is about to go away; prefer any other.
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// RFC 9494: this path is stale, kept for want of a better one.
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// RFC 9494: never keep this path as stale for long.
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// RFC 7999: discard traffic to this prefix.
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// RFC 1997: not outside of this AS.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// RFC 1997: to nobody.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// RFC 1997 (NO_EXPORT_SUBCONFED): not to external peers.
    pub const LOCAL_AS: Community = Community(0xffff_ff03);
    /// RFC 3765: not over bilateral peerings.
    pub const NO_PEER: Community = Community(0xffff_ff04);

    const NAMES: [(Community, &str); 8] = [
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self::LLGR_STALE, "llgr-stale"),
        (Self::NO_LLGR, "no-llgr"),
        (Self::BLACKHOLE, "blackhole"),
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::LOCAL_AS, "local-as"),
        (Self::NO_PEER, "no-peer"),
    ];

    /// The community of an AS with a value.
    pub fn new(asn: u16, value: u16) -> Community {
        Community(u32::from(asn) << 16 | u32::from(value))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(known, _)| known == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((known, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*known);
        }
        let [asn, value] = numbers(text).ok_or_else(|| ParseCommunityError::standard(text))?;
        match (u16::try_from(asn), u16::try_from(value)) {
            (Ok(asn), Ok(value)) => Ok(Community::new(asn, value)),
            _ => Err(ParseCommunityError::standard(text)),
        }
    }
}

/// A large community: three numbers of four octets, the first the AS that defined it. Text:
/// `4200000000:1:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity {
    /// The AS that defined it.
    pub global: u32,
    /// First value.
    pub local1: u32,
    /// Second value.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [global, local1, local2] =
            numbers(text).ok_or_else(|| ParseCommunityError::large(text))?;
        Ok(LargeCommunity {
            global,
            local1,
            local2,
        })
    }
}

/// An extended community: eight octets, typed. Text: `rt:65000:1` and `soo:10.0.0.1:1` (route
/// target and site of origin), else its octets as `0x...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtCommunity(pub [u8; 8]);

impl ExtCommunity {
    const ROUTE_TARGET: u8 = 2;
    const ROUTE_ORIGIN: u8 = 3;
    const TWO_OCTET_AS: u8 = 0;
    const IPV4: u8 = 1;
    const FOUR_OCTET_AS: u8 = 2;
    const NON_TRANSITIVE: u8 = 0x40;

    /// Whether it may cross from one AS to another.
    pub fn is_transitive(self) -> bool {
        self.0[0] & Self::NON_TRANSITIVE == 0
    }

    fn split(text: &str) -> Option<[u8; 8]> {
        let (kind, rest) = text.split_once(':')?;
        let subtype = match kind {
            "rt" => Self::ROUTE_TARGET,
            "soo" => Self::ROUTE_ORIGIN,
            _ => return None,
        };
        let (administrator, value) = rest.split_once(':')?;
        let value: u32 = value.parse().ok()?;
        if let Ok(asn) = administrator.parse::<u16>() {
            let ([a, b], [v, w, x, y]) = (asn.to_be_bytes(), value.to_be_bytes());
            return Some([Self::TWO_OCTET_AS, subtype, a, b, v, w, x, y]);
        }
        let (kind, [a, b, c, d]) = match administrator.parse::<u32>() {
            Ok(asn) => (Self::FOUR_OCTET_AS, asn.to_be_bytes()),
            Err(_) => (Self::IPV4, administrator.parse::<Ipv4Addr>().ok()?.octets()),
        };
        let [v, w] = u16::try_from(value).ok()?.to_be_bytes();
        Some([kind, subtype, a, b, c, d, v, w])
    }
}

impl fmt::Display for ExtCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = match subtype {
            Self::ROUTE_TARGET => "rt",
            Self::ROUTE_ORIGIN => "soo",
            _ => "",
        };
        let four = u32::from_be_bytes([a, b, c, d]);
        let last = u16::from_be_bytes([e, g]);
        match kind {
            Self::TWO_OCTET_AS if !name.is_empty() => {
                let value = u32::from_be_bytes([c, d, e, g]);
                write!(f, "{name}:{}:{value}", u16::from_be_bytes([a, b]))
            }
            Self::IPV4 if !name.is_empty() => write!(f, "{name}:{}:{last}", Ipv4Addr::from(four)),
            // A small number here would read back as a two-octet one.
            Self::FOUR_OCTET_AS if !name.is_empty() && four > u32::from(u16::MAX) => {
                write!(f, "{name}:{four}:{last}")
            }
            _ => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl FromStr for ExtCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = match text.strip_prefix("0x") {
            Some(hex) if hex.len() == 16 => u64::from_str_radix(hex, 16).ok().map(u64::to_be_bytes),
            Some(_) => None,
            None => Self::split(text),
        };
        octets
            .map(ExtCommunity)
            .ok_or_else(|| ParseCommunityError::extended(text))
    }
}

/// A text that is no community of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: write {form}")]
pub struct ParseCommunityError {
    text: String,
    kind: &'static str,
    form: &'static str,
}

impl ParseCommunityError {
    fn standard(text: &str) -> Self {
        let form = "two numbers up to 65535, as 65000:100, or a name such as no-export";
        Self {
            text: text.to_string(),
            kind: "a community",
            form,
        }
    }

    fn large(text: &str) -> Self {
        let form = "three numbers, as 4200000000:1:2";
        Self {
            text: text.to_string(),
            kind: "a large community",
            form,
        }
    }

    fn extended(text: &str) -> Self {
        let form = "rt:65000:1, soo:10.0.0.1:1, or eight octets as 0x0123456789abcdef";
        Self {
            text: text.to_string(),
            kind: "an extended community",
            form,
        }
    }
}

/// The numbers of a text that has exactly `N`, with colons between.
fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

serde_as_text!(Community, LargeCommunity, ExtCommunity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        for text in [
            "0:0",
            "65000:100",
            "65535:65535",
            "no-export",
            "graceful-shutdown",
        ] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        for text in ["4200000000:1:2", "0:0:0"] {
            assert_eq!(text.parse::<LargeCommunity>().unwrap().to_string(), text);
        }
        for text in [
            "rt:65000:4000000000",
            "soo:10.0.0.1:7",
            "rt:4200000000:65535",
            "0x0304050607080900",
            "0x0202000000010001",
        ] {
            assert_eq!(text.parse::<ExtCommunity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_text_is_refused_with_the_form() {
        for text in ["", "1", "1:2:3", "65536:1", "no-such", "1:-1"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        for text in ["1:2", "1:2:3:4", "1:2:4294967296"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
        for text in [
            "rt:1",
            "xx:1:2",
            "rt:70000:70000",
            "0x01",
            "rt:10.0.0.1:65536",
        ] {
            assert!(text.parse::<ExtCommunity>().is_err(), "{text}");
        }
        assert_eq!(
            "x".parse::<LargeCommunity>().unwrap_err().to_string(),
            "\"x\" is not a large community: write three numbers, as 4200000000:1:2"
        );
    }
}
