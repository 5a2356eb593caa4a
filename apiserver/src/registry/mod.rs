//! The registry: which kinds there are, and what the generic pipeline must know of each.
//!
//! A kind is declared in one file of [`kinds`], as a [`Kind`] value with its [`Rules`]; nothing
//! else in this crate names it. To add one: write its file, and name it in [`kinds::all`].

pub mod at;
pub mod cells;
pub mod checks;
pub mod claims;
pub mod columns;
pub mod field_error;
mod kind;
pub mod kinds;
pub mod object_meta;
pub mod pod_spec;
mod rules;
pub mod subresource;
pub mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use peapod_schema::Schema;
use peapod_schema::graph::Graph;

pub use at::At;
pub use columns::Column;
pub use field_error::{FieldError, FieldErrors};
pub use kind::{Kind, NameRule, Scope, StatusRule};
pub use rules::{Plain, Rules};
pub use subresource::{ScalePaths, Subresource};

/// A kind with its schema, as the pipeline serves it.
pub struct Resource {
    /// The declaration.
    pub kind: Kind,
    /// The shape of its objects.
    pub schema: Schema,
    /// `v1`, or `apps/v1`.
    pub api_version: String,
}

/// All kinds, by group, version and plural name.
pub struct Registry {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// (group, version) in the order of discovery.
    versions: Vec<(String, String)>,
    graph: Arc<Graph>,
}

/// Why a registry cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A declared kind has no schema.
    #[error("no schema for {0}: add its fields to the schema crate's tables")]
    NoSchema(String),
    /// Two declarations have the same name.
    #[error("{0} is declared twice")]
    Twice(String),
}

// === impl Registry ===

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Result<Self, RegistryError> {
        let graph = kinds::graph();
        let mut registry = Self {
            resources: BTreeMap::new(),
            versions: Vec::new(),
            graph,
        };
        for kind in kinds::all() {
            registry.add(kind)?;
        }
        Ok(registry)
    }

    fn add(&mut self, kind: Kind) -> Result<(), RegistryError> {
        let name = type_name(&kind.group, &kind.version, &kind.kind);
        let schema = Schema::named(&self.graph, &name).ok_or(RegistryError::NoSchema(name))?;
        let version = (kind.group.clone(), kind.version.clone());
        let key = (
            kind.group.clone(),
            kind.version.clone(),
            kind.plural.clone(),
        );
        if self.resources.contains_key(&key) {
            return Err(RegistryError::Twice(format!("{}/{}", version.1, key.2)));
        }
        if !self.versions.contains(&version) {
            self.versions.push(version);
        }
        let resource = Resource {
            api_version: kind.api_version(),
            kind,
            schema,
        };
        self.resources.insert(key, Arc::new(resource));
        Ok(())
    }

    /// The resource of a group, version and plural name.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.resources.get(&key)
    }

    /// The resources of a group and version, by name.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources
            .iter()
            .filter(move |((g, v, _), _)| g == group && v == version)
            .map(|(_, resource)| resource)
    }

    /// All resources.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The groups and versions, core first, in the order of discovery.
    pub fn versions(&self) -> &[(String, String)] {
        &self.versions
    }

    /// The shapes of all types.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The shape of a named type that is no resource, as `autoscaling.v1.Scale`.
    pub fn schema(&self, group: &str, version: &str, kind: &str) -> Option<Schema> {
        Schema::named(&self.graph, &type_name(group, version, kind))
    }
}

/// The name of a type in the graph: `core.v1.Pod`, `rbac.v1.Role`.
fn type_name(group: &str, version: &str, kind: &str) -> String {
    let short = match group.split('.').next() {
        Some("") | None => "core",
        Some(first) => first,
    };
    format!("{short}.{version}.{kind}")
}
