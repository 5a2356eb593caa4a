//! `storage.k8s.io/v1 StorageClass`

use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells::NONE, value};

const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short_names(&["sc"])
        .columns(vec![
            named_with_default(),
            Column::path("Provisioner", "string", "provisioner"),
            Column::path("ReclaimPolicy", "string", "reclaimPolicy"),
            Column::path("VolumeBindingMode", "string", "volumeBindingMode"),
            Column::computed(
                "AllowVolumeExpansion",
                "string",
                |class, _| match value::at(class, "allowVolumeExpansion") {
                    Some(Value::Bool(allowed)) => allowed.to_string().into(),
                    Some(_) => NONE.into(),
                    None => "false".into(),
                },
            ),
            Column::age(),
        ])
        .rules(StorageClasses)
}

/// The name, and whether claims without a class get this one.
fn named_with_default() -> Column {
    let mut column = Column::computed("Name", "string", |class, _| {
        let name = value::text(class, "metadata.name");
        let annotations = value::map(class, "metadata.annotations");
        let default = annotations.and_then(|all| all.get(IS_DEFAULT));
        match default.and_then(Value::as_str) {
            Some("true") => format!("{name} (default)").into(),
            _ => name.into(),
        }
    });
    column.format = "name".into();
    column
}

struct StorageClasses;

impl Rules for StorageClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        root.at("provisioner").required(errors);
        let policies = ["Delete", "Retain"];
        root.at("reclaimPolicy").require_one_of(errors, &policies);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        root.at("volumeBindingMode").require_one_of(errors, &modes);
        let parameters = root.at("parameters");
        if parameters.value().get("").is_some() {
            parameters.invalid(errors, "field can not be empty.");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if value::at(new, field) != value::at(old, field) {
                let why = format!("updates to {field} are forbidden.");
                root.at(field).forbidden(errors, why);
            }
        }
        root.at("volumeBindingMode").unchanged(old, errors);
    }
}
