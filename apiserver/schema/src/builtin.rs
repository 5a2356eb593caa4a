//! The built-in kinds' graph, read from two tables: `fields.tsv`, the facts of the published API,
//! and `overrides.tsv`, what those leave out.
//!
//! A row is a field: `type field kind required default list-type list-map-keys patch-strategy
//! patch-merge-key map-type`; the last says of the whole type whether it is one value. A row of
//! `overrides.tsv` names a field of `fields.tsv`, and its cells that are not empty take the place
//! of that row's; its `map-type` speaks of that field only (`atomic` for a map, `granular` for
//! an object whose type is atomic elsewhere). What it mostly adds is the defaults that upstream
//! keeps in code, where they depend on nothing else, and the objects that are written even when
//! they are empty.

use std::collections::BTreeMap;

use crate::graph::{
    CanonicalQuantity, Field, Graph, List, ListKind, Map, Name, Object, PatchStrategy, Scalar,
    Type, TypeId,
};
use crate::numbers;

const FIELDS: &str = include_str!("../data/fields.tsv");
const OVERRIDES: &str = include_str!("../data/overrides.tsv");

/// The graph of the built-in kinds. Types are named as in the table: `core.v1.Pod`,
/// `apps.v1.Deployment`, `meta.v1.ObjectMeta`.
pub fn graph(quantity: CanonicalQuantity) -> Graph {
    read(quantity, |_| true)
}

/// The types that every kind has, only: `meta.v1.ObjectMeta` and its like.
pub fn metadata_graph(quantity: CanonicalQuantity) -> Graph {
    read(quantity, |owner| owner.starts_with("meta.v1."))
}

fn read(quantity: CanonicalQuantity, wanted: fn(&str) -> bool) -> Graph {
    let mut reader = Reader {
        graph: Graph::new(quantity),
        scalars: BTreeMap::new(),
    };
    let overrides: BTreeMap<_, _> = rows(OVERRIDES).map(|row| (row.key(), row)).collect();
    let mut types: BTreeMap<&'static str, Object> = BTreeMap::new();
    let mut granular = Vec::new();
    for mut row in rows(FIELDS).filter(|row| wanted(row.owner)) {
        let object = types.entry(row.owner).or_default();
        object.atomic |= row.map_type == "atomic";
        row.map_type = "";
        if let Some(changed) = overrides.get(&row.key()) {
            row.overlay(changed);
        }
        if row.map_type == "granular" {
            granular.push((row.owner, row.field, row.kind));
        }
        let mut fields = std::mem::take(&mut object.fields).into_vec();
        fields.push(reader.field(&row));
        object.fields = fields.into();
    }
    for (owner, field, kind) in granular {
        reader.make_granular(&mut types, owner, field, kind);
    }
    for (name, mut object) in types {
        object.name = Name::Borrowed(name);
        object.fields.sort_by(|a, b| a.name.cmp(&b.name));
        let id = reader.graph.named(Name::Borrowed(name));
        reader.graph.set(id, Type::Object(object));
    }
    reader.graph
}

/// A row of a table.
#[derive(Clone)]
struct Row {
    owner: &'static str,
    field: &'static str,
    kind: &'static str,
    required: &'static str,
    default: &'static str,
    list_type: &'static str,
    list_keys: &'static str,
    patch: &'static str,
    merge_key: &'static str,
    map_type: &'static str,
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    let lines = table.lines().skip(1);
    lines.filter(|line| !line.is_empty()).map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or("");
        Row {
            owner: cell(),
            field: cell(),
            kind: cell(),
            required: cell(),
            default: cell(),
            list_type: cell(),
            list_keys: cell(),
            patch: cell(),
            merge_key: cell(),
            map_type: cell(),
        }
    })
}

impl Row {
    fn key(&self) -> (&'static str, &'static str) {
        (self.owner, self.field)
    }

    fn overlay(&mut self, new: &Self) {
        let change = |cell: &mut &'static str, new: &'static str| {
            if !new.is_empty() {
                *cell = new;
            }
        };
        change(&mut self.kind, new.kind);
        change(&mut self.required, new.required);
        change(&mut self.default, new.default);
        change(&mut self.list_type, new.list_type);
        change(&mut self.list_keys, new.list_keys);
        change(&mut self.patch, new.patch);
        change(&mut self.merge_key, new.merge_key);
        change(&mut self.map_type, new.map_type);
    }
}

/// Builds the graph, row by row.
struct Reader {
    graph: Graph,
    scalars: BTreeMap<&'static str, TypeId>,
}

