//! Reading folders of golden cases.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use peapod_schema::{Schema, builtin, graph::Graph};
use serde_json::Value;

static GRAPH: LazyLock<Arc<Graph>> =
    LazyLock::new(|| Arc::new(builtin::graph(|text| Ok(text.to_owned()))));

/// A built-in type's schema.
pub fn schema(name: &str) -> Schema {
    Schema::named(&GRAPH, name).unwrap_or_else(|| panic!("no type {name}"))
}

/// The cases of a folder: a name and the documents of the file.
pub fn cases(folder: &str) -> Vec<(String, Vec<Value>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder);
    let mut files: Vec<_> = root
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no case in {}", root.display());
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let documents = text.split("\n---\n").map(|part| {
                let decoded = peapod_schema::decode::yaml(part.as_bytes());
                decoded
                    .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
                    .value
            });
            (
                file.file_stem().unwrap().to_string_lossy().into_owned(),
                documents.collect(),
            )
        })
        .collect()
}
