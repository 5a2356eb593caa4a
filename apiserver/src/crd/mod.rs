//! Custom resources: from `apiextensions.k8s.io/v1` objects to kinds that are served.
//!
//! ```text
//!   CustomResourceDefinition --validation, structural--> stored
//!        | watch                                           |
//!   controller: names, status --> conditions               | serve
//!        |                                                 v
//!        +---- Established? ------------------------> Registry (Kind, Schema, CustomRules)
//!        +---- Terminating? --> deletes the objects, then lets the definition go
//! ```
//!
//! What decides is pure ([`names`], [`status`], [`serve`], [`validation`]); [`controller`] watches
//! and writes. Objects of custom kinds pass the same pipeline as all others, with the schema of
//! their definition.

pub mod controller;
mod conversion;
pub mod names;
mod objects;
pub mod present;
mod rules;
pub mod serve;
pub mod status;
mod structural;
pub mod validation;

use serde_json::Value;

use crate::registry::value;

/// The group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// The plural of definitions.
pub const PLURAL: &str = "customresourcedefinitions";
/// Holds a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The version that objects are stored in.
pub fn storage_version(definition: &Value) -> &str {
    let versions = value::list(definition, "spec.versions").iter();
    let mut stored = versions.filter(|version| value::truth(version, "storage"));
    stored
        .next()
        .map_or("", |version| value::text(version, "name"))
}

/// Whether a condition of a definition is true.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let all = value::list(definition, "status.conditions").iter();
    let mut found = all.filter(|one| value::text(one, "type") == condition);
    found
        .next()
        .is_some_and(|one| value::text(one, "status") == "True")
}
