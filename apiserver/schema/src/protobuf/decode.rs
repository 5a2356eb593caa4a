//! From protobuf to a JSON value.
//!
//! Go writes fields without a pointer even when they are empty, where its JSON leaves them out.
//! Which fields are pointers is not in the schema, so an empty text, a zero and a `false` are
//! dropped but for the few fields in which they say something ([`SPEAKING`]).

use std::borrow::Cow;

use crate::decode::Decoded;
use crate::graph::{Node, Scalar, Schema, Type};
use crate::wire::{self, Field, Fields};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Value};

use super::{DEPTH_MAX, MAGIC, ProtobufError, json_schema};
use crate::numbers::{self, Form, Inline, Target};

/// Fields that are pointers in Go, whose empty, zero or false value is told from a missing one.
const SPEAKING: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "exitCode",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseTransitions",
    "maxFailedIndexes",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "podInfoOnMount",
    "priority",
    "privileged",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "started",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// Reads an object of a schema, in its envelope, which names its kind and version.
pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Decoded, ProtobufError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut kind, mut version, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        let (number, field) = field?;
        match number {
            1 => {
                for part in Fields(field.bytes()) {
                    match part? {
                        (1, text) => version = text.text()?.to_owned(),
                        (2, text) => kind = text.text()?.to_owned(),
                        _ => {}
                    }
                }
            }
            2 => raw = field.bytes(),
            _ => {}
        }
    }
    let mut value = object(raw, schema.root(), DEPTH_MAX)?;
    for (name, text) in [("kind", kind), ("apiVersion", version)] {
        if !text.is_empty() {
            value[name] = text.into();
        }
    }
    Ok(Decoded {
        value,
        faults: Vec::new(),
    })
}

fn object(bytes: &[u8], node: Node<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::Depth)?;
    let mut out = JsonMap::new();
    if let Type::Object(object) = node.ty()
        && let Some(numbers) = numbers::of(&object.name)
    {
        fill(&mut out, bytes, &numbers.targets, node, depth)?;
    }
    Ok(Value::Object(out))
}

fn fill(
    out: &mut JsonMap<String, Value>,
    bytes: &[u8],
    numbers: &Inline,
    node: Node<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    for field in Fields(bytes) {
        let (number, field) = field?;
        match numbers.get(&number) {
            None => {}
            Some(Target::Inline(inner)) => fill(out, field.bytes(), inner, node, depth)?,
            Some(Target::Field(name, form)) => {
                if let Some(child) = node.child(name) {
                    put(out, name, field, (child, *form), depth)?;
                }
            }
        }
    }
    Ok(())
}

