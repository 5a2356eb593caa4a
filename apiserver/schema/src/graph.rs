//! The graph of types: an arena of objects, lists, maps and scalars that refer to each other by
//! index, so that recursive types are possible and thousands of fields stay small.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::custom::Structural;
use crate::numbers::Way;

/// A name in a schema; those of built-in kinds live in the binary.
pub type Name = Cow<'static, str>;

/// Brings the text of a quantity to its canonical form (`0.5` to `500m`), or refuses it with the
/// sentence for the user. The arithmetic of quantities is not this crate's.
pub type CanonicalQuantity = fn(&str) -> Result<String, String>;

/// Where a type stands in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(u32);

/// A type.
#[derive(Debug)]
pub enum Type {
    /// A value without parts.
    Scalar(Scalar),
    /// A list.
    List(List),
    /// String keys, values of one type.
    Map(Map),
    /// Named fields.
    Object(Object),
}

/// A value without parts, as far as the schema knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// A quantity (`100m`): text, or a number that becomes text.
    Quantity,
    /// A number of 32 bits or text.
    IntOrString,
    /// A number of 64 bits or text, as custom resources have them.
    Int64OrString,
    /// RFC 3339, whole seconds, in UTC.
    Time,
    /// RFC 3339 with microseconds, in UTC.
    MicroTime,
    /// Base64.
    Bytes,
    /// Any JSON value, kept as it is.
    Any,
}

/// A list.
#[derive(Debug)]
pub struct List {
    /// Type of the items.
    pub item: TypeId,
    /// How lists of two parties become one.
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`, with its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    Atomic,
    /// Items are scalars, each at most once.
    Set,
    /// Items are objects, known by these fields.
    Map(Box<[Name]>),
}

/// A map.
#[derive(Debug)]
pub struct Map {
    /// Type of the values.
    pub value: TypeId,
    /// Whether the map is one value, of one owner.
    pub atomic: bool,
}

/// An object with named fields.
#[derive(Debug, Default)]
pub struct Object {
    /// Its name, as `core.v1.PodSpec`; empty where a schema has none.
    pub name: Name,
    /// The fields, sorted by name.
    pub fields: Box<[Field]>,
    /// Whether fields that are not named here are kept.
    pub keeps_unknown: bool,
    /// Whether the object is one value, of one owner.
    pub atomic: bool,
    /// The schema as the author of a custom resource wrote it; [`Self::name`] is then the name
    /// under which it is published.
    pub document: Option<Arc<Value>>,
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name on the wire.
    pub name: Name,
    /// Its type.
    pub ty: TypeId,
    /// Whether the field is always written.
    pub required: bool,
    /// What a missing field means.
    pub default: Option<Value>,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// How it is written in protobuf; `None` where it has no number.
    pub way: Option<&'static Way>,
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key` of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list's items are merged, not replaced.
    pub merge: bool,
    /// The patch replaces the value as a whole.
    pub replace: bool,
    /// The patch may name the fields that stay (`$retainKeys`).
    pub retain_keys: bool,
    /// The field by which items are known; without one they are scalars.
    pub merge_key: Option<Name>,
}

impl Object {
    /// The field of a name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self
            .fields
            .binary_search_by(|field| field.name.as_ref().cmp(name))
            .ok()?;
        Some(&self.fields[at])
    }
}

/// An arena of types.
#[derive(Debug)]
pub struct Graph {
    types: Vec<Type>,
    named: BTreeMap<Name, TypeId>,
    /// See [`CanonicalQuantity`].
    pub(crate) quantity: CanonicalQuantity,
}

impl Graph {
    /// An empty graph.
    pub fn new(quantity: CanonicalQuantity) -> Self {
        Self {
            types: Vec::new(),
            named: BTreeMap::new(),
            quantity,
        }
    }

    /// Adds a type.
    pub fn add(&mut self, ty: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        self.types.push(ty);
        id
    }

    /// The type of a name: where it will stand, for a name that is not described yet.
    pub fn named(&mut self, name: Name) -> TypeId {
        if let Some(&id) = self.named.get(&name) {
            return id;
        }
        let id = self.add(Type::Scalar(Scalar::Any));
        self.named.insert(name, id);
        id
    }

