//! The OpenAPI documents, as kubectl reads them.

use crate::golden::schema;
use peapod_schema::openapi::{self, Descriptions, Gvk, Resource, Subresource};
use serde_json::{Value, json};

struct Told;

impl Descriptions for Told {
    fn of_type(&self, name: &str) -> Option<String> {
        Some(format!("What {name} is."))
    }
    fn of_field(&self, _name: &str, field: &str) -> Option<String> {
        Some(format!("What {field} is."))
    }
}

fn gvk(group: &'static str, version: &'static str, kind: &'static str) -> Gvk<'static> {
    Gvk {
        group,
        version,
        kind,
    }
}

fn with_deployments(run: impl Fn(&[Resource<'_>]) -> Value) -> Value {
    let deployment = schema("apps.v1.Deployment");
    let scale = Subresource {
        name: "scale",
        gvk: gvk("autoscaling", "v1", "Scale"),
        verbs: vec!["get", "patch", "update"],
        schema: Some(schema("autoscaling.v1.Scale")),
    };
    run(&[Resource {
        gvk: gvk("apps", "v1", "Deployment"),
        plural: "deployments",
        namespaced: true,
        verbs: vec![
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
        schema: &deployment,
        subresources: vec![scale],
    }])
}

/// Every reference of a document, without what stands before the name.
fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                out.push(reference.rsplit('/').next().unwrap().to_owned());
            }
            fields.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

#[test]
fn v3_has_what_kubectl_explains() {
    let document = with_deployments(|resources| openapi::v3(resources, &Told, "v1.37.0"));
    let namespaced = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(namespaced["get"]["x-kubernetes-group-version-kind"], kind);
    assert_eq!(
        namespaced["get"]["operationId"],
        "listAppsV1NamespacedDeployment"
    );
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    for wanted in ["fieldValidation", "dryRun", "force", "name", "namespace"] {
        assert!(parameters.iter().any(|p| p["name"] == wanted), "{wanted}");
    }
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"], json!([kind]));
    assert_eq!(
        deployment["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["description"], "What containers is.");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(
        scale["put"]["x-kubernetes-group-version-kind"]["kind"],
        "Scale"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let v3 = with_deployments(|resources| openapi::v3(resources, &Told, "v1.37.0"));
    let v2 = with_deployments(|resources| openapi::v2(resources, &Told, "v1.37.0"));
    for (document, defined) in [
        (&v3, &v3["components"]["schemas"]),
        (&v2, &v2["definitions"]),
    ] {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 100);
        for name in found {
            assert!(defined.get(&name).is_some_and(Value::is_object), "{name}");
        }
    }
}

/// The fields of a protobuf message: number and bytes of each that has a length.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = varint(&mut bytes);
        if key & 7 == 2 {
            let (field, rest) = bytes.split_at(number as usize);
            out.push((key >> 3, field));
            bytes = rest;
        }
    }
    out
}

#[test]
fn protobuf_says_the_same() {
    let v2 = with_deployments(|resources| openapi::v2(resources, &Told, "v1.37.0"));
    let bytes = openapi::protobuf(&v2);
    let document = fields(&bytes);
    assert_eq!(document[0], (1, b"2.0".as_slice()));
    let of = |number: u64| {
        document
            .iter()
            .find(|(field, _)| *field == number)
            .unwrap()
            .1
    };
    let names = |message: &[u8], number: u64| -> Vec<String> {
        let entries = fields(message)
            .into_iter()
            .filter(|(field, _)| *field == number);
        entries
            .map(|(_, entry)| String::from_utf8(fields(entry)[0].1.to_vec()).unwrap())
            .collect()
    };
    let defined: Vec<_> = v2["definitions"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names(of(9), 1), defined);
    let paths: Vec<_> = v2["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names(of(8), 2), paths);
}
