//! The wire format of protocol buffers: fields with a number, each a number or bytes.

use thiserror::Error;

/// A message is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It ends within a field.
    #[error("unexpected end of the message")]
    Short,
    /// A number is longer than 64 bits, or a field has no number.
    #[error("integer overflow")]
    Overflow,
    /// A field is of a kind that is not used any more.
    #[error("illegal wire type {0}")]
    Kind(u8),
    /// A text is no UTF-8.
    #[error("invalid UTF-8 in a string")]
    Utf8,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A varint, or the bits of a fixed number.
    Number(u64),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; it ends at the first fault.
pub struct Fields<'a>(pub &'a [u8]);

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

/// A message within another, not complete yet.
#[must_use = "a message that is opened must be closed"]
pub struct Open(usize);

// === impl Field ===

impl<'a> Field<'a> {
    /// The bytes; none for a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    /// The text.
    pub fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()).map_err(|_| WireError::Utf8)
    }

    /// The number, as a signed one; 0 for bytes.
    pub fn number(self) -> i64 {
        match self {
            Self::Number(number) => number.cast_signed(),
            Self::Bytes(_) => 0,
        }
    }
}

// === impl Fields ===

/// Takes a number without a key off the front.
pub fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(WireError::Short)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Overflow)
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, WireError> {
        varint(&mut self.0)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], WireError> {
        let count = usize::try_from(count).map_err(|_| WireError::Short)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed(&mut self, count: u64) -> Result<u64, WireError> {
        let bytes = self.take(count)?.iter().rev();
        Ok(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn field(&mut self) -> Result<(u32, Field<'a>), WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Overflow)?;
        let field = match (tag & 7) as u8 {
            0 => Field::Number(self.varint()?),
            1 => Field::Number(self.fixed(8)?),
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Number(self.fixed(4)?),
            other => return Err(WireError::Kind(other)),
        };
        Ok((number, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

// === impl Message ===

impl Message {
    /// A number without a key.
    pub fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn key(&mut self, number: u32, kind: u64) {
        self.varint(u64::from(number) << 3 | kind);
    }

    /// A field that is a whole number; negative ones take ten bytes.
    pub fn number(&mut self, number: u32, value: i64) {
        self.key(number, 0);
        self.varint(value.cast_unsigned());
    }

    /// A field of type `double`.
    pub fn double(&mut self, number: u32, value: f64) {
        self.key(number, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A field of text, bytes or a finished message.
    pub fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.head(number, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// What stands before `len` bytes that are to follow.
    pub fn head(&mut self, number: u32, len: usize) {
        self.key(number, 2);
        self.varint(len as u64);
    }

    /// Begins a message within this one. Its length is not known yet: one byte is kept for it,
    /// which is enough for most.
    pub fn open(&mut self, number: u32) -> Open {
        self.key(number, 2);
        self.0.push(0);
        Open(self.0.len())
    }

    /// Ends a message within this one.
    pub fn close(&mut self, open: Open) {
        let mut length = (self.0.len() - open.0) as u64;
        let mut at = open.0 - 1;
        while length >= 0x80 {
            self.0[at] = (length & 0x7f) as u8 | 0x80;
            length >>= 7;
            at += 1;
            self.0.insert(at, 0);
        }
        self.0[at] = length as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0];
        let fields: Result<Vec<_>, _> = Fields(&message).collect();
        assert_eq!(
            fields.unwrap(),
            [
                (1, Field::Number(150)),
                (2, Field::Bytes(b"hi")),
                (3, Field::Number(1)),
            ]
        );
    }

    #[test]
    fn writes_what_it_reads() {
        let mut message = Message::default();
        message.number(1, -1);
        let outer = message.open(2);
        message.bytes(3, &[b'x'; 200]);
        let inner = message.open(4);
        message.double(5, 0.5);
        message.close(inner);
        message.close(outer);
        let fields: Result<Vec<_>, _> = Fields(&message.0).collect();
        let fields = fields.unwrap();
        assert_eq!((fields[0].0, fields[0].1.number()), (1, -1));
        let inside: Result<Vec<_>, _> = Fields(fields[1].1.bytes()).collect();
        let inside = inside.unwrap();
        assert_eq!(inside[0], (3, Field::Bytes(&[b'x'; 200])));
        assert_eq!(
            Fields(inside[1].1.bytes()).next(),
            Some(Ok((5, Field::Number(0.5f64.to_bits()))))
        );
    }

    #[test]
    fn malformed_messages_end_with_their_fault() {
        for (message, fault) in [
            (&[0x08][..], WireError::Short),
            (&[0x12, 0x05, 1], WireError::Short),
            (&[0x0b], WireError::Kind(3)),
            (&[0xff; 11], WireError::Overflow),
        ] {
            let fields: Vec<_> = Fields(message).collect();
            assert_eq!(fields, [Err(fault)], "{message:?}");
        }
    }
}
