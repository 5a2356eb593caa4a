//! Which number each field has in protobuf, read from `protobuf.tsv`: `type field number form`. A number with
//! dots leads through messages whose fields are the object's own in JSON: Go's embedded structs.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

const TABLE: &str = include_str!("../data/protobuf.tsv");

/// How a field is written whose JSON may be of several shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As its type says.
    Plain,
    /// A message without fields.
    Empty,
    /// A list in a message of its own: `{1: items}`.
    Wrapped,
    /// `JSONSchemaPropsOrArray`: `{1: schema, 2: schemas}`.
    SchemaOrList,
    /// `JSONSchemaPropsOrBool`: `{1: whether anything is allowed, 2: schema}`.
    SchemaOrTruth,
    /// `JSONSchemaPropsOrStringArray`: `{1: schema, 2: texts}`.
    SchemaOrTexts,
}

/// What the value of a number is.
#[derive(Debug)]
pub enum Target {
    /// A field of the object.
    Field(&'static str, Form),
    /// A message whose fields are the object's own.
    Inline(Inline),
}

/// The numbers of a message.
pub type Inline = BTreeMap<u32, Target>;

/// The numbers of a type.
#[derive(Debug, Default)]
pub struct Numbers {
    /// By number, for reading.
    pub targets: Inline,
    /// By field, for writing.
    fields: HashMap<&'static str, Way>,
}

/// How a field is written.
#[derive(Debug)]
pub struct Way {
    /// The numbers that lead to it, the outermost first.
    pub numbers: Box<[u32]>,
    /// How its value is written.
    pub form: Form,
}

// === impl Numbers ===

impl Numbers {
    /// How a field is written.
    pub fn way(&self, field: &str) -> Option<&Way> {
        self.fields.get(field)
    }
}

static TYPES: LazyLock<HashMap<&'static str, Numbers>> = LazyLock::new(|| {
    let mut types: HashMap<&'static str, Numbers> = HashMap::new();
    for line in TABLE.lines().skip(1) {
        let mut cells = line.split('\t');
        let (Some(ty), Some(field), Some(path)) = (cells.next(), cells.next(), cells.next()) else {
            continue;
        };
        let form = form(cells.next().unwrap_or_default());
        let way: Vec<u32> = path.split('.').filter_map(|n| n.parse().ok()).collect();
        let numbers = types.entry(ty).or_default();
        insert(&mut numbers.targets, &way, Target::Field(field, form));
        let way = Way {
            numbers: way.into(),
            form,
        };
        numbers.fields.insert(field, way);
    }
    types
});

/// The numbers of a type's fields; `None` for types that have no protobuf form.
pub fn of(ty: &str) -> Option<&'static Numbers> {
    TYPES.get(ty)
}

fn form(cell: &str) -> Form {
    match cell {
        "empty" => Form::Empty,
        "wrapped" => Form::Wrapped,
        "schema-or-list" => Form::SchemaOrList,
        "schema-or-truth" => Form::SchemaOrTruth,
        "schema-or-texts" => Form::SchemaOrTexts,
        _ => Form::Plain,
    }
}

fn insert(numbers: &mut Inline, way: &[u32], target: Target) {
    match way {
        [] => {}
        [number] => {
            numbers.insert(*number, target);
        }
        [number, rest @ ..] => {
            let inner = numbers
                .entry(*number)
                .or_insert_with(|| Target::Inline(Inline::new()));
            if let Target::Inline(inner) = inner {
                insert(inner, rest, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of features that are alpha upstream, whose numbers are not known here, and types
    /// that are never protobuf.
    const UNNUMBERED: &[&str] = &[
        "core.v1.ImageVolumeStatus",
        "core.v1.PodSchedulingGroup",
        "core.v1.PodSpec.schedulingGroup",
        "core.v1.ResourceHealth.message",
        "core.v1.VolumeMountStatus.volumeStatus",
        "core.v1.VolumeStatus",
        "io.k8s.apimachinery.pkg.version.Info",
        "meta.v1.ListMeta.shardInfo",
        "meta.v1.ShardInfo",
        "resource.v1.Device.nodeAllocatableResourceMappings",
        "resource.v1.DeviceAttribute.bools",
        "resource.v1.DeviceAttribute.ints",
        "resource.v1.DeviceAttribute.strings",
        "resource.v1.DeviceAttribute.versions",
        "resource.v1.NodeAllocatableResourceMapping",
        "storage.v1.CSIDriverSpec.preventPodSchedulingIfMissing",
    ];

    #[test]
    fn every_field_has_a_number() {
        let graph = crate::builtin::graph(|text| Ok(text.to_owned()));
        for name in graph.names().filter(|name| !UNNUMBERED.contains(name)) {
            let crate::graph::Type::Object(object) = graph.at(graph.find(name).unwrap()) else {
                continue;
            };
            let numbers = of(name);
            for field in &object.fields {
                let known = numbers.is_some_and(|numbers| numbers.way(&field.name).is_some());
                let of_type = ["kind", "apiVersion"].contains(&field.name.as_ref());
                let path = format!("{name}.{}", field.name);
                assert!(
                    known || of_type || UNNUMBERED.contains(&path.as_str()),
                    "{path} has no number"
                );
            }
        }
    }

    #[test]
    fn no_number_stands_for_two_fields() {
        for (ty, numbers) in TYPES.iter() {
            let mut ways: Vec<_> = numbers.fields.values().map(|way| &way.numbers).collect();
            let count = ways.len();
            ways.sort_unstable();
            ways.dedup();
            assert_eq!(ways.len(), count, "{ty}");
        }
    }
}
