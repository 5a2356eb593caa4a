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
pub mod json_path;
mod kind;
pub mod kinds;
pub mod object_meta;
pub mod pod_spec;
mod rules;
pub mod subresource;
pub mod value;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use peapod_schema::Schema;
use peapod_schema::graph::Graph;
use tokio_util::sync::CancellationToken;

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
    /// Changes with the schema of a custom resource; empty for built-in kinds.
    pub edition: String,
    /// Cancelled when what a definition says is no longer what is served: its watches end, so
    /// that clients list again as it is then. Never for built-in kinds.
    pub withdrawn: CancellationToken,
}

/// All kinds, by group, version and plural name: the built-in ones, which stay, and those of
/// custom resources, which come and go as a whole.
pub struct Registry {
    builtin: Table,
    present: ArcSwap<Table>,
    graph: Arc<Graph>,
}

/// The kinds at one time.
#[derive(Clone, Default)]
struct Table {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// The same by plural name, for the many look-ups of each request.
    by_plural: HashMap<String, Vec<Arc<Resource>>>,
    /// (group, version) in the order of discovery.
    versions: Vec<(String, String)>,
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

// === impl Resource ===

impl Resource {
    /// A resource of a declared kind.
    pub fn new(kind: Kind, schema: Schema) -> Self {
        Self {
            api_version: kind.api_version(),
            kind,
            schema,
            edition: String::new(),
            withdrawn: CancellationToken::new(),
        }
    }
}

// === impl Table ===

impl Table {
    fn add(&mut self, resource: Arc<Resource>) -> Result<(), RegistryError> {
        let kind = &resource.kind;
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
        let namesakes = self.by_plural.entry(key.2.clone()).or_default();
        namesakes.push(resource.clone());
        self.resources.insert(key, resource);
        Ok(())
    }
}

// === impl Registry ===

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Result<Self, RegistryError> {
        let graph = kinds::graph();
        let mut builtin = Table::default();
        for kind in kinds::all() {
            let name = type_name(&kind.group, &kind.version, &kind.kind);
            let schema = Schema::named(&graph, &name).ok_or(RegistryError::NoSchema(name))?;
            builtin.add(Arc::new(Resource::new(kind, schema)))?;
        }
        Ok(Self {
            present: ArcSwap::from_pointee(builtin.clone()),
            builtin,
            graph,
        })
    }

    /// Makes these the custom resources, in this order of discovery, instead of those before. One
    /// whose name is taken is left out.
    pub fn set_custom(&self, resources: impl IntoIterator<Item = Arc<Resource>>) {
        let mut table = self.builtin.clone();
        for resource in resources {
            if let Err(fault) = table.add(resource) {
                tracing::warn!(%fault, "a custom resource is not served");
            }
        }
        self.present.store(Arc::new(table));
    }

    /// The built-in kinds of a group.
    pub fn builtin_of_group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Kind> {
        let all = self.builtin.resources.values();
        all.map(|resource| &resource.kind)
            .filter(move |kind| kind.group == group)
    }

    /// The resource of a group, version and plural name.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let table = self.present.load();
        let mut namesakes = table.by_plural.get(plural)?.iter();
        let found = namesakes.find(|r| r.kind.group == group && r.kind.version == version);
        found.cloned()
    }

    /// The resources of a group and version, by name.
    pub fn of_version(&self, group: &str, version: &str) -> Vec<Arc<Resource>> {
        let table = self.present.load();
        let all = table.resources.iter();
        all.filter(|((g, v, _), _)| g == group && v == version)
            .map(|(_, resource)| resource.clone())
            .collect()
    }

    /// All resources.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        self.present.load().resources.values().cloned().collect()
    }

    /// The groups and versions, core first, in the order of discovery.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.present.load().versions.clone()
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

/// The shape of a built-in type by what its objects say of themselves: `apps/v1`, `Deployment`.
/// `Status` and the documents of discovery say `v1`, but are of the group of metadata.
pub fn builtin_schema(api_version: &str, kind: &str) -> Option<Schema> {
    let graph = kinds::graph();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let own = Schema::named(&graph, &type_name(group, version, kind));
    own.or_else(|| Schema::named(&graph, &format!("meta.v1.{kind}")))
}

/// The name of a type in the graph: `core.v1.Pod`, `rbac.v1.Role`.
fn type_name(group: &str, version: &str, kind: &str) -> String {
    let short = match group.split('.').next() {
        Some("") | None => "core",
        Some(first) => first,
    };
    format!("{short}.{version}.{kind}")
}
