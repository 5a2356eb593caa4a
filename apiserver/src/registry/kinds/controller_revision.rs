//! `apps/v1 ControllerRevision`

use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
        .columns(vec![
            Column::name(),
            Column::computed("Controller", "string", |object, _| owner(object).into()),
            Column::path("Revision", "string", "revision"),
            Column::age(),
        ])
        .rules(ControllerRevisions)
}

/// Its controller, as `statefulset.apps/web`.
fn owner(object: &Value) -> String {
    let owners = value::list(object, "metadata.ownerReferences").iter();
    let Some(owner) = owners
        .into_iter()
        .find(|one| value::truth(one, "controller"))
    else {
        return "<none>".to_owned();
    };
    let kind = value::text(owner, "kind").to_lowercase();
    let name = value::text(owner, "name");
    match value::text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

struct ControllerRevisions;

impl Rules for ControllerRevisions {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        if !root.at("data").is_set() {
            root.at("data").missing(errors, "data is mandatory");
        }
        root.at("revision").not_negative(errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("data").unchanged(old, errors);
    }
}
