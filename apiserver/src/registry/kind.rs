//! The declaration of a kind: everything that the generic pipeline must know of it, in one value.
//!
//! A kind's file builds one by [`Kind::namespaced`] or [`Kind::cluster`] and the chained setters:
//!
//! ```ignore
//! pub fn kind() -> Kind {
//!     Kind::namespaced("", "v1", "ConfigMap", "configmaps")
//!         .short_names(&["cm"])
//!         .columns(vec![Column::name(), Column::custom("Data", "integer", count), Column::age()])
//!         .rules(ConfigMaps)
//! }
//! ```

use std::sync::{Arc, OnceLock};

use peapod_api::names;
use peapod_store::Resource as Range;

use super::columns::Column;
use super::rules::{Plain, Rules};
use super::subresource::Subresource;
use crate::rest::target::Verb;
use crate::status::GroupResource;

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Beside the namespaces.
    Cluster,
}

/// What happens to `status` in writes of the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// The kind has no status, or one that is written like everything else.
    Plain,
    /// Creates drop it, updates keep the old one; only `/status` writes it.
    Separate,
    /// As `Separate`, but creates may bring one (nodes register with theirs).
    KeptOnCreate,
}

/// Checks a name; the error is kube-apiserver's sentence.
pub type NameRule = fn(&str) -> Result<(), names::NameError>;

/// A kind of objects, as one version of its group serves it.
pub struct Kind {
    /// Whether a custom resource definition brought the kind.
    pub custom: bool,
    /// Kind of its lists, as `ConfigMapList`.
    pub list_kind: String,
    /// What those are told who still use this version.
    pub deprecation: Option<String>,
    /// Group; empty for core.
    pub group: String,
    /// Version, as `v1`.
    pub version: String,
    /// Kind, as `ConfigMap`.
    pub kind: String,
    /// Plural name in paths, as `configmaps`.
    pub plural: String,
    /// Singular name, as `configmap`.
    pub singular: String,
    /// Abbreviations for the command line, as `cm`.
    pub short_names: Vec<String>,
    /// Groups of kinds for the command line, as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// Whether creates are answered and nothing is stored (reviews).
    pub ephemeral: bool,
    /// Where objects are kept when it is not under their own name: (group, plural) of the kind
    /// whose objects these are another view of.
    pub stored_as: Option<(String, String)>,
    /// The version that objects are kept in.
    pub stored_version: String,
    /// What a name may be.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of the desired state.
    pub generation: bool,
    /// What happens to `status` in writes of the object itself.
    pub status: StatusRule,
    /// Whether an update of an object that does not exist creates it (Leases and the like).
    pub create_on_update: bool,
    /// Whether an update without a resourceVersion overwrites.
    pub unconditional_update: bool,
    /// What a table shows.
    pub columns: Vec<Column>,
    /// Paths that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<String>,
    /// Where the selectable fields stand in what is stored, if not under their names: the first
    /// of these paths that is set.
    pub selected_from: Vec<(String, Vec<String>)>,
    /// The paths of the stored object that selectable fields are read from; those of
    /// `selectable` when there are none. Views have those of the kind whose objects they show.
    pub stored_fields: Vec<String>,
    /// What those of these paths stand for that an object lacks, if not for the empty text: zero
    /// values, which encoders leave out.
    pub zeros: Vec<(String, String)>,
    /// The selectable paths (at most [`Kind::INDEXED_MAX`]) that have an index.
    pub indexed: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Whether what an object owns stays when it is deleted and nobody says otherwise, and what who
    /// deletes it is told of that, if anything.
    pub orphans: Option<&'static str>,
    /// Defaults, preparation and validation.
    pub rules: Arc<dyn Rules>,
    /// Where objects lie, once somebody asked.
    range: OnceLock<Range>,
}

// === impl Kind ===

impl Kind {
    /// Most indexed fields of a kind.
    pub const INDEXED_MAX: usize = 8;

