//! The built-in resources: names, scope, verbs and subresources of the published API, read from
//! `resources.tsv`.

const RESOURCES: &str = include_str!("../data/resources.tsv");

/// A resource or subresource of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Group; empty for core.
    pub group: &'static str,
    /// Version, as `v1`.
    pub version: &'static str,
    /// Plural name, with its subresource: `pods`, `pods/status`.
    pub resource: &'static str,
    /// Kind of the objects; for a subresource that speaks another group's, `group/Kind`.
    pub kind: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    verbs: &'static str,
    short_names: &'static str,
    categories: &'static str,
}

/// All rows, in the order of the table.
pub fn all() -> impl Iterator<Item = Row> {
    let lines = RESOURCES.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(|line| {
        let mut cells = line.split('\t');
        let [
            group,
            version,
            resource,
            kind,
            scope,
            verbs,
            short_names,
            categories,
        ] = std::array::from_fn(|_| cells.next().unwrap_or(""));
        Row {
            group: if group == "core" { "" } else { group },
            version,
            resource,
            kind,
            namespaced: scope == "Namespaced",
            verbs,
            short_names,
            categories,
        }
    })
}

impl Row {
    /// What may be done: `create`, `delete`, ...
    pub fn verbs(&self) -> impl Iterator<Item = &'static str> {
        parts(self.verbs)
    }

    /// Abbreviations for the command line.
    pub fn short_names(&self) -> impl Iterator<Item = &'static str> {
        parts(self.short_names)
    }

    /// Groups of kinds for the command line.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        parts(self.categories)
    }
}

fn parts(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(',').filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() {
        let find = |name| all().find(|row| row.resource == name).unwrap();
        let pods = find("pods");
        assert_eq!((pods.group, pods.kind, pods.namespaced), ("", "Pod", true));
        assert_eq!(pods.short_names().collect::<Vec<_>>(), ["po"]);
        assert!(pods.verbs().any(|verb| verb == "watch"));
        assert_eq!(find("deployments/scale").verbs().count(), 3);
        assert!(!find("nodes").namespaced);
    }
}
