//! `edit`: the object in an editor; what was changed is sent as a merge patch.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::session::Session;
use super::{args, patch, print};

/// The arguments of `edit`.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// TYPE NAME or TYPE/NAME
    #[arg(required = true)]
    words: Vec<String>,
}

/// Runs `edit`.
pub async fn run(session: &Session, args: &EditArgs) -> Result<()> {
    let (resource, name) = args::one(session, &args.words).await?;
    let path = resource.object(session.namespace(), &name);
    let mut before = session.get(&path).await?;
    if let Some(metadata) = before["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let mut file = tempfile::Builder::new()
        .prefix("peapod-edit-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a temporary file")?;
    file.write_all(print::yaml(&before)?.as_bytes())?;
    open(file.path())?;
    let text = std::fs::read_to_string(file.path())?;
    let after: Value = serde_saphyr::from_str(&text).map_err(|error| {
        keep(
            file,
            anyhow::Error::new(error).context("the edited text is no YAML"),
        )
    })?;
    if after == before {
        println!("Edit cancelled, no changes made.");
        return Ok(());
    }
    patch::merge(session, &path, &difference(&before, &after)).await?;
    println!("{} edited", resource.object_name(&name));
    Ok(())
}

/// Keeps the text that a person wrote when it cannot be used.
fn keep(file: tempfile::NamedTempFile, error: anyhow::Error) -> anyhow::Error {
    match file.keep() {
        Ok((_, path)) => error.context(format!("your text is kept in {}", path.display())),
        Err(_) => error,
    }
}

fn open(path: &std::path::Path) -> Result<()> {
    let editor = ["KUBE_EDITOR", "VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .status()
        .with_context(|| format!("cannot run {editor}; set $EDITOR"))?;
    if !status.success() {
        bail!("the editor {editor} ended with {status}; nothing was changed");
    }
    Ok(())
}

/// The merge patch that leads from one value to another (RFC 7396).
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return after.clone();
    };
    let mut patch = serde_json::Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(old) => {
                patch.insert(key.clone(), difference(old, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_lead_there() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let after = json!({"a": 1, "b": {"c": 3}, "e": [1, 2], "f": null});
        let patch = difference(&before, &after);
        assert_eq!(
            patch,
            json!({"b": {"c": 3, "d": null}, "e": [1, 2], "f": null})
        );
    }
}
