//! The query of a request: its pairs, and the options that the verbs read from them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::status::{Result, Status};

/// The pairs of a query, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// Options of reads: list and watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`
    pub label_selector: String,
    /// `fieldSelector`
    pub field_selector: String,
    /// `resourceVersion`; empty when it is not set.
    pub resource_version: String,
    /// `resourceVersionMatch`
    pub resource_version_match: String,
    /// `limit`: most items of a page; 0 for all.
    pub limit: usize,
    /// `continue`
    pub continue_token: String,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`
    pub timeout_seconds: Option<u64>,
}

/// Options of writes: create, update, patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `dryRun=All`: everything but the commit.
    pub dry_run: bool,
    /// `fieldManager`
    pub field_manager: String,
    /// `fieldValidation`: `Strict`, `Warn` or `Ignore`; empty when it is not set.
    pub field_validation: String,
    /// `force`, of an apply.
    pub force: bool,
}

// === impl Query ===

impl Query {
    /// Reads `a=b&c=d`.
    pub fn of(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or_default().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a key; empty when there is none.
    pub fn get(&self, key: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }

    /// Whether a flag is set: `1`, `true`, or the key without a value.
    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.maybe_flag(key)?.unwrap_or(false))
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    fn maybe_flag(&self, key: &str) -> Result<Option<bool>> {
        let Some((_, value)) = self.0.iter().find(|(name, _)| name == key) else {
            return Ok(None);
        };
        // The server's query conversion takes everything but these for true.
        Ok(Some(!matches!(
            value.to_ascii_lowercase().as_str(),
            "false" | "0"
        )))
    }

    /// A number; `None` when it is not set.
    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// The options of a list or watch.
    pub fn list_options(&self) -> Result<ListOptions> {
        let limit = self.number("limit")?.unwrap_or(0);
        let timeout = self.number("timeoutSeconds")?;
        Ok(ListOptions {
            label_selector: self.get("labelSelector").to_owned(),
            field_selector: self.get("fieldSelector").to_owned(),
            resource_version: self.get("resourceVersion").to_owned(),
            resource_version_match: self.get("resourceVersionMatch").to_owned(),
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: self.get("continue").to_owned(),
            bookmarks: self.flag("allowWatchBookmarks")?,
            send_initial_events: self.maybe_flag("sendInitialEvents")?,
            timeout_seconds: timeout.and_then(|seconds| u64::try_from(seconds).ok()),
        })
    }
}

fn decoded(text: &str) -> String {
    let spaced: Cow<'_, str> = match text.contains('+') {
        true => text.replace('+', " ").into(),
        false => text.into(),
    };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_options() {
        let query = Query::of(Some(
            "labelSelector=a%3Db%2Cc+in+(d)&limit=5&watch=1&sendInitialEvents=true&x",
        ));
        let options = query.list_options().unwrap();
        assert_eq!(options.label_selector, "a=b,c in (d)");
        assert_eq!(options.limit, 5);
        assert_eq!(options.send_initial_events, Some(true));
        assert!(query.flag("watch").unwrap() && query.flag("x").unwrap());
        assert!(!query.flag("y").unwrap());
    }

    #[test]
    fn refuses_bad_options() {
        for bad in ["limit=x", "timeoutSeconds=1s"] {
            assert!(Query::of(Some(bad)).list_options().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(raw in "\\PC{0,40}") {
            let query = Query::of(Some(&raw));
            let _ = query.list_options();
        }
    }
}
