//! Reads a few fields out of encoded JSON without building the rest: a tree of wanted paths
//! guides the decoder, which skips everything else.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The wanted paths as a tree; leaves hold the slot that the value goes to.
#[derive(Debug, Default)]
pub struct Wanted {
    slot: Option<usize>,
    children: Vec<(String, Wanted)>,
}

// === impl Wanted ===

impl Wanted {
    /// Adds a dotted path, whose value goes to `slot`.
    pub fn add(&mut self, path: &str, slot: usize) {
        let mut node = self;
        for step in path.split('.') {
            let found = node.children.iter().position(|(name, _)| name == step);
            let at = found.unwrap_or_else(|| {
                node.children.push((step.to_owned(), Self::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        node.slot = Some(slot);
    }

    /// The part below a field.
    pub fn child(&self, name: &str) -> Option<&Self> {
        let found = self.children.iter().find(|(field, _)| field == name);
        found.map(|(_, child)| child)
    }
}

/// Fills slots with the texts of the wanted scalars; numbers and booleans as JSON spells them.
pub struct Fill<'a> {
    /// What is wanted from here on.
    pub wanted: &'a Wanted,
    /// Where it goes.
    pub slots: &'a mut [Box<str>],
}

/// The scalar at a dotted path of an encoded object, as text; empty where there is none.
pub fn field(object: &[u8], path: &str) -> String {
    let mut wanted = Wanted::default();
    wanted.add(path, 0);
    let mut slots = [Box::default()];
    let fill = Fill {
        wanted: &wanted,
        slots: &mut slots,
    };
    // What is no object has no fields.
    let _ = fill.deserialize(&mut serde_json::Deserializer::from_slice(object));
    let [found] = slots;
    found.into()
}

impl Fill<'_> {
    fn put(self, text: &str) {
        if let Some(slot) = self.wanted.slot.and_then(|at| self.slots.get_mut(at)) {
            *slot = text.into();
        }
    }
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.wanted.child(&key) {
                Some(wanted) => map.next_value_seed(Fill {
                    wanted,
                    slots: self.slots,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(&value.to_string());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