fn put(
    out: &mut JsonMap<String, Value>,
    name: &str,
    field: Field<'_>,
    (node, form): (Node<'_>, Form),
    depth: usize,
) -> Result<(), ProtobufError> {
    match node.ty() {
        Type::List(list) if form == Form::Wrapped => {
            let items = texts(field, node.to(list.item), depth)?;
            out.insert(name.to_owned(), items);
        }
        Type::List(list) => {
            let items = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = items {
                append(items, field, node.to(list.item), depth)?;
            }
        }
        Type::Map(map) => {
            let entries = out
                .entry(name)
                .or_insert_with(|| Value::Object(JsonMap::new()));
            let (key, value) = entry(field, (node.to(map.value), form), depth)?;
            entries[key] = value;
        }
        Type::Object(_) | Type::Scalar(_) => {
            let value = single(field, (node, form), depth)?;
            let kept = |value: &Value| form != Form::Plain || says_something(name, value);
            if let Some(value) = value.filter(kept) {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Whether a value is not what Go writes for a field that is not set.
fn says_something(name: &str, value: &Value) -> bool {
    let empty = match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(truth) => !truth,
        _ => false,
    };
    !empty || SPEAKING.binary_search(&name).is_ok()
}

/// Reads one item of a list, or several numbers that are packed into one field.
fn append(
    items: &mut Vec<Value>,
    field: Field<'_>,
    node: Node<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let packed = matches!(
        node.ty(),
        Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool)
    );
    if let (true, Field::Bytes(mut numbers)) = (packed, field) {
        while !numbers.is_empty() {
            let number = Field::Number(wire::varint(&mut numbers)?);
            items.extend(single(number, (node, Form::Plain), depth)?);
        }
        return Ok(());
    }
    items.extend(single(field, (node, Form::Plain), depth)?);
    Ok(())
}

fn entry(
    field: Field<'_>,
    (node, form): (Node<'_>, Form),
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), None);
    for part in Fields(field.bytes()) {
        match part? {
            (1, text) => key = text.text()?.to_owned(),
            (2, field) => value = single(field, (node, form), depth)?,
            _ => {}
        }
    }
    let missing = || match node.ty() {
        Type::Scalar(Scalar::Int32 | Scalar::Int64) => 0.into(),
        Type::Scalar(_) => "".into(),
        Type::List(_) => Value::Array(Vec::new()),
        _ => Value::Object(JsonMap::new()),
    };
    Ok((key, value.unwrap_or_else(missing)))
}

/// One value; `None` for a time that is not set.
fn single(
    field: Field<'_>,
    (node, form): (Node<'_>, Form),
    depth: usize,
) -> Result<Option<Value>, ProtobufError> {
    if form != Form::Plain {
        return shaped(field.bytes(), form, node, depth).map(Some);
    }
    let scalar = match node.ty() {
        Type::Scalar(scalar) => *scalar,
        Type::Object(_) => return Ok(Some(object(field.bytes(), node, depth)?)),
        Type::List(list) => return texts(field, node.to(list.item), depth).map(Some),
        // No kind has a list of lists or of maps.
        Type::Map(_) => return Ok(None),
    };
    Ok(Some(match scalar {
        Scalar::String => field.text()?.into(),
        Scalar::Int32 | Scalar::Int64 => field.number().into(),
        Scalar::Bool => (field.number() != 0).into(),
        Scalar::Number => f64::from_bits(field.number().cast_unsigned()).into(),
        Scalar::Bytes => STANDARD.encode(field.bytes()).into(),
        Scalar::Quantity => first(field)?.map_or("0", |text| text).into(),
        Scalar::IntOrString | Scalar::Int64OrString => int_or_string(field)?,
        Scalar::Time | Scalar::MicroTime => return time(field, scalar == Scalar::MicroTime),
        Scalar::Any => embedded(field)?,
    }))
}

/// A list that is the value of a map: a message whose only field is the list's.
fn texts(field: Field<'_>, node: Node<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let mut items = Vec::new();
    for part in Fields(field.bytes()) {
        if let (1, item) = part? {
            append(&mut items, item, node, depth)?;
        }
    }
    Ok(Value::Array(items))
}

/// A value whose JSON may be of several shapes.
fn shaped(bytes: &[u8], form: Form, node: Node<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let (mut one, mut many, mut allowed) = (None, Vec::new(), false);
    let schema = json_schema(node);
    for part in Fields(bytes) {
        match (form, part?) {
            (Form::SchemaOrTruth, (1, truth)) => allowed = truth.number() != 0,
            (Form::SchemaOrTexts, (2, text)) => many.push(text.text()?.into()),
            (Form::SchemaOrList, (2, item)) => many.push(object(item.bytes(), schema, depth)?),
            (Form::SchemaOrList | Form::SchemaOrTexts, (1, item))
            | (Form::SchemaOrTruth, (2, item)) => {
                one = Some(object(item.bytes(), schema, depth)?);
            }
            _ => {}
        }
    }
    Ok(match (one, form) {
        (Some(schema), _) => schema,
        (None, Form::SchemaOrTruth) => allowed.into(),
        (None, Form::Empty | Form::Plain | Form::Wrapped) => Value::Object(JsonMap::new()),
        (None, Form::SchemaOrList | Form::SchemaOrTexts) => many.into(),
    })
}

/// The text of a message's first field.
fn first(field: Field<'_>) -> Result<Option<&str>, ProtobufError> {
    for part in Fields(field.bytes()) {
        if let (1, text) = part? {
            return Ok(Some(text.text()?));
        }
    }
    Ok(None)
}

fn int_or_string(field: Field<'_>) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for part in Fields(field.bytes()) {
        match part? {
            (1, kind) => is_text = kind.number() != 0,
            (2, value) => number = value.number(),
            (3, value) => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn time(field: Field<'_>, micro: bool) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanos) = (None, 0);
    for part in Fields(field.bytes()) {
        match part? {
            (1, value) => seconds = Some(value.number()),
            (2, value) => nanos = i32::try_from(value.number()).unwrap_or(0),
            _ => {}
        }
    }
    let at = seconds.and_then(|seconds| jiff::Timestamp::new(seconds, nanos).ok());
    let format = if micro {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(at.map(|at| at.strftime(format).to_string().into()))
}

/// Embedded JSON: `RawExtension` and `FieldsV1`.
fn embedded(field: Field<'_>) -> Result<Value, ProtobufError> {
    let text: Cow<'_, str> = first(field)?.unwrap_or("null").into();
    serde_json::from_str(&text).map_err(|fault| ProtobufError::Json(fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn schema(name: &str) -> Schema {
        let graph = Arc::new(crate::builtin::graph(|text| Ok(text.to_owned())));
        Schema::named(&graph, name).unwrap()
    }

    /// A field of bytes: number, length, content; all short.
    fn chunk(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn number(number: u8, value: u8) -> Vec<u8> {
        vec![number << 3, value]
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [chunk(1, version.as_bytes()), chunk(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), chunk(1, &meta), chunk(2, raw)].concat()
    }

    #[test]
    fn the_table_of_speaking_fields_is_sorted() {
        assert!(SPEAKING.is_sorted());
    }

    #[test]
    fn reads_a_config_map() {
        let meta = [chunk(1, b"m"), chunk(2, b""), chunk(8, b"")].concat();
        let entry = [chunk(1, b"k"), chunk(2, b"v")].concat();
        let raw = [chunk(1, &meta), chunk(2, &entry)].concat();
        let body = envelope("v1", "ConfigMap", &raw);
        let decoded = decode(&body, &schema("core.v1.ConfigMap")).unwrap();
        assert_eq!(
            decoded.value,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn embedded_structs_and_zeros() {
        // spec.template.spec.volumes[0].emptyDir, spec.replicas = 0, spec.minReadySeconds = 0
        let volume = [chunk(1, b"v"), chunk(2, &chunk(2, b""))].concat();
        let template = chunk(2, &chunk(1, &volume));
        let spec = [number(1, 0), number(5, 0), chunk(3, &template)].concat();
        let body = envelope("apps/v1", "Deployment", &chunk(2, &spec));
        let value = decode(&body, &schema("apps.v1.Deployment")).unwrap().value;
        assert_eq!(
            value["spec"],
            json!({"replicas": 0, "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}})
        );
    }

    #[test]
    fn special_scalars() {
        let port = [
            number(3, 80),
            chunk(4, &[number(1, 1), chunk(3, b"web")].concat()),
        ]
        .concat();
        let body = envelope("v1", "Service", &chunk(2, &chunk(1, &port)));
        let value = decode(&body, &schema("core.v1.Service")).unwrap().value;
        assert_eq!(
            value["spec"]["ports"],
            json!([{"port": 80, "targetPort": "web"}])
        );
        assert_eq!(
            decode(b"{}", &schema("core.v1.Pod")),
            Err(ProtobufError::Magic)
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = [MAGIC, &bytes].concat();
            let schema = schema("core.v1.Pod");
            let _ = decode(&body, &schema);
            let raw = super::object(&bytes, schema.root(), DEPTH_MAX);
            prop_assert!(raw.is_err() || raw.is_ok_and(|value| value.is_object()));
        }
    }
}
