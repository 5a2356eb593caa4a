//! The resources of the published API, from the table `resources.tsv`: their names, verbs,
//! abbreviations and categories. A subresource is a row of its own, as `pods/log`.

const RESOURCES: &str = include_str!("../data/resources.tsv");

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name, with its subresource if it is one: `pods`, `pods/log`.
    pub resource: &'static str,
    /// Kind of what it speaks; another group's kind is written `policy/Eviction`.
    pub kind: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Singular name; empty for a subresource.
    pub singular: &'static str,
    verbs: &'static str,
    short_names: &'static str,
    categories: &'static str,
}

impl Row {
    /// What may be done, in order of the alphabet.
    pub fn verbs(&self) -> impl Iterator<Item = &'static str> {
        words(self.verbs)
    }

    /// Abbreviations.
    pub fn short_names(&self) -> impl Iterator<Item = &'static str> {
        words(self.short_names)
    }

    /// Categories.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        words(self.categories)
    }
}

fn words(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(',').filter(|word| !word.is_empty())
}

/// All rows.
pub fn all() -> impl Iterator<Item = Row> {
    let lines = RESOURCES.lines().skip(1);
    lines.filter(|line| !line.is_empty()).map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or("");
        let (group, version, resource, kind, scope, verbs) =
            (cell(), cell(), cell(), cell(), cell(), cell());
        Row {
            group: if group == "core" { "" } else { group },
            version,
            resource,
            kind,
            namespaced: scope == "Namespaced",
            verbs,
            short_names: cell(),
            categories: cell(),
            singular: cell(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_in_the_table() {
        let pods = all().find(|row| row.resource == "pods").unwrap();
        assert_eq!((pods.group, pods.version, pods.kind), ("", "v1", "Pod"));
        assert!(pods.namespaced && pods.verbs().any(|verb| verb == "watch"));
        assert_eq!(pods.short_names().collect::<Vec<_>>(), ["po"]);
        assert_eq!(pods.categories().collect::<Vec<_>>(), ["all"]);
        let eviction = all().find(|row| row.resource == "pods/eviction").unwrap();
        assert_eq!(eviction.kind, "policy/Eviction");
    }
}
