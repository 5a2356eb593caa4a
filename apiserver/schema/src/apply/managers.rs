//! `metadata.managedFields`: who owns what, read, written and kept short.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value};

use super::set::FieldSet;

/// How many managers that update (rather than apply) an object may have entries of their own.
const UPDATERS_MAX: usize = 10;
/// Into whose entry the oldest ones are put beyond that.
const ANCIENT: &str = "ancient-changes";

/// What a manager does with the fields it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Who has an entry: the same manager has one for each way it writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) operation: Operation,
    pub(crate) name: String,
    /// Empty for who applies: an application replaces the one before, of whatever version.
    pub(crate) version: String,
    pub(crate) subresource: String,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The version that the fields were written in.
    pub(crate) version: String,
    /// When, in RFC 3339; empty if not known.
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managers(pub(crate) BTreeMap<Manager, Entry>);

impl Manager {
    /// As messages spell it: `"kubectl" with subresource "scale" using apps/v1`.
    pub(crate) fn spelled(&self) -> String {
        let mut out = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            out += &format!(" using {}", self.version);
        }
        out
    }
}

impl Managers {
    /// Reads an object's managers; none, if there are none or they make no sense.
    pub(crate) fn of(object: &Value) -> Self {
        let entries = object.pointer("/metadata/managedFields");
        let entries = entries.and_then(Value::as_array).into_iter().flatten();
        Self(entries.filter_map(read_entry).collect())
    }

    /// Whether an object asks for its managers to be forgotten, by `[]` or `[{}]`.
    pub(crate) fn is_reset(object: &Value) -> bool {
        match object.pointer("/metadata/managedFields") {
            Some(Value::Array(entries)) => match entries.as_slice() {
                [] => true,
                [only] => only.as_object().is_some_and(JsonMap::is_empty),
                _ => false,
            },
            _ => false,
        }
    }

    /// Puts the managers into an object's metadata.
    pub(crate) fn write(self, object: &mut Value) {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return;
        };
        let mut entries: Vec<_> = self.0.into_iter().collect();
        entries.sort_by(|(a, ours), (b, theirs)| {
            let by_time = a
                .operation
                .cmp(&b.operation)
                .then(ours.time.cmp(&theirs.time));
            let by_name = a.name.cmp(&b.name).then(ours.version.cmp(&theirs.version));
            by_time
                .then(by_name)
                .then(a.subresource.cmp(&b.subresource))
        });
        let entries: Vec<Value> = entries.into_iter().map(write_entry).collect();
        match entries.is_empty() {
            true => metadata.remove("managedFields"),
            false => metadata.insert("managedFields".to_owned(), Value::Array(entries)),
        };
    }

    /// Drops the managers that own nothing.
    pub(crate) fn drop_empty(&mut self) {
        self.0.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Merges the entries of the oldest updaters, one for each version, until no more than ten
    /// are left.
    pub(crate) fn cap(&mut self) {
        let mut updaters: Vec<(String, Manager)> = self
            .0
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, entry)| (entry.time.clone(), manager.clone()))
            .collect();
        let mut count = updaters.len();
        updaters.sort();
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= UPDATERS_MAX {
                return;
            }
            let Some(first) = first_of.get(&manager.version) else {
                first_of.insert(manager.version.clone(), manager);
                continue;
            };
            let bucket = Manager {
                operation: Operation::Update,
                name: ANCIENT.to_owned(),
                version: manager.version.clone(),
                subresource: String::new(),
            };
            let (first, manager) = (self.0.remove(first), self.0.remove(&manager));
            if let Some(mut entry) = manager {
                for older in [first, self.0.remove(&bucket)].into_iter().flatten() {
                    entry.fields = entry.fields.union(older.fields);
                }
                self.0.insert(bucket, entry);
            }
            count -= 1;
        }
    }
}

fn read_entry(entry: &Value) -> Option<(Manager, Entry)> {
    let text = |name: &str| {
        let value = entry.get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let operation = match entry.get("operation")?.as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let version = text("apiVersion");
    let manager = Manager {
        operation,
        name: text("manager"),
        version: match operation {
            Operation::Apply => String::new(),
            Operation::Update => version.clone(),
        },
        subresource: text("subresource"),
    };
    let entry = Entry {
        version,
        time: text("time"),
        fields: FieldSet::from_fields_v1(entry.get("fieldsV1")?),
    };
    Some((manager, entry))
}

fn write_entry((manager, entry): (Manager, Entry)) -> Value {
    let mut out = JsonMap::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            out.insert(name.to_owned(), Value::from(value));
        }
    };
    put("manager", &manager.name);
    put(
        "operation",
        match manager.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        },
    );
    put("apiVersion", &entry.version);
    put("time", &entry.time);
    put("subresource", &manager.subresource);
    put("fieldsType", "FieldsV1");
    out.insert("fieldsV1".to_owned(), entry.fields.into_fields_v1());
    Value::Object(out)
}
