//! Manifests from files, folders and standard input, YAML or JSON, several to a file.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Largest manifest file in bytes; what the API server would refuse is not read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads every object of the named files; `-` is standard input, a folder means its
/// `.yaml`, `.yml` and `.json` files (with `recursive`, those below it too). Lists are opened.
pub fn read(names: &[String], recursive: bool) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for name in names {
        for (source, text) in sources(name, recursive)? {
            let found = parse(&text).with_context(|| format!("error parsing {source}"))?;
            objects.extend(found);
        }
    }
    if objects.is_empty() {
        bail!("no objects passed: the files hold none");
    }
    Ok(objects)
}

fn sources(name: &str, recursive: bool) -> Result<Vec<(String, String)>> {
    if name == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let mut files = Vec::new();
    collect(Path::new(name), recursive, true, &mut files)?;
    files
        .into_iter()
        .map(|path| Ok((path.display().to_string(), text_of(&path)?)))
        .collect()
}

fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

fn collect(path: &Path, recursive: bool, top: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        let manifest = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
        if top || manifest {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if !top && !recursive {
        return Ok(());
    }
    let entries =
        std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut paths = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths
        .iter()
        .try_for_each(|path| collect(path, recursive, false, files))
}

/// Reads the documents of a text.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = match text.trim_start().starts_with('{') {
        true => serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()?,
        false => serde_saphyr::from_multiple(text)?,
    };
    let mut objects = Vec::new();
    for document in documents {
        open(document, &mut objects)?;
    }
    Ok(objects)
}

fn open(mut document: Value, objects: &mut Vec<Value>) -> Result<()> {
    if document.is_null() {
        return Ok(());
    }
    if !document.is_object() {
        bail!("a manifest must be an object with apiVersion and kind, not {document}");
    }
    let is_list = document["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => {
            items.into_iter().try_for_each(|item| open(item, objects))
        }
        Some(items) => {
            document["items"] = items;
            objects.push(document);
            Ok(())
        }
        None => {
            objects.push(document);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists() {
        let yaml = "---\nkind: A\n---\nkind: AList\nitems:\n- kind: B\n- kind: C\n";
        let kinds: Vec<_> = parse(yaml)
            .unwrap()
            .iter()
            .map(|o| o["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(
            parse("{\"kind\":\"A\"}\n{\"kind\":\"B\"}").unwrap().len(),
            2
        );
    }

    #[test]
    fn malformed() {
        for bad in ["{", "a: [", "- 1\n- 2", "just text"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