    /// A kind whose objects live in namespaces.
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self::new(Scope::Namespaced, group, version, kind, plural)
    }

    /// A kind whose objects live beside the namespaces.
    pub fn cluster(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self::new(Scope::Cluster, group, version, kind, plural)
    }

    fn new(scope: Scope, group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            custom: false,
            list_kind: format!("{kind}List"),
            deprecation: None,
            group: group.to_owned(),
            version: version.to_owned(),
            stored_version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope,
            verbs: vec![
                Verb::Create,
                Verb::Delete,
                Verb::DeleteCollection,
                Verb::Get,
                Verb::List,
                Verb::Patch,
                Verb::Update,
                Verb::Watch,
            ],
            ephemeral: false,
            stored_as: None,
            name_rule: names::dns_subdomain,
            generation: false,
            status: StatusRule::Plain,
            create_on_update: false,
            unconditional_update: true,
            columns: vec![Column::name(), Column::age()],
            selectable: Vec::new(),
            selected_from: Vec::new(),
            stored_fields: Vec::new(),
            zeros: Vec::new(),
            indexed: Vec::new(),
            subresources: Vec::new(),
            orphans: None,
            rules: Arc::new(Plain),
            range: OnceLock::new(),
        }
    }

    /// Sets the abbreviations.
    pub fn short_names(mut self, names: &[&str]) -> Self {
        self.short_names = owned(names);
        self
    }

    /// Sets the categories.
    pub fn categories(mut self, names: &[&str]) -> Self {
        self.categories = owned(names);
        self
    }

    /// Sets what may be done.
    pub fn verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// Answers creates, and stores nothing.
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Makes this a view of another kind's objects; the rules convert
    /// ([`Rules::from_stored`], [`Rules::to_stored`]).
    pub fn stored_as(mut self, group: &str, plural: &str) -> Self {
        self.stored_as = Some((group.to_owned(), plural.to_owned()));
        self
    }

    /// Sets the version that objects are kept in, if not this one.
    pub fn stored_version(mut self, version: &str) -> Self {
        self.stored_version = version.to_owned();
        self
    }

    /// Sets what a name may be; RFC 1123 subdomains otherwise.
    pub fn name_rule(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// Counts changes of the desired state in `metadata.generation`.
    pub fn with_generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// Gives the kind a `/status` subresource, and lets nothing else write the status.
    pub fn with_status(mut self) -> Self {
        self.status = StatusRule::Separate;
        self.subresource(Subresource::Status)
    }

    /// As [`Self::with_status`], but creates may bring a status.
    pub fn with_status_kept_on_create(mut self) -> Self {
        self.status = StatusRule::KeptOnCreate;
        self.subresource(Subresource::Status)
    }

    /// Lets an update create what does not exist.
    pub fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// Demands a resourceVersion of every update.
    pub fn conditional_update(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    /// Sets the columns of a table.
    pub fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// Sets the paths that field selectors may name.
    pub fn selectable(mut self, paths: &[&str]) -> Self {
        self.selectable = owned(paths);
        self
    }

    /// Sets the selectable fields, and from which of the `stored` paths each is read.
    pub fn selectable_from(mut self, stored: &[&str], fields: &[(&str, &[&str])]) -> Self {
        self.stored_fields = owned(stored);
        self.selectable = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        let from = fields
            .iter()
            .map(|(name, paths)| ((*name).to_owned(), owned(paths)));
        self.selected_from = from.collect();
        self
    }

    /// Sets what a selectable number or truth value is where the object does not say it.
    pub fn zero(mut self, path: &str, value: &str) -> Self {
        self.zeros.push((path.to_owned(), value.to_owned()));
        self
    }

    /// Sets which selectable paths have an index, so that selecting by them scans nothing.
    pub fn indexed(mut self, paths: &[&str]) -> Self {
        self.indexed = owned(paths);
        self
    }

    /// Adds a subresource.
    pub fn subresource(mut self, subresource: Subresource) -> Self {
        self.subresources.push(subresource);
        self
    }

    /// Has who uses the kind be warned of it: since which version it is deprecated, and what to use.
    pub fn deprecated(mut self, since: &str) -> Self {
        let (version, kind) = (&self.version, &self.kind);
        self.deprecation = Some(format!("{version} {kind} is deprecated in {since}"));
        self
    }

    /// Lets what an object owns stay when it is deleted and nobody says otherwise, with a warning if
    /// there is one.
    pub fn orphans(mut self, warning: &'static str) -> Self {
        self.orphans = Some(warning);
        self
    }

    /// Sets defaults, preparation and validation.
    pub fn rules(mut self, rules: impl Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    /// `v1`, or `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group.is_empty() {
            true => self.version.clone(),
            false => format!("{}/{}", self.group, self.version),
        }
    }

    /// The resource as errors name it.
    pub fn group_resource(&self) -> GroupResource<'_> {
        GroupResource {
            group: &self.group,
            resource: &self.plural,
        }
    }

    /// Whether objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Where objects lie in the store.
    pub fn range(&self) -> &Range {
        self.range.get_or_init(|| {
            let (group, plural) = self.storage();
            let group = if group.is_empty() { "core" } else { group };
            let range = Range::new(group, plural);
            range.expect("a kind's group and plural are not empty and have no slash")
        })
    }

    /// Under which group and resource objects are kept.
    pub fn storage(&self) -> (&str, &str) {
        match &self.stored_as {
            Some((group, plural)) => (group, plural),
            None => (&self.group, &self.plural),
        }
    }

    /// The subresource of a name.
    pub fn find_subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|one| one.name() == name)
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
