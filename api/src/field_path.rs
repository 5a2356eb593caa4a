//! Paths to fields, as kube-apiserver's messages spell them: `spec.containers[0].name`,
//! `metadata.labels[app]`.

use std::fmt;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

/// A path from an object's root to one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Step>);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a dotted constant, as `"spec.template.spec"`.
    pub fn of(dotted: &str) -> Self {
        Self(
            dotted
                .split('.')
                .filter(|name| !name.is_empty())
                .map(|name| Step::Field(name.to_owned()))
                .collect(),
        )
    }

    /// A field of the object at this path; dots in `name` make several steps.
    pub fn child(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.0.extend(Self::of(name).0);
        path
    }

    /// An element of the list at this path.
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// A value of the map at this path.
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled_as_upstream() {
        let ports = FieldPath::of("spec.containers").index(0).child("ports");
        assert_eq!(
            ports.index(1).child("name").to_string(),
            "spec.containers[0].ports[1].name"
        );
        let label = FieldPath::of("metadata.labels").key("a.b/c");
        assert_eq!(label.to_string(), "metadata.labels[a.b/c]");
    }
}
