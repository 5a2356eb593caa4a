//! JSON laid out for people, two spaces a level: compact JSON in pieces goes in, and comes out
//! with line ends and spaces. Nothing is parsed but brackets, commas and texts.

/// What is known of the text so far.
#[derive(Debug, Default)]
pub struct Layout {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// A bracket was opened, and nothing stands in it yet.
    just_opened: bool,
}

// === impl Layout ===

impl Layout {
    /// Lays out the next piece.
    pub fn piece(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() * 2);
        for &byte in json {
            self.byte(byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_text {
            out.push(byte);
            self.in_text = self.escaped || byte != b'"';
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        let closes = matches!(byte, b'}' | b']');
        let opened = std::mem::take(&mut self.just_opened);
        if opened && !closes && !byte.is_ascii_whitespace() {
            self.line(out);
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                self.depth += 1;
                self.just_opened = true;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if !opened {
                    self.line(out);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                self.line(out);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                out.push(byte);
                self.in_text = true;
            }
            space if space.is_ascii_whitespace() => self.just_opened = opened,
            other => out.push(other),
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

/// Lays out a whole document.
pub fn laid_out(json: &[u8]) -> Vec<u8> {
    Layout::default().piece(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn as_others_do_it() {
        for value in [
            json!({}),
            json!([]),
            json!({"a": {}, "b": [], "c": [1, {"d": null}], "e\"\\": "x,{}[]:\"\\", "f": true}),
            json!("text"),
        ] {
            let expected = serde_json::to_string_pretty(&value).unwrap();
            let compact = value.to_string();
            assert_eq!(laid_out(compact.as_bytes()), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(keys in proptest::collection::vec(".{0,5}", 0..6), at: usize) {
            let value: Value = keys.iter().map(|key| json!({key: [key, {}]})).collect();
            let json = value.to_string();
            let (head, tail) = json.as_bytes().split_at(at % (json.len() + 1));
            let mut layout = Layout::default();
            let pieces = [layout.piece(head), layout.piece(tail)].concat();
            let expected = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(pieces, expected.into_bytes());
        }
    }
}
