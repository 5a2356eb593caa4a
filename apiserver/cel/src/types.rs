//! The types of values, with the sizes that bound what an expression over them may cost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type. Sizes are the most elements or characters that a value may have; they do not make
/// types different.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    Dyn,
    /// `null`
    Null,
    /// A boolean.
    Bool,
    /// A signed whole number of 64 bits.
    Int,
    /// An unsigned one.
    Uint,
    /// A floating-point number.
    Double,
    /// A text of at most so many characters.
    String(u64),
    /// Bytes, at most so many.
    Bytes(u64),
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list of at most so many items.
    List(Arc<Type>, u64),
    /// A map of at most so many entries.
    Map(Arc<Type>, Arc<Type>, u64),
    /// An object with named fields.
    Object(Arc<ObjectType>),
    /// A value that may not be there.
    Optional(Arc<Type>),
    /// A type of Kubernetes' libraries, as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type as a value.
    Type,
    /// A type to be found, in signatures.
    Param(u8),
}

/// An object's type.
#[derive(Clone, Debug, Default)]
pub struct ObjectType {
    /// Its name, for messages and literals.
    pub name: String,
    /// Its fields.
    pub fields: BTreeMap<String, Type>,
    /// Whether it may have others too, which are then of any type; literals of its parts
    /// (`Object.spec{}`) are of this type.
    pub open: bool,
}

/// The size of what has no bound.
pub const UNBOUNDED: u64 = u64::MAX;

// === impl Type ===

impl Type {
    /// A text without a bound.
    pub const STRING: Self = Self::String(UNBOUNDED);
    /// Bytes without a bound.
    pub const BYTES: Self = Self::Bytes(UNBOUNDED);

    /// A list without a bound.
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item), UNBOUNDED)
    }

    /// A map without a bound.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value), UNBOUNDED)
    }

    /// A value that may not be there.
    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// An object type.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        Self::Object(Arc::new(ObjectType {
            name: name.to_owned(),
            fields: fields.into_iter().collect(),
            open: false,
        }))
    }

    /// Whether the type is not known before evaluation.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// The most elements or characters of a value.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(max) | Self::Bytes(max) | Self::List(_, max) | Self::Map(_, _, max) => {
                *max
            }
            Self::Optional(inner) => inner.size(),
            Self::Dyn => UNBOUNDED,
            Self::Object(object) => object.fields.len() as u64,
            _ => 1,
        }
    }

    /// The size with another bound.
    pub fn sized(self, max: u64) -> Self {
        match self {
            Self::String(_) => Self::String(max),
            Self::Bytes(_) => Self::Bytes(max),
            Self::List(item, _) => Self::List(item, max),
            Self::Map(key, value, _) => Self::Map(key, value, max),
            other => other,
        }
    }

    /// The type of both; anything, where they differ.
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Self::String(*a.max(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Self::Bytes(*a.max(b)),
            (Self::List(a, m), Self::List(b, n)) => Self::List(Arc::new(a.join(b)), *m.max(n)),
            (Self::Map(k, v, m), Self::Map(l, w, n)) => {
                Self::Map(Arc::new(k.join(l)), Arc::new(v.join(w)), *m.max(n))
            }
            (Self::Optional(a), Self::Optional(b)) => Self::optional(a.join(b)),
            (a, b) if a.is_same(b) => a.clone(),
            _ => Self::Dyn,
        }
    }

    /// Whether both are the same type, sizes aside.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(_), Self::String(_)) | (Self::Bytes(_), Self::Bytes(_)) => true,
            (Self::List(a, _), Self::List(b, _)) | (Self::Optional(a), Self::Optional(b)) => {
                a.is_same(b)
            }
            (Self::Map(k, v, _), Self::Map(l, w, _)) => k.is_same(l) && v.is_same(w),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && !a.has_parts(),
        }
    }

    fn has_parts(&self) -> bool {
        matches!(
            self,
            Self::List(..)
                | Self::Map(..)
                | Self::Optional(_)
                | Self::Object(_)
                | Self::Opaque(_)
                | Self::Param(_)
        )
    }

    /// Whether a value of this type may stand where `wanted` is; `found` holds what the
    /// parameters of a signature turned out to be.
    pub fn fits(&self, wanted: &Self, found: &mut [Option<Self>; 4]) -> bool {
        match (self, wanted) {
            (_, Self::Param(index)) => {
                let slot = &mut found[usize::from(*index) % 4];
                match slot {
                    None => {
                        *slot = Some(self.clone());
                        true
                    }
                    Some(Self::Dyn) => true,
                    Some(before) if self.is_dyn() || is_alike(before, self) => {
                        *before = before.join(self);
                        true
                    }
                    Some(_) => false,
                }
            }
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            // An empty list or map literal has parts of any type.
            (Self::List(a, _), Self::List(b, _)) | (Self::Optional(a), Self::Optional(b)) => {
                a.fits(b, found)
            }
            (Self::Map(k, v, _), Self::Map(l, w, _)) => k.fits(l, found) && v.fits(w, found),
            // Null stands for what may be missing.
            (
                Self::Null,
                Self::Object(_)
                | Self::Timestamp
                | Self::Duration
                | Self::Optional(_)
                | Self::Opaque(_),
            ) => true,
            (a, b) => a.is_same(b),
        }
    }

    /// The type with what its parameters turned out to be.
    pub fn filled(&self, found: &[Option<Self>; 4]) -> Self {
        match self {
            Self::Param(index) => found[usize::from(*index) % 4].clone().unwrap_or(Self::Dyn),
            Self::List(item, max) => Self::List(Arc::new(item.filled(found)), *max),
            Self::Map(key, value, max) => Self::Map(
                Arc::new(key.filled(found)),
                Arc::new(value.filled(found)),
                *max,
            ),
            Self::Optional(inner) => Self::optional(inner.filled(found)),
            other => other.clone(),
        }
    }
}

/// Whether two types can be told to be one: the same, with parts that are not known.
fn is_alike(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => true,
        (Type::List(a, _), Type::List(b, _)) | (Type::Optional(a), Type::Optional(b)) => {
            is_alike(a, b)
        }
        (Type::Map(k, v, _), Type::Map(l, w, _)) => is_alike(k, l) && is_alike(v, w),
        (Type::Null, other) | (other, Type::Null) => {
            matches!(
                other,
                Type::Null
                    | Type::Object(_)
                    | Type::Timestamp
                    | Type::Duration
                    | Type::Optional(_)
                    | Type::Opaque(_)
            )
        }
        (a, b) => a.is_same(b),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::List(item, _) => write!(f, "list({item})"),
            Self::Map(key, value, _) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Opaque(name) => f.write_str(name),
            Self::Type => f.write_str("type"),
            Self::Param(index) => write!(f, "<{}>", ["A", "B", "C", "D"][usize::from(*index) % 4]),
        }
    }
}
