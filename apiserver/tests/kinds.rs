//! The kinds, by a folder of cases: `tests/golden/kinds`. A file is about one resource and has
//! YAML documents: the first names it, each other is a case. `create:` an object, or `update:`
//! the object `from:`; then either what it `gives:` (after defaulting and preparation, without
//! `apiVersion`, `kind` and `metadata`), or the `errors:` in order. `addresses:` says that the
//! kind allocates, from a small cluster's pools.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use peapod_apiserver::registry::claims::{Claim, Family, Pools};
use peapod_apiserver::registry::{FieldErrors, Registry, Resource, object_meta, value};
use peapod_schema::{check, decode, default};
use serde_json::{Value, json};

/// A dual-stack cluster in which `10.96.0.9` and node port 30009 are taken.
#[derive(Default)]
struct SmallCluster {
    picked: u8,
    ports: u16,
}

impl Pools for SmallCluster {
    fn families(&self) -> &[Family] {
        &[Family::V4, Family::V6]
    }

    fn pick_address(&mut self, family: Family) -> Option<IpAddr> {
        self.picked += 1;
        let text = match family {
            Family::V4 => format!("10.96.0.{}", 100 + self.picked),
            Family::V6 => format!("fd00:10:96::{:x}", 0x100 + u16::from(self.picked)),
        };
        text.parse().ok()
    }

    fn pick_port(&mut self) -> Option<u16> {
        self.ports += 1;
        Some(30_100 + self.ports)
    }

    fn holds_address(&self, address: IpAddr) -> bool {
        let text = address.to_string();
        text.starts_with("10.96.") || text.starts_with("fd00:10:96::")
    }

    fn is_taken(&self, claim: &Claim) -> bool {
        matches!(claim.item.as_str(), "10.96.0.9" | "30009")
    }

    fn port_range(&self) -> String {
        "30000-32767".to_owned()
    }

    fn holds_port(&self, port: u16) -> bool {
        (30_000..=32_767).contains(&port)
    }
}

/// What the pipeline does with an object, as far as it is pure.
fn write(resource: &Resource, case: &Value, errors: &mut FieldErrors) -> Value {
    let rules = &resource.kind.rules;
    let complete = |object: &Value| {
        let mut object = object.clone();
        let unknown = check::check(&mut object, &resource.schema).unwrap();
        assert_eq!(unknown, Vec::<String>::new(), "{}", case["case"]);
        default::default(&mut object, &resource.schema);
        let meta = value::entry(&mut object, "metadata");
        if meta.get("name").is_none() {
            meta["name"] = "x".into();
        }
        if resource.kind.is_namespaced() && meta.get("namespace").is_none() {
            meta["namespace"] = "default".into();
        }
        rules.defaults(&mut object);
        object
    };
    let old = case.get("from").map(complete);
    let field = if old.is_some() { "update" } else { "create" };
    let mut object = complete(&case[field]);
    match &old {
        Some(old) => rules.prepare_update(&mut object, old),
        None => rules.prepare_create(&mut object),
    }
    if case["addresses"] == true {
        rules.allocate(
            &mut object,
            old.as_ref(),
            &mut SmallCluster::default(),
            errors,
        );
    }
    object_meta::validate(resource, &object, errors);
    rules.validate(&object, errors);
    if let Some(old) = &old {
        rules.validate_update(&object, old, errors);
    }
    object
}

fn body(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    }
    object
}

#[test]
fn kinds() {
    let registry = Registry::builtin().unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kinds");
    let (mut covered, mut wrong) = (BTreeSet::new(), Vec::new());
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let read = |part: &str| match decode::yaml(part.as_bytes()) {
            Ok(decoded) => decoded.value,
            Err(error) => panic!("{}: {error}\n{part}", path.display()),
        };
        let mut documents = text.split("\n---\n").map(read);
        let head = documents.next().unwrap();
        let part = |name: &str| head[name].as_str().unwrap_or_default().to_owned();
        let resource = registry.find(&part("group"), &part("version"), &part("resource"));
        let resource = resource.unwrap_or_else(|| panic!("{}: no such resource", path.display()));
        for case in documents {
            let mut errors = FieldErrors::new();
            let object = write(resource, &case, &mut errors);
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let place = format!("{}: {}", path.display(), case["case"]);
            let expected = case.get("errors").cloned().unwrap_or_else(|| json!([]));
            if json!(told) != expected {
                wrong.push(format!(
                    "{place}\n told {told:#?}\n instead of {expected:#}"
                ));
            }
            match case.get("gives") {
                Some(gives) if *gives != body(object.clone()) => {
                    let body = body(object);
                    wrong.push(format!("{place}\n gives {body:#}\n instead of {gives:#}"));
                }
                _ => {}
            }
        }
        covered.insert(resource.kind.plural.clone());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(covered.len() >= 10, "{covered:?}");
}

/// Every kind of the published API that is declared here is declared as published.
#[test]
fn declarations_agree_with_the_published_table() {
    let registry = Registry::builtin().unwrap();
    for row in peapod_schema::resources::all() {
        // The rows of subresources are found from their resource's.
        let plural = row.resource;
        let Some(resource) = registry.find(row.group, row.version, plural) else {
            continue;
        };
        let kind = &resource.kind;
        let place = format!("{}/{plural}", row.group);
        assert_eq!(kind.kind, row.kind, "{place}");
        assert_eq!(kind.is_namespaced(), row.namespaced, "{place}");
        assert_eq!(
            kind.short_names,
            row.short_names().collect::<Vec<_>>(),
            "{place}"
        );
        assert_eq!(
            kind.categories,
            row.categories().collect::<Vec<_>>(),
            "{place}"
        );
        let declared: BTreeSet<_> = kind.verbs.iter().map(|verb| verb.as_str()).collect();
        assert_eq!(declared, row.verbs().collect(), "{place}");
        let published = |name: &str| {
            let row = format!("{plural}/{name}");
            peapod_schema::resources::all().any(|r| r.group == kind.group && r.resource == row)
        };
        for name in ["status", "scale"] {
            assert_eq!(
                kind.find_subresource(name).is_some(),
                published(name),
                "{place}/{name}"
            );
        }
    }
}
