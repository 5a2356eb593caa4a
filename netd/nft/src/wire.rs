//! Netlink messages and attributes as bytes: writing, and reading what may be malformed.

/// `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;

const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A growing run of netlink messages.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

/// The head of one nfnetlink message.
pub(crate) struct Head {
    /// Subsystem in the high byte, message in the low one.
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// `nfgenmsg.nfgen_family`.
    pub family: u8,
    /// `nfgenmsg.res_id`.
    pub resource: u16,
}

impl Writer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes a message; `body` writes its attributes.
    pub(crate) fn message(&mut self, head: &Head, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&head.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&head.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&head.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[head.family, 0]);
        self.bytes.extend_from_slice(&head.resource.to_be_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds flags to the message that starts at `start`.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        let old = u16::from_ne_bytes([self.bytes[start + 6], self.bytes[start + 7]]);
        self.bytes[start + 6..start + 8].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    pub(crate) fn attr(&mut self, kind: u16, payload: &[u8]) {
        let len = (4 + payload.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    pub(crate) fn string(&mut self, kind: u16, text: &str) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.attr(kind, &payload);
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// One received message.
pub(crate) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// The attributes behind `struct nfgenmsg`.
    pub(crate) fn attrs(&self) -> Attrs<'a> {
        Attrs(self.payload.get(4..).unwrap_or_default())
    }

    /// `nfgenmsg.nfgen_family`.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }
}

/// The messages of a datagram; ends at the first malformed one.
pub(crate) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..HEADER_LEN)?;
        let len = u32::from_ne_bytes(head[0..4].try_into().ok()?) as usize;
        let payload = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes(head[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(head[6..8].try_into().ok()?),
            sequence: u32::from_ne_bytes(head[8..12].try_into().ok()?),
            payload,
        })
    }
}

/// A run of attributes as (kind, payload); ends at the first malformed one.
#[derive(Clone, Copy)]
pub(crate) struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find_map(|(k, payload)| (k == kind).then_some(payload))
    }

    pub(crate) fn nested(self, kind: u16) -> Attrs<'a> {
        Attrs(self.find(kind).unwrap_or_default())
    }

    pub(crate) fn string(self, kind: u16) -> Option<String> {
        let bytes = self.find(kind)?;
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    pub(crate) fn be16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }
}

impl<'a> IntoIterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = AttrIter<'a>;

    fn into_iter(self) -> AttrIter<'a> {
        AttrIter(self.0)
    }
}

pub(crate) struct AttrIter<'a>(&'a [u8]);

impl<'a> Iterator for AttrIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..4)?;
        let len = u16::from_ne_bytes([head[0], head[1]]) as usize;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        let mut writer = Writer::default();
        let head = Head {
            kind: 7,
            flags: 1,
            sequence: 42,
            family: 2,
            resource: 10,
        };
        writer.message(&head, |w| {
            w.string(1, "abc");
            w.nested(2, |w| w.be32(3, 9));
        });
        let received = Messages(writer.bytes()).next().unwrap();
        assert_eq!((received.kind, received.sequence), (7, 42));
        assert_eq!(received.attrs().string(1).as_deref(), Some("abc"));
        assert_eq!(received.attrs().nested(2).be32(3), Some(9));
    }

    #[test]
    fn malformed_input_ends_the_run() {
        for bytes in [&[][..], &[3, 0, 1, 0], &[200, 0, 1, 0, 1], &[0; 7]] {
            assert_eq!(Attrs(bytes).into_iter().count(), 0, "{bytes:?}");
            assert_eq!(Messages(bytes).count(), 0, "{bytes:?}");
        }
    }
}
