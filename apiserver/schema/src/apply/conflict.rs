//! Conflicts of an application, and how they are told.

use std::fmt;

use super::managers::Manager;
use super::set::FieldSet;

/// A field that an application would change and someone else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field, as `.spec.replicas`.
    pub field: String,
}

/// All conflicts of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    owned: Vec<(String, FieldSet)>,
}

impl Conflicts {
    pub(super) fn new<'a>(owned: impl Iterator<Item = (&'a Manager, FieldSet)>) -> Self {
        let owned = owned.filter(|(_, set)| !set.is_empty());
        let owned = owned.map(|(manager, set)| (manager.spelled(), set));
        Self {
            owned: owned.collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// The conflicts outside of a set; `None` when there are none.
    pub(super) fn except(&self, excused: &FieldSet) -> Option<Self> {
        let left = self.owned.iter();
        let left = left.map(|(manager, set)| (manager.clone(), set.clone().difference(excused)));
        let left: Vec<_> = left.filter(|(_, set)| !set.is_empty()).collect();
        (!left.is_empty()).then_some(Self { owned: left })
    }

    /// Each field, for the causes of a Status (`reason: FieldManagerConflict`, `message:
    /// conflict with MANAGER`).
    pub fn causes(&self) -> Vec<Conflict> {
        let mut out = Vec::new();
        for (manager, set) in &self.owned {
            out.extend(set.paths().into_iter().map(|field| Conflict {
                manager: manager.clone(),
                field,
            }));
        }
        out
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.causes();
        if let [Conflict { manager, field }] = causes.as_slice() {
            let conflict = "Apply failed with 1 conflict: conflict with";
            return write!(f, "{conflict} {manager}: {field}");
        }
        write!(f, "Apply failed with {} conflicts: ", causes.len())?;
        let mut lines = Vec::new();
        for (manager, set) in &self.owned {
            lines.push(format!("conflicts with {manager}:"));
            lines.extend(set.paths().into_iter().map(|field| format!("- {field}")));
        }
        f.write_str(&lines.join("\n"))
    }
}
