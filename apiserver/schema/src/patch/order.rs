//! The order of a merged list: what the patch names stands in the patch's order, the rest in the
//! order that it had, and the two are interleaved as the list was before.

use serde_json::Value;

use super::{PatchError, malformed};

/// By what the items of two lists are the same.
#[derive(Clone, Copy)]
pub(super) enum Identity<'a> {
    /// The item itself.
    Whole,
    /// This field of it.
    Key(&'a str),
}

impl<'a> Identity<'a> {
    pub(super) fn of(merge_key: Option<&'a str>) -> Self {
        merge_key.map_or(Self::Whole, Self::Key)
    }

    fn same(self, a: &Value, b: &Value) -> bool {
        match self {
            Self::Whole => a == b,
            Self::Key(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        }
    }

    fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

/// Orders `merged`: the items that `wanted` names as it has them, the others as `before` had
/// them, each of these before the first wanted item that followed it in `before`.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| identity.position(list, item).unwrap_or(usize::MAX);
    let (mut named, mut rest): (Vec<_>, Vec<_>) = merged
        .into_iter()
        .partition(|item| identity.position(wanted, item).is_some());
    named.sort_by_cached_key(|item| place(wanted, item));
    rest.sort_by_cached_key(|item| place(before, item));

    let mut out = Vec::with_capacity(named.len() + rest.len());
    let mut rest = rest.into_iter().peekable();
    for item in named {
        let at = identity.position(before, &item);
        while let (Some(next), Some(at)) = (rest.peek(), at) {
            if place(before, next) >= at {
                break;
            }
            out.extend(rest.next());
        }
        out.push(item);
    }
    out.extend(rest);
    out
}

/// Refuses a patch whose items are not all in `wanted`, in the same order.
pub(super) fn must_follow(
    patch: &[Value],
    wanted: &[Value],
    identity: Identity<'_>,
    directive: &str,
) -> Result<(), PatchError> {
    let deleted = |item: &Value| item.get("$patch").is_some();
    let mut rest = wanted.iter();
    for item in patch.iter().filter(|item| !deleted(item)) {
        if !rest.any(|other| identity.same(other, item)) {
            let list = Value::Array(patch.to_vec());
            let wanted = Value::Array(wanted.to_vec());
            return malformed(format!(
                "The order in patch list:\n{list}\n doesn't match {directive} list:\n{wanted}\n"
            ));
        }
    }
    Ok(())
}
