//! `net.peapod.dev/v1 IpBlock`

use peapod_api::net;
use peapod_schema::graph::{Field, Graph, Name, Object, PatchStrategy, Scalar, Type, TypeId};
use serde_json::Value;

use crate::registry::{Column, FieldError, FieldErrors, Kind, Rules, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(net::GROUP, "v1", "IpBlock", "ipblocks")
        .short_names(&["ipb"])
        .with_generation()
        .selectable(&["spec.node"])
        .indexed(&["spec.node"])
        .columns(vec![
            Column::name(),
            Column::path("CIDR", "string", "spec.cidr").described("The block."),
            Column::path("Node", "string", "spec.node").described("The node that holds it."),
            Column::path("Pool", "string", "spec.pool").described("The pool it was cut from."),
            Column::age(),
        ])
        .rules(IpBlocks)
}

/// Adds the shape of the kind to the graph of types.
pub fn shape(graph: &mut Graph) {
    let text = graph.add(Type::Scalar(Scalar::String));
    let meta = graph.named(Name::Borrowed("meta.v1.ObjectMeta"));
    let spec = graph.named(Name::Borrowed("net.v1.IpBlockSpec"));
    graph.set(
        spec,
        object(
            "net.v1.IpBlockSpec",
            vec![
                field("cidr", text, true),
                field("node", text, true),
                field("pool", text, false),
            ],
        ),
    );
    let root = graph.named(Name::Borrowed("net.v1.IpBlock"));
    graph.set(
        root,
        object(
            "net.v1.IpBlock",
            vec![
                field("apiVersion", text, false),
                field("kind", text, false),
                field("metadata", meta, false),
                field("spec", spec, true),
            ],
        ),
    );
}

/// `fields` in the order of their names.
fn object(name: &'static str, fields: Vec<Field>) -> Type {
    Type::Object(Object {
        name: Name::Borrowed(name),
        fields: fields.into(),
        keeps_unknown: false,
        atomic: false,
    })
}

fn field(name: &'static str, ty: TypeId, required: bool) -> Field {
    Field {
        name: Name::Borrowed(name),
        ty,
        required,
        default: None,
        patch: PatchStrategy::default(),
    }
}

struct IpBlocks;

impl Rules for IpBlocks {
    fn validate(&self, block: &Value, errors: &mut FieldErrors) {
        let cidr = value::text(block, "spec.cidr");
        match cidr.parse::<ipnet::IpNet>() {
            Err(fault) => errors.push(FieldError::invalid("spec.cidr", cidr, fault.to_string())),
            Ok(net) if net.trunc() != net => errors.push(FieldError::invalid(
                "spec.cidr",
                cidr,
                "must not have bits set beyond its prefix",
            )),
            Ok(net) => {
                let name = net::block_name(net);
                if value::text(block, "metadata.name") != name {
                    let given = value::text(block, "metadata.name");
                    let why = format!("must be {name}, the name of the block {cidr}");
                    errors.push(FieldError::invalid("metadata.name", given, why));
                }
            }
        }
        if value::text(block, "spec.node").is_empty() {
            errors.push(FieldError::required("spec.node", ""));
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        for field in ["spec.cidr", "spec.node"] {
            let given = value::text(new, field);
            if given != value::text(old, field) {
                errors.push(FieldError::immutable(field, given));
            }
        }
    }
}
