//! A pod's specification as the checks see it, and the words in which they tell who breaks a
//! demand, which are upstream's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::editions::Edition;
use crate::registry::value;

/// A pod's specification, judged by an edition.
pub struct Pod<'a> {
    /// The specification.
    pub spec: &'a Value,
    /// By which edition it is judged.
    pub edition: Edition,
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// The containers of all sorts.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| value::list(spec, list))
    }

    /// Whether root in it is nobody on the host, as later editions see.
    pub fn has_own_users(&self) -> bool {
        self.edition.since(35) && value::at(self.spec, "hostUsers") == Some(&Value::Bool(false))
    }

    /// Whether it is for Windows, which knows less of what is demanded, as later editions see.
    pub fn is_of_windows(&self) -> bool {
        self.edition.since(25) && value::text(self.spec, "os.name") == "windows"
    }

    /// The names of the containers that break a demand.
    pub fn breaking(&self, breaks: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let all = self.containers().filter(|one| breaks(one));
        all.map(|one| value::text(one, "name")).collect()
    }

    /// Who breaks a demand of what the pod says for all containers, or they for themselves:
    /// `pod and containers "a", "b"`. `None` if nobody does.
    pub fn breakers(&self, breaks: impl Fn(&Value) -> bool) -> Option<String> {
        let pod = breaks(self.spec).then(|| "pod".to_owned());
        let containers = self.breaking(breaks);
        let containers = (!containers.is_empty()).then(|| named("container", &containers));
        let who: Vec<String> = pod.into_iter().chain(containers).collect();
        (!who.is_empty()).then(|| who.join(" and "))
    }

    /// What the pod and its containers have of something, in order.
    pub fn values<T: Ord>(&self, of: impl Fn(&Value) -> Option<T>) -> BTreeSet<T> {
        let places = std::iter::once(self.spec).chain(self.containers());
        places.filter_map(of).collect()
    }
}

/// `container "a"`, `containers "a", "b"`.
pub fn named(what: &str, names: &[&str]) -> String {
    format!("{what}{} {}", plural(names.len()), quoted(names))
}

/// `"a", "b"`
pub fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let quoted = names.into_iter().map(|name| format!("{:?}", name.as_ref()));
    quoted.collect::<Vec<_>>().join(", ")
}

/// The ending of a noun for so many.
pub fn plural(count: usize) -> &'static str {
    if count > 1 { "s" } else { "" }
}

/// The verb for so many.
pub fn uses(count: usize) -> &'static str {
    if count > 1 { "use" } else { "uses" }
}

/// The demand that containers break, `None` if none does.
pub fn told(why: &str, names: &[&str], must: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("{why} ({} {must})", named("container", names)))
}
