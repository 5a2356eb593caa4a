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
use peapod_schema::graph::{Node, Scalar, Type};
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
            let object = write(&resource, &case, &mut errors);
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

/// Draws numbers, the same ones for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "A b",
    "10.96.0.7",
    "fd00::1",
    "10.244.1.0/24",
    "80",
    "50%",
    "None",
    "true",
    "Always",
    "RollingUpdate",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "Local",
    "example.com/x",
    "é",
    "* * * * *",
    "Container",
    "2026-01-02T03:04:05Z",
];
const NUMBERS: &[i64] = &[0, 1, 2, 80, -1, 70_000, i32::MAX as i64];

/// Any value of a type, shallower the deeper it stands.
fn any(node: Node<'_>, draw: &mut Draw, depth: usize) -> Value {
    match node.ty() {
        Type::Scalar(scalar) => match scalar {
            Scalar::String => draw.of(TEXTS).into(),
            Scalar::Int32 | Scalar::Int64 | Scalar::Number => draw.of(NUMBERS).into(),
            Scalar::Bool => (draw.below(2) == 0).into(),
            Scalar::Quantity => draw.of(&["0", "1", "-1", "100m", "1Gi"]).into(),
            Scalar::IntOrString | Scalar::Int64OrString => {
                draw.of(&[json!(0), json!(80), json!("web"), json!("0%")])
            }
            Scalar::Time | Scalar::MicroTime => "2026-01-02T03:04:05Z".into(),
            Scalar::Bytes => draw.of(&["", "YQ=="]).into(),
            Scalar::Any => draw.of(&[json!({"a": 1}), json!([]), json!("x")]),
        },
        Type::List(list) => {
            let count = draw.below(3);
            (0..count)
                .map(|_| any(node.to(list.item), draw, depth + 1))
                .collect()
        }
        Type::Map(map) => {
            let count = draw.below(3);
            let entry =
                |draw: &mut Draw| (draw.of(TEXTS), any(node.to(map.value), draw, depth + 1));
            Value::Object(
                (0..count)
                    .map(|_| entry(draw))
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect(),
            )
        }
        Type::Object(object) => {
            let chance = 2 + depth / 3 + object.fields.len() / 12;
            let mut fields = serde_json::Map::new();
            for field in &object.fields {
                if draw.below(chance) == 0 {
                    let value = any(node.to(field.ty), draw, depth + 1);
                    fields.insert(field.name.to_string(), value);
                }
            }
            Value::Object(fields)
        }
    }
}

/// Whatever an object of the right shape says, no rule and no column panics.
#[test]
fn no_object_of_the_right_shape_panics() {
    let registry = Registry::builtin().unwrap();
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    for resource in registry.all() {
        for seed in 1..=40 {
            let mut draw = Draw(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            let (from, to) = (
                any(resource.schema.root(), &mut draw, 0),
                any(resource.schema.root(), &mut draw, 0),
            );
            let created = json!({"case": resource.kind.kind, "create": from, "addresses": true});
            let updated = json!({
                "case": resource.kind.kind, "from": from, "update": to, "addresses": true,
            });
            for case in [created, updated] {
                let mut object = write(&resource, &case, &mut FieldErrors::new());
                let rules = &resource.kind.rules;
                rules.validate_status(&object, &object, &mut FieldErrors::new());
                rules.warnings(&object);
                rules.claims(&object);
                rules.grace_period(&object, None);
                rules.is_held(&object);
                for column in &resource.kind.columns {
                    column.cell(&object, now);
                }
                let old = object.clone();
                rules.prepare_status(&mut object, &old);
                rules.mark_deleting(&mut object);
                rules.to_stored(&mut object);
                rules.from_stored(&mut object);
            }
        }
    }
}

/// Every resource of the published API whose group is served is served as published: names,
/// scope, verbs, and all of its subresources.
#[test]
fn declarations_agree_with_the_published_table() {
    let registry = Registry::builtin().unwrap();
    let versions = registry.versions();
    let mut wrong = Vec::new();
    for row in peapod_schema::resources::all() {
        if !versions.iter().any(|(group, _)| group == row.group) {
            continue;
        }
        let published = published(&row);
        let (plural, part) = row.resource.split_once('/').unwrap_or((row.resource, ""));
        let found = registry.find(row.group, row.version, plural);
        let declared = found.and_then(|resource| declared(&resource, part));
        if declared.as_ref() != Some(&published) {
            let place = format!("{}/{}/{}", row.group, row.version, row.resource);
            wrong.push(format!("{place}: {declared:?}\n instead of {published:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kind, scope, short names, categories, verbs.
type Shown = (String, bool, Vec<String>, Vec<String>, BTreeSet<String>);

fn published(row: &peapod_schema::resources::Row) -> Shown {
    let texts = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
    let kind = row.kind.rsplit('/').next().unwrap_or_default();
    (
        kind.to_owned(),
        row.namespaced,
        texts(row.short_names().collect()),
        texts(row.categories().collect()),
        row.verbs().map(str::to_owned).collect(),
    )
}

fn declared(resource: &Resource, part: &str) -> Option<Shown> {
    let kind = &resource.kind;
    if part.is_empty() {
        return Some((
            kind.kind.clone(),
            kind.is_namespaced(),
            kind.short_names.clone(),
            kind.categories.clone(),
            kind.verbs
                .iter()
                .map(|verb| verb.as_str().to_owned())
                .collect(),
        ));
    }
    let part = kind.find_subresource(part)?;
    let spoken = part.kind().map_or(kind.kind.as_str(), |(_, _, kind)| kind);
    Some((
        spoken.to_owned(),
        kind.is_namespaced(),
        Vec::new(),
        Vec::new(),
        part.verbs()
            .iter()
            .map(|verb| verb.as_str().to_owned())
            .collect(),
    ))
}
