//! `coordination.k8s.io/v1 Lease`

use serde_json::Value;

use crate::registry::{At, Column, FieldErrors, Kind, Rules};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
        .create_on_update()
        .conditional_update()
        .columns(vec![
            Column::name(),
            Column::path("Holder", "string", "spec.holderIdentity"),
            Column::age(),
        ])
        .rules(Leases)
}

struct Leases;

impl Rules for Leases {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        root.at("spec.leaseDurationSeconds").positive(errors);
        root.at("spec.leaseTransitions").not_negative(errors);
    }
}
