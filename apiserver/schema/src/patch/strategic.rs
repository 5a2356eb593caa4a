//! Strategic merge patch: objects merge field by field, lists by the merge key of their field,
//! and directives in the patch say otherwise.
//!
//! - `$patch: replace` or `delete` in an object or in an item of a list; `merge` is the default.
//! - `$retainKeys: [...]` drops the fields of the object that it does not name.
//! - `$deleteFromPrimitiveList/x: [...]` removes items from the list of scalars `x`.
//! - `$setElementOrder/x: [...]` orders the list `x`.
//!
//! What is in a list and not in the patch stays, and keeps its place among the items around it
//! as well as it can. See the API conventions, "Strategic Merge Patch".

use serde_json::{Map as JsonMap, Value};

use super::order::{self, Identity};
use super::{PatchError, malformed};
use crate::graph::{Node, PatchStrategy, Schema, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

type Fields = JsonMap<String, Value>;

/// Applies a strategic merge patch to an object.
pub fn strategic(original: Value, patch: Value, schema: &Schema) -> Result<Value, PatchError> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            merge_object(original, patch, Some(schema.root())).map(Value::Object)
        }
        (_, Value::Object(_)) => malformed("the object to patch is no JSON object"),
        _ => malformed("a strategic merge patch must be a JSON object"),
    }
}

/// What the schema says about a field; nothing, for one that it does not know.
fn lookup<'a>(node: Option<Node<'a>>, name: &str) -> (Option<Node<'a>>, PatchStrategy) {
    let Some(node) = node else {
        return Default::default();
    };
    let strategy = match node.ty() {
        Type::Object(object) => object.field(name).map(|field| field.patch.clone()),
        _ => None,
    };
    (node.child(name), strategy.unwrap_or_default())
}

fn merge_object(
    mut original: Fields,
    mut patch: Fields,
    node: Option<Node<'_>>,
) -> Result<Fields, PatchError> {
    match take_directive(&mut patch)? {
        Some(Directive::Replace) => return Ok(patch),
        Some(Directive::Delete) => return Ok(Fields::new()),
        Some(Directive::Merge) | None => {}
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, node)?;
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut original, list, change)?;
            continue;
        }
        if change.is_null() {
            original.remove(&name);
            continue;
        }
        let (inner, strategy) = lookup(node, &name);
        let merged = match (original.remove(&name), change) {
            (Some(Value::Object(old)), Value::Object(new)) if !strategy.replace => {
                Value::Object(merge_object(old, new, inner)?)
            }
            (Some(Value::Array(old)), Value::Array(new)) if strategy.merge => {
                Value::Array(merge_list(old, new, inner, strategy.merge_key.as_deref())?)
            }
            (_, mut change) => {
                drop_directives(&mut change);
                change
            }
        };
        original.insert(name, merged);
    }
    Ok(original)
}

enum Directive {
    Replace,
    Delete,
    Merge,
}

fn take_directive(fields: &mut Fields) -> Result<Option<Directive>, PatchError> {
    match fields.remove(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(word)) => match word.as_str() {
            "replace" => Ok(Some(Directive::Replace)),
            "delete" => Ok(Some(Directive::Delete)),
            "merge" => Ok(Some(Directive::Merge)),
            _ => malformed(format!("unknown patch type: {word}")),
        },
        Some(other) => malformed(format!("unknown patch type: {other}")),
    }
}

fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return malformed("invalid patch format of retainKeys");
    };
    let kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let directive =
        |name: &str| name.starts_with(DELETE_FROM_LIST) || name.starts_with(ELEMENT_ORDER);
    for (name, value) in patch.iter() {
        if !value.is_null() && !directive(name) && !kept(name) {
            return malformed("invalid patch format of retainKeys");
        }
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

fn delete_from_list(original: &mut Fields, name: &str, gone: Value) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return malformed(format!("{DELETE_FROM_LIST}{name} must be a list"));
    };
    if let Some(Value::Array(items)) = original.get_mut(name) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Merges and orders the lists for which the patch gives an order; takes them out of the patch.
fn merge_ordered_lists(
    original: &mut Fields,
    patch: &mut Fields,
    node: Option<Node<'_>>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let Some(Value::Array(wanted)) = patch.remove(&directive) else {
            return malformed(format!("{directive} must be a list"));
        };
        let name = &directive[ELEMENT_ORDER.len()..];
        let (inner, strategy) = lookup(node, name);
        let identity = Identity::of(strategy.merge_key.as_deref());
        let old = take_list(original, name)?;
        let new = take_list(patch, name)?;
        if let Some(new) = &new {
            order::must_follow(new, &wanted, identity, &directive)?;
        }
        let before = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (Some(old), Some(new)) if strategy.merge => {
                merge_list(old, new, inner, strategy.merge_key.as_deref())?
            }
            (_, Some(new)) => without_directives(new),
        };
        let ordered = order::arrange(merged, &wanted, &before, identity);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn take_list(fields: &mut Fields, name: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => malformed(format!("{name} must be a list")),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    node: Option<Node<'_>>,
    merge_key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let identity = Identity::of(merge_key);
    let before = original.clone();
    let (merged, named) = match merge_key {
        None => (union(original, &patch), patch),
        Some(key) => {
            let item = node.and_then(Node::item);
            let (original, patch) = obey_item_directives(original, patch, key)?;
            let merged = merge_items(original, patch.clone(), item, key)?;
            (merged, patch)
        }
    };
    Ok(order::arrange(merged, &named, &before, identity))
}

/// The scalars of both, each once.
fn union(mut original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let mut all = Vec::with_capacity(original.len() + patch.len());
    original.extend_from_slice(patch);
    for item in original {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    all
}

/// Does what `$patch` in items says; gives what is left of the list and of the patch.
fn obey_item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in patch {
        let Value::Object(mut fields) = item else {
            return malformed(format!("an item of a list merged by {key} is no object"));
        };
        match take_directive(&mut fields)? {
            None | Some(Directive::Merge) => plain.push(Value::Object(fields)),
            Some(Directive::Replace) => replace = true,
            Some(Directive::Delete) => {
                let Some(gone) = fields.get(key) else {
                    return malformed(format!(
                        "delete patch type with no merge key defined: {key} is missing"
                    ));
                };
                original.retain(|item| item.get(key) != Some(gone));
            }
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    Ok((original, plain))
}

fn merge_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    node: Option<Node<'_>>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    for mut item in patch {
        let Some(identity) = item.get(key) else {
            return malformed(format!(
                "map: {item} does not contain declared merge key: {key}"
            ));
        };
        let place = original
            .iter_mut()
            .find(|old| old.get(key) == Some(identity));
        match (place, item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                *old = merge_object(std::mem::take(old), new, node)?;
            }
            (_, new) => {
                item = new;
                drop_directives(&mut item);
                original.push(item);
            }
        }
    }
    Ok(original)
}

fn without_directives(items: Vec<Value>) -> Vec<Value> {
    let mut list = Value::Array(items);
    drop_directives(&mut list);
    match list {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Cleans a value that comes from the patch alone: it has no directives and no nulls, and items
/// that were only there to delete or replace are gone.
fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !name.starts_with('$') && !value.is_null());
            fields.values_mut().for_each(drop_directives);
        }
        Value::Array(items) => {
            items.retain(|item| {
                let directive = item.get(DIRECTIVE).and_then(Value::as_str);
                !matches!(directive, Some("delete" | "replace"))
            });
            items.iter_mut().for_each(drop_directives);
        }
        _ => {}
    }
}
