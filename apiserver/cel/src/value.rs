//! Values at evaluation.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::library::quantity::Quantity;

/// A value. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed whole number.
    Int(i64),
    /// An unsigned one.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    String(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(Arc<List>),
    /// A map, or an object.
    Map(Arc<BTreeMap<Key, Value>>),
    /// A value that may not be there.
    Optional(Option<Arc<Value>>),
    /// A type.
    Type(Arc<str>),
    /// An IP address.
    Ip(IpAddr),
    /// A block of addresses.
    Cidr(IpNet),
    /// A quantity.
    Quantity(Quantity),
    /// A URL.
    Url(Arc<url::Url>),
    /// A semantic version.
    Semver(Arc<semver::Version>),
    /// A named format.
    Format(&'static str),
    /// What only its host understands, as an authorizer.
    Host(Arc<dyn HostObject>),
}

/// A value of the host, whose functions are its own.
pub trait HostObject: std::fmt::Debug + Send + Sync {
    /// The name of its type, as signatures have it.
    fn type_name(&self) -> &'static str;

    /// Calls a function of it.
    ///
    /// # Errors
    /// Says why it cannot.
    fn call(&self, function: &str, args: &[Value]) -> Result<Value, String>;
}

/// A list.
#[derive(Debug, Default)]
pub struct List {
    /// Its items.
    pub items: Vec<Value>,
    /// How its items are told apart.
    pub kind: ListKind,
}

/// How lists are compared and joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Item by item.
    #[default]
    Plain,
    /// As sets.
    Set,
    /// By these fields of their items.
    Map(Arc<[Key]>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond the signed ones.
    Uint(u64),
    /// A text.
    String(Arc<str>),
}

// === impl Key ===

impl Key {
    /// The key that a value is, if it can be one.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(number) => Self::Int(*number),
            Value::Uint(number) => match i64::try_from(*number) {
                Ok(number) => Self::Int(number),
                Err(_) => Self::Uint(*number),
            },
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e18 => {
                Self::Int(*number as i64)
            }
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    /// The key as a value.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => Value::Int(*number),
            Self::Uint(number) => Value::Uint(*number),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

// === impl Value ===

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// A plain list.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(List {
            items,
            kind: ListKind::Plain,
        }))
    }

    /// A map with texts as keys.
    pub fn map(entries: impl IntoIterator<Item = (impl Into<Arc<str>>, Self)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(key, value)| (Key::String(key.into()), value));
        Self::Map(Arc::new(entries.collect()))
    }

    /// A value that is there.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// A JSON value as it is: whole numbers are `int` where they fit.
    pub fn of_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Double(number.as_f64().unwrap_or_default()),
            },
            serde_json::Value::String(text) => Self::text(text.as_str()),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::of_json).collect())
            }
            serde_json::Value::Object(fields) => Self::map(
                fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), Self::of_json(value))),
            ),
        }
    }

    /// The value as JSON; `None` for what JSON has no form for.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => serde_json::Number::from_f64(*number)?.into(),
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD
                    .encode(bytes)
                    .into()
            }
            Self::Timestamp(time) => time.to_string().into(),
            Self::Duration(_) | Self::Quantity(_) | Self::Ip(_) | Self::Cidr(_) => {
                self.shown().into()
            }
            Self::List(list) => list
                .items
                .iter()
                .map(Self::to_json)
                .collect::<Option<Vec<_>>>()?
                .into(),
            Self::Map(map) => {
                let mut out = serde_json::Map::new();
                for (key, value) in map.iter() {
                    let Key::String(name) = key else {
                        return None;
                    };
                    out.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(out)
            }
            Self::Optional(Some(inner)) => inner.to_json()?,
            _ => return None,
        })
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Host(host) => host.type_name(),
        }
    }

    /// How much there is of it: elements, characters; 1 of all else.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.items.len() as u64,
            Self::Map(map) => map.len() as u64,
            _ => 1,
        }
    }

    /// How much there is of it and its parts: what comparing it may cost.
    pub fn weight(&self) -> u64 {
        match self {
            Self::List(list) => list.items.iter().map(Self::weight).sum::<u64>() + 1,
            Self::Map(map) => map.values().map(Self::weight).sum::<u64>() + map.len() as u64 + 1,
            other => other.size(),
        }
    }

    /// Whether two values are equal; values of different types are not, numbers aside.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (
                Self::Int(_) | Self::Uint(_) | Self::Double(_),
                Self::Int(_) | Self::Uint(_) | Self::Double(_),
            ) => self.compare(other) == Some(Ordering::Equal),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.equals(b),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other)))
            }
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a.to_canonical() == b.to_canonical(),
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Host(a), Self::Host(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Which is less, where that can be said.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// The value as people read it, and as `string()` gives it.
    pub fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Uint(number) => number.to_string(),
            Self::Double(number) => number.to_string(),
            Self::String(text) => text.to_string(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Timestamp(time) => time.to_string(),
            Self::Duration(nanos) => crate::library::time::shown(*nanos),
            Self::List(list) => {
                let items: Vec<String> = list.items.iter().map(Self::shown).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(map) => {
                let entries = map
                    .iter()
                    .map(|(key, value)| format!("{}: {}", key.to_value().shown(), value.shown()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
            Self::Optional(None) => "optional.none()".to_owned(),
            Self::Optional(Some(inner)) => format!("optional({})", inner.shown()),
            Self::Type(name) => name.to_string(),
            Self::Ip(address) => address.to_string(),
            Self::Cidr(block) => block.to_string(),
            Self::Quantity(quantity) => quantity.to_string(),
            Self::Url(url) => url.to_string(),
            Self::Semver(version) => version.to_string(),
            Self::Format(name) => (*name).to_owned(),
            Self::Host(host) => host.type_name().to_owned(),
        }
    }
}

// === impl List ===

impl List {
    fn equals(&self, other: &Self) -> bool {
        if self.items.len() != other.items.len() {
            return false;
        }
        match &self.kind {
            ListKind::Plain => self
                .items
                .iter()
                .zip(&other.items)
                .all(|(a, b)| a.equals(b)),
            ListKind::Set | ListKind::Map(_) => self
                .items
                .iter()
                .all(|item| other.items.iter().any(|one| one.equals(item))),
        }
    }

    /// Both lists as one: items of the second that the first has are not added to a set, and
    /// take the place of those of the same keys in a map.
    pub fn joined(&self, other: &Self) -> Self {
        let mut items = self.items.clone();
        for item in &other.items {
            let place = match &self.kind {
                ListKind::Plain => None,
                ListKind::Set => items.iter().position(|one| one.equals(item)),
                ListKind::Map(keys) => items.iter().position(|one| has_same_keys(one, item, keys)),
            };
            match place {
                Some(place) => items[place] = item.clone(),
                None => items.push(item.clone()),
            }
        }
        Self {
            items,
            kind: self.kind.clone(),
        }
    }
}

fn has_same_keys(a: &Value, b: &Value, keys: &[Key]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else {
        return false;
    };
    keys.iter().all(|key| match (a.get(key), b.get(key)) {
        (Some(a), Some(b)) => a.equals(b),
        (None, None) => true,
        _ => false,
    })
}
