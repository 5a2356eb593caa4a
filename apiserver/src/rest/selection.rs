//! Selectors compiled against a kind: whether an object is selected, told from its metadata in
//! the store; for fields of custom kinds from the object, as the version that was asked for shows it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use peapod_api::selector::{FieldSelector, Selector};
use peapod_store::IndexId;

use super::encode;
use super::query::ListOptions;
use crate::registry::{Kind, Resource};
use crate::status::{Result, Status};
use crate::storage::{self, Entry, FieldSlots, field_index};

/// What a list or watch selects.
#[derive(Clone, Default)]
pub struct Selection {
    labels: Selector,
    fields: Vec<Term>,
    /// The name that is demanded, if one is.
    pub name: Option<String>,
    /// The namespace that is demanded, if one is.
    pub namespace: Option<String>,
    /// An index that finds a superset of what is selected.
    pub index: Option<(IndexId, String)>,
    /// What shows objects that are stored as another version.
    view: Option<Arc<Resource>>,
}

#[derive(Clone, Debug)]
struct Term {
    place: Place,
    value: String,
    equal: bool,
}

#[derive(Clone, Debug)]
enum Place {
    Name,
    Namespace,
    Slot(usize),
    /// The first of these that is set.
    First(Vec<usize>),
    /// A path into an object of a custom kind, whose definition may change what is selectable.
    Path(String),
}

// === impl Selection ===

impl Selection {
    /// Compiles the selectors of a request. `target_name` is the name in the path, for the
    /// watches that have one.
    pub fn of(resource: &Arc<Resource>, options: &ListOptions, target_name: &str) -> Result<Self> {
        let kind = &resource.kind;
        let bad = |fault: String| Status::bad_request(fault);
        let labels = options.label_selector.parse().map_err(|fault| {
            bad(format!(
                "unable to parse requirement: {}",
                strip(&format!("{fault}"))
            ))
        })?;
        let fields: FieldSelector = options
            .field_selector
            .parse()
            .map_err(|fault| bad(format!("{fault}")))?;
        let mut selection = Self {
            labels,
            view: kind.stored_as.is_some().then(|| resource.clone()),
            ..Self::default()
        };
        let slots = FieldSlots::of(kind);
        for term in &fields.terms {
            let place = place(kind, &slots, &term.field).ok_or_else(|| {
                bad(format!(
                    "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {}",
                    format!("{}, Resource={}", gv(kind), kind.plural),
                    options.label_selector,
                    options.field_selector,
                    term.field
                ))
            })?;
            selection.add(kind, place, &term.value, term.equal);
        }
        if !target_name.is_empty() {
            selection.add(kind, Place::Name, target_name, true);
        }
        Ok(selection)
    }

    fn add(&mut self, kind: &Kind, place: Place, value: &str, equal: bool) {
        let text = || Some(value.to_owned());
        match &place {
            Place::Name if equal => self.name = text(),
            Place::Namespace if equal => self.namespace = text(),
            Place::Slot(slot) if equal && *slot < kind.indexed.len() => {
                self.index = Some((field_index(*slot), value.to_owned()));
            }
            _ => {}
        }
        self.fields.push(Term {
            place,
            value: value.to_owned(),
            equal,
        });
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    pub fn matches(&self, entry: &Entry) -> bool {
        let slot = |slot: usize| entry.meta.fields.get(slot).map_or("", |value| value);
        let shown = OnceCell::new();
        let field = |term: &Term| {
            let value: Cow<'_, str> = match &term.place {
                Place::Name => entry.key.name().into(),
                Place::Namespace => entry.key.namespace().into(),
                Place::Slot(at) => slot(*at).into(),
                Place::First(all) => {
                    let mut texts = all.iter().map(|at| slot(*at));
                    texts.find(|text| !text.is_empty()).unwrap_or("").into()
                }
                Place::Path(path) => {
                    let object = shown.get_or_init(|| self.shown(&entry.value));
                    storage::field(object, path).into()
                }
            };
            (value == term.value) == term.equal
        };
        self.labels.matches_with(|key| entry.meta.label(key)) && self.fields.iter().all(field)
    }

    /// An object as the version that was asked for has it; what cannot be converted has no fields.
    fn shown(&self, stored: &Bytes) -> Bytes {
        let Some(resource) = &self.view else {
            return stored.clone();
        };
        encode::stored(resource, stored).unwrap_or_else(|fault| {
            tracing::warn!(%fault, resource = resource.kind.plural.as_str(), "an object cannot be shown, and is not selected");
            Bytes::new()
        })
    }
}

/// Group and version as kube-apiserver's messages print them: core is `/v1`.
fn gv(kind: &Kind) -> String {
    format!("{}/{}", kind.group, kind.version)
}

fn strip(fault: &str) -> &str {
    let prefix = "unable to parse requirement: ";
    fault.strip_prefix(prefix).unwrap_or(fault)
}

fn place(kind: &Kind, slots: &FieldSlots, field: &str) -> Option<Place> {
    match field {
        "metadata.name" => Some(Place::Name),
        "metadata.namespace" if kind.is_namespaced() => Some(Place::Namespace),
        other if kind.custom => {
            let known = kind.selectable.iter().any(|path| path == other);
            known.then(|| Place::Path(other.to_owned()))
        }
        other if kind.selectable.iter().any(|path| path == other) => {
            let from = kind.selected_from.iter().find(|(name, _)| name == other);
            let Some((_, paths)) = from else {
                return slots.find(other).map(Place::Slot);
            };
            let found: Option<Vec<usize>> = paths.iter().map(|path| slots.find(path)).collect();
            found.map(|found| match found[..] {
                [only] => Place::Slot(only),
                _ => Place::First(found),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn pods() -> Arc<Resource> {
        let registry = Registry::builtin().unwrap();
        registry.find("", "v1", "pods").unwrap()
    }

    fn selection(fields: &str) -> Result<Selection> {
        let options = ListOptions {
            field_selector: fields.into(),
            ..Default::default()
        };
        Selection::of(&pods(), &options, "")
    }

    #[test]
    fn indexes_are_used() {
        let found = selection("spec.nodeName=n1,status.phase!=Failed").unwrap();
        assert_eq!(found.index, Some((field_index(0), "n1".to_owned())));
        assert_eq!(selection("spec.nodeName!=n1").unwrap().index, None);
        let named = selection("metadata.name=a,metadata.namespace=b").unwrap();
        assert_eq!(named.name.as_deref(), Some("a"));
        assert_eq!(named.namespace.as_deref(), Some("b"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let refused = selection("spec.foo=a").err().unwrap();
        assert_eq!(
            refused.message,
            r#"Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.foo=a": field label not supported: spec.foo"#
        );
    }
}