    /// Describes a type.
    pub fn set(&mut self, id: TypeId, ty: Type) {
        self.types[id.0 as usize] = ty;
    }

    /// Gives an object the document that is published of it.
    pub fn publish(&mut self, id: TypeId, document: &Value) {
        if let Type::Object(object) = &mut self.types[id.0 as usize] {
            object.document = Some(Arc::new(document.clone()));
        }
    }

    /// The names that the graph describes, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(AsRef::as_ref)
    }

    /// The type of a name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.named.get(name).copied()
    }

    /// The type at a place.
    pub fn at(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// A view of the type at a place.
    pub fn node(&self, id: TypeId) -> Node<'_> {
        Node { graph: self, id }
    }
}

/// The schema of one kind: a root in a shared graph. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    graph: Arc<Graph>,
    root: TypeId,
    custom: Option<Arc<Structural>>,
}

impl Schema {
    /// The schema that starts at `root`.
    pub fn new(graph: Arc<Graph>, root: TypeId) -> Self {
        Self {
            graph,
            root,
            custom: None,
        }
    }

    /// The schema of a custom resource, as its definition has it. `name` is that under which it
    /// is published: `com.example.v1.CronTab`.
    pub fn of_custom(name: &str, document: &Value, quantity: CanonicalQuantity) -> Self {
        let mut graph = crate::builtin::metadata_graph(quantity);
        let root = crate::structural::add_custom(&mut graph, name, document);
        Self {
            custom: Some(Arc::new(Structural::of(document))),
            ..Self::new(Arc::new(graph), root)
        }
    }

    /// What a custom resource's definition says; none for built-in kinds.
    pub fn custom(&self) -> Option<&Arc<Structural>> {
        self.custom.as_ref()
    }

    /// The schema of a named type, as `core.v1.Pod`.
    pub fn named(graph: &Arc<Graph>, name: &str) -> Option<Self> {
        let root = graph.find(name)?;
        Some(Self::new(graph.clone(), root))
    }

    /// The graph it stands in.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Its root.
    pub fn root(&self) -> Node<'_> {
        self.graph.node(self.root)
    }
}

/// A borrowed place in a graph, for walks along a value.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) id: TypeId,
}

impl<'a> Node<'a> {
    /// The type here.
    pub fn ty(self) -> &'a Type {
        self.graph.at(self.id)
    }

    /// Another type of the same graph.
    pub fn to(self, id: TypeId) -> Self {
        Self { id, ..self }
    }

    /// The field of an object or the value of a map; `None` where the schema knows none.
    pub fn child(self, name: &str) -> Option<Self> {
        match self.ty() {
            Type::Object(object) => Some(self.to(object.field(name)?.ty)),
            Type::Map(map) => Some(self.to(map.value)),
            _ => None,
        }
    }

    /// The item of a list.
    pub fn item(self) -> Option<Self> {
        match self.ty() {
            Type::List(list) => Some(self.to(list.item)),
            _ => None,
        }
    }

    /// The type's name in Go, for messages: `int32`, `[]v1.Container`, `map[string]string`.
    pub fn go_name(self) -> String {
        match self.ty() {
            Type::Scalar(scalar) => scalar.go_name().to_owned(),
            Type::List(list) => format!("[]{}", self.to(list.item).go_name()),
            Type::Map(map) => format!("map[string]{}", self.to(map.value).go_name()),
            Type::Object(object) => match object.name.split_once('.') {
                Some((_, name)) => name.to_owned(),
                None => "map[string]interface {}".to_owned(),
            },
        }
    }
}

impl Scalar {
    fn go_name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Number => "float64",
            Self::Bool => "bool",
            Self::Quantity => "resource.Quantity",
            Self::IntOrString | Self::Int64OrString => "intstr.IntOrString",
            Self::Time => "v1.Time",
            Self::MicroTime => "v1.MicroTime",
            Self::Bytes => "[]uint8",
            Self::Any => "interface {}",
        }
    }
}
