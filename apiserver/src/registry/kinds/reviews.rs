//! The reviews of `authentication.k8s.io` and `authorization.k8s.io`: questions that are
//! answered and never stored. Their names and verbs are read from the table of the API's
//! resources.

use peapod_schema::resources;

use crate::registry::Kind;
use crate::rest::target::Verb;

const GROUPS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    let rows = resources::all().filter(|row| GROUPS.contains(&row.group));
    let declare = |row: resources::Row| {
        let make = match row.namespaced {
            true => Kind::namespaced,
            false => Kind::cluster,
        };
        let verbs: Vec<Verb> = row.verbs().filter_map(Verb::parse).collect();
        make(row.group, row.version, row.kind, row.resource)
            .verbs(&verbs)
            .ephemeral()
    };
    rows.map(declare).collect()
}
