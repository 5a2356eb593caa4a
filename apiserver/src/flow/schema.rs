//! Which flow a request belongs to: FlowSchemas, read once, and the match of one request. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::auth::action::{Access, Action};
use crate::auth::user::User;
use crate::registry::value;

const ACCOUNT: &str = "system:serviceaccount:";

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// A FlowSchema.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its UID; empty while it is not stored.
    pub uid: String,
    /// The priority level of its requests.
    pub level: String,
    /// Schemas with smaller numbers are asked first.
    pub precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

#[derive(Clone, Debug, PartialEq)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

#[derive(Clone, Debug, PartialEq)]
struct Resources {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Paths {
    verbs: Vec<String>,
    paths: Vec<String>,
}

// === impl Schema ===

impl Schema {
    /// Reads an object of the API.
    pub fn of(object: &Value) -> Self {
        let text = |path| value::text(object, path).to_owned();
        let distinguisher = match value::text(object, "spec.distinguisherMethod.type") {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        Self {
            name: text("metadata.name"),
            uid: text("metadata.uid"),
            level: text("spec.priorityLevelConfiguration.name"),
            precedence: value::integer(object, "spec.matchingPrecedence").unwrap_or(1000),
            distinguisher,
            rules: value::list(object, "spec.rules")
                .iter()
                .map(Rule::of)
                .collect(),
        }
    }

    /// Whether a request is of this schema.
    pub fn matches(&self, user: &User, action: &Action<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, action))
    }

    /// The number of a request's flow: requests with the same number share queues.
    pub fn flow(&self, user: &User, action: &Action<'_>) -> u64 {
        let distinguisher = match (self.distinguisher, action) {
            (Distinguisher::User, _) => user.name(),
            (Distinguisher::Namespace, Action::Resource(access)) => access.namespace,
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        distinguisher.hash(&mut hasher);
        hasher.finish()
    }
}

/// Sorts schemas into the order in which they are asked.
pub fn sort(schemas: &mut [Schema]) {
    schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
}

fn texts(object: &Value, path: &str) -> Vec<String> {
    let items = value::list(object, path).iter();
    items
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

// === impl Rule ===

impl Rule {
    fn of(rule: &Value) -> Self {
        let resources = value::list(rule, "resourceRules")
            .iter()
            .map(|one| Resources {
                verbs: texts(one, "verbs"),
                groups: texts(one, "apiGroups"),
                resources: texts(one, "resources"),
                namespaces: texts(one, "namespaces"),
                cluster: value::truth(one, "clusterScope"),
            });
        let paths = value::list(rule, "nonResourceRules")
            .iter()
            .map(|one| Paths {
                verbs: texts(one, "verbs"),
                paths: texts(one, "nonResourceURLs"),
            });
        let subjects = value::list(rule, "subjects").iter();
        Self {
            subjects: subjects.filter_map(Subject::of).collect(),
            resources: resources.collect(),
            paths: paths.collect(),
        }
    }

    fn matches(&self, user: &User, action: &Action<'_>) -> bool {
        let meant = match action {
            Action::Resource(access) => self.resources.iter().any(|one| one.matches(access)),
            Action::Path { verb, path } => self.paths.iter().any(|one| one.matches(verb, path)),
        };
        meant && self.subjects.iter().any(|subject| subject.is(user))
    }
}

// === impl Subject ===

impl Subject {
    fn of(subject: &Value) -> Option<Self> {
        let text = |path| value::text(subject, path).to_owned();
        match value::text(subject, "kind") {
            "User" => Some(Self::User(text("user.name"))),
            "Group" => Some(Self::Group(text("group.name"))),
            "ServiceAccount" => Some(Self::Account(
                text("serviceAccount.namespace"),
                text("serviceAccount.name"),
            )),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || name == user.name(),
            Self::Group(name) => name == "*" || user.is_in(name),
            Self::Account(namespace, name) => {
                let account = user.name().strip_prefix(ACCOUNT);
                account
                    .and_then(|both| both.split_once(':'))
                    .is_some_and(|(of_namespace, own)| {
                        of_namespace == namespace && (name == "*" || own == name)
                    })
            }
        }
    }
}

// === impl Resources ===

impl Resources {
    fn matches(&self, access: &Access<'_>) -> bool {
        let placed = match access.namespace {
            "" => self.cluster,
            namespace => has(&self.namespaces, namespace),
        };
        placed
            && has(&self.verbs, access.verb)
            && has(&self.groups, access.group)
            && self.resources.iter().any(|one| is_resource(one, access))
    }
}

/// Whether a name in a rule, `*`, `pods` or `pods/status`, means what is accessed.
fn is_resource(named: &str, access: &Access<'_>) -> bool {
    if named == "*" {
        return true;
    }
    match named.split_once('/') {
        Some((resource, subresource)) => {
            resource == access.resource && subresource == access.subresource
        }
        None => access.subresource.is_empty() && named == access.resource,
    }
}

// === impl Paths ===

impl Paths {
    fn matches(&self, verb: &str, path: &str) -> bool {
        has(&self.verbs, verb)
            && self.paths.iter().any(|one| match one.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => one == path,
            })
    }
}
