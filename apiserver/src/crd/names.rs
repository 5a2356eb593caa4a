//! Which definition has which names: within a group a plural, a singular, a short name, a kind
//! and a list kind belong to whoever had them first.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::registry::{Kind, value};

/// Names that are taken in one group.
#[derive(Debug, Default)]
pub struct Taken {
    /// Plurals, singulars and short names.
    resources: BTreeSet<String>,
    /// Kinds and list kinds.
    kinds: BTreeSet<String>,
}

/// Why not all names of a definition are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `PluralConflict` and the like.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

// === impl Taken ===

impl Taken {
    /// The names that all definitions of the group but one have been given, and those of built-in
    /// kinds.
    pub fn by_others<'a>(
        definition: &Value,
        all: impl Iterator<Item = &'a Value>,
        builtin: impl Iterator<Item = &'a Kind>,
    ) -> Self {
        let mut taken = Self::default();
        let group = value::text(definition, "spec.group");
        let own = value::text(definition, "metadata.name");
        for other in all {
            if value::text(other, "spec.group") == group
                && value::text(other, "metadata.name") != own
            {
                taken.add(&other["status"]["acceptedNames"]);
            }
        }
        for kind in builtin {
            taken
                .resources
                .extend([kind.plural.clone(), kind.singular.clone()]);
            taken.resources.extend(kind.short_names.iter().cloned());
            taken
                .kinds
                .extend([kind.kind.clone(), format!("{}List", kind.kind)]);
        }
        taken
    }

    fn add(&mut self, names: &Value) {
        let resources = ["plural", "singular"].map(|field| value::text(names, field).to_owned());
        self.resources.extend(resources);
        let short = value::list(names, "shortNames").iter();
        self.resources
            .extend(short.filter_map(|name| Some(name.as_str()?.to_owned())));
        let kinds = ["kind", "listKind"].map(|field| value::text(names, field).to_owned());
        self.kinds.extend(kinds);
    }

    fn has_resource(&self, name: &str) -> bool {
        !name.is_empty() && self.resources.contains(name)
    }
}

/// The names that a definition gets of those it asks for, and what stands against the others.
/// What it was given before stays where the new name is taken.
pub fn accept(definition: &Value, taken: &Taken) -> (Value, Option<Conflict>) {
    let wanted = &definition["spec"]["names"];
    let before = &definition["status"]["acceptedNames"];
    let mut given = json!({
        "plural": value::text(before, "plural"),
        "kind": value::text(before, "kind"),
    });
    for field in ["singular", "shortNames", "listKind", "categories"] {
        value::set_or_remove(&mut given, field, before.get(field).cloned());
    }
    let mut conflict = None;
    let mut settle = |field: &str, clash: Option<&str>, reason: &'static str| match clash {
        Some(name) => {
            let message = format!("{name:?} is already in use");
            conflict.get_or_insert(Conflict { reason, message });
        }
        None => value::set_or_remove(&mut given, field, wanted.get(field).cloned()),
    };
    let clash =
        |field: &str| Some(value::text(wanted, field)).filter(|name| taken.has_resource(name));
    settle("plural", clash("plural"), "PluralConflict");
    settle("singular", clash("singular"), "SingularConflict");
    let short = value::list(wanted, "shortNames")
        .iter()
        .filter_map(Value::as_str);
    let clashing: Vec<&str> = short.filter(|name| taken.has_resource(name)).collect();
    settle(
        "shortNames",
        clashing.first().copied(),
        "ShortNamesConflict",
    );
    let clash = |field: &str| {
        Some(value::text(wanted, field))
            .filter(|name| !name.is_empty() && taken.kinds.contains(*name))
    };
    settle("kind", clash("kind"), "KindConflict");
    settle("listKind", clash("listKind"), "ListKindConflict");
    value::set_or_remove(&mut given, "categories", wanted.get("categories").cloned());
    (given, conflict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, plural: &str, kind: &str, accepted: bool) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")});
        let mut object =
            json!({"metadata": {"name": name}, "spec": {"group": "a.b", "names": names}});
        if accepted {
            object["status"]["acceptedNames"] = names;
        }
        object
    }

    #[test]
    fn the_first_keeps_its_names() {
        let first = definition("foos.a.b", "foos", "Foo", true);
        let second = definition("bars.a.b", "bars", "Foo", false);
        let all = [first.clone(), second.clone()];
        let taken = Taken::by_others(&first, all.iter(), std::iter::empty());
        assert_eq!(
            accept(&first, &taken),
            (first["spec"]["names"].clone(), None)
        );
        let taken = Taken::by_others(&second, all.iter(), std::iter::empty());
        let (given, conflict) = accept(&second, &taken);
        assert_eq!(conflict.unwrap().message, "\"foo\" is already in use");
        assert_eq!(given, json!({"plural": "bars", "kind": ""}));
    }
}