impl Reader {
    fn field(&mut self, row: &Row) -> Field {
        let has = |part: &str| row.patch.split(',').any(|s| s == part);
        Field {
            name: Name::Borrowed(row.field),
            ty: self.kind(row, row.kind),
            required: row.required == "yes",
            default: serde_json::from_str(row.default).ok(),
            patch: PatchStrategy {
                merge: has("merge"),
                replace: has("replace"),
                retain_keys: has("retainKeys"),
                merge_key: (!row.merge_key.is_empty()).then_some(Name::Borrowed(row.merge_key)),
            },
            way: numbers::of(row.owner).and_then(|numbers| numbers.way(row.field)),
        }
    }

    fn kind(&mut self, row: &Row, kind: &'static str) -> TypeId {
        if let Some(item) = kind.strip_prefix("[]") {
            let item = self.kind(row, item);
            let kind = match row.list_type {
                "set" => ListKind::Set,
                "map" => ListKind::Map(row.list_keys.split(',').map(Name::Borrowed).collect()),
                _ => ListKind::Atomic,
            };
            return self.graph.add(Type::List(List { item, kind }));
        }
        if let Some(value) = kind.strip_prefix("map[").and_then(|k| k.strip_suffix(']')) {
            let value = self.kind(row, value);
            let atomic = row.map_type == "atomic";
            return self.graph.add(Type::Map(Map { value, atomic }));
        }
        match scalar(kind) {
            Some(scalar) => {
                let graph = &mut self.graph;
                let add = || graph.add(Type::Scalar(scalar));
                *self.scalars.entry(kind).or_insert_with(add)
            }
            None => self.graph.named(Name::Borrowed(kind)),
        }
    }

    /// Gives one field a type of its own that is as `kind`, but owned field by field.
    fn make_granular(
        &mut self,
        types: &mut BTreeMap<&'static str, Object>,
        owner: &str,
        field: &str,
        kind: &'static str,
    ) {
        let Some(shared) = types.get(kind) else {
            return;
        };
        let own = Object {
            name: Name::Borrowed(kind),
            fields: shared.fields.clone(),
            keeps_unknown: false,
            atomic: false,
            document: None,
        };
        let id = self.graph.add(Type::Object(own));
        let fields = types.get_mut(owner).map(|object| object.fields.iter_mut());
        for place in fields.into_iter().flatten().filter(|f| f.name == field) {
            place.ty = id;
        }
    }
}

fn scalar(kind: &str) -> Option<Scalar> {
    Some(match kind {
        "string" => Scalar::String,
        "string:byte" => Scalar::Bytes,
        "boolean" => Scalar::Bool,
        "integer:int32" => Scalar::Int32,
        "integer:int64" => Scalar::Int64,
        "number:double" => Scalar::Number,
        "meta.v1.Time" => Scalar::Time,
        "meta.v1.MicroTime" => Scalar::MicroTime,
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Scalar::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Scalar::IntOrString,
        "io.k8s.apimachinery.pkg.runtime.RawExtension"
        | "meta.v1.FieldsV1"
        | "apiextensions.v1.JSON"
        | "apiextensions.v1.JSONSchemaPropsOrArray"
        | "apiextensions.v1.JSONSchemaPropsOrBool"
        | "apiextensions.v1.JSONSchemaPropsOrStringArray"
        | "apiextensions.v1.CustomResourceSubresourceStatus" => Scalar::Any,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Schema;
    use std::sync::Arc;

    fn builtin() -> Arc<Graph> {
        Arc::new(graph(|text| Ok(text.to_owned())))
    }

    #[test]
    fn every_type_is_described() {
        let graph = builtin();
        for name in graph.names() {
            let id = graph.find(name).unwrap();
            assert!(
                matches!(graph.at(id), Type::Object(_)),
                "{name} is referred to but has no fields"
            );
        }
    }

    #[test]
    fn every_override_names_a_field() {
        let known: Vec<_> = rows(FIELDS).map(|row| row.key()).collect();
        for row in rows(OVERRIDES) {
            assert!(known.contains(&row.key()), "{:?}", row.key());
            if !row.default.is_empty() {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(row.default);
                assert!(parsed.is_ok(), "{:?}: {}", row.key(), row.default);
            }
        }
    }

    #[test]
    fn a_pod_is_found_field_by_field() {
        let schema = Schema::named(&builtin(), "core.v1.Pod").unwrap();
        let spec = schema.root().child("spec").unwrap();
        assert_eq!(spec.go_name(), "v1.PodSpec");
        let containers = spec.child("containers").unwrap();
        assert_eq!(containers.go_name(), "[]v1.Container");
        let ports = containers.item().unwrap().child("ports").unwrap();
        let Type::List(list) = ports.ty() else {
            panic!("ports is a list")
        };
        let keys = ["containerPort", "protocol"].map(Name::Borrowed);
        assert_eq!(list.kind, ListKind::Map(keys.into()));
    }
}
