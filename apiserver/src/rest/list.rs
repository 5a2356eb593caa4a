//! LIST: pages over a consistent snapshot, streamed from the stored bytes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use peapod_store::{AtError, Key, Revision, Scope};
use serde::{Deserialize, Serialize};

use super::call::{Call, Reply};
use super::listing::{Items, Listing};
use super::query::ListOptions;
use super::selection::Selection;
use super::{options, table};
use crate::api::Api;
use crate::status::{Result, Status};
use crate::storage::{self, Entry, Snapshot};

/// How long a read waits for a revision that has not been reached yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// How long after its first page a list goes on as it was then. Upstream compacts what is older
/// than this, and clients are made for it.
const CONSISTENT_SECONDS: i64 = 5 * 60;

/// Where a paged list goes on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The revision of the first page; -1 for the present one.
    rv: i64,
    /// `namespace/name` of the last object of the page before.
    start: String,
    /// When the first page was made, in seconds of the epoch.
    #[serde(default)]
    since: i64,
}

/// Where a list begins that goes on: behind what, and since when.
struct Resumed {
    after: Key,
    since: i64,
}

/// A page: the objects, and what its metadata says.
pub struct Page {
    /// The objects.
    pub entries: Vec<Entry>,
    /// The revision that they stand for.
    pub revision: Revision,
    next: Option<Continue>,
    remaining: Option<usize>,
}

impl Page {
    /// The same as if nothing followed it.
    pub fn whole(self) -> Self {
        Self {
            next: None,
            remaining: None,
            ..self
        }
    }
}

/// Answers a LIST.
pub async fn list(api: &Api, call: &Call) -> Result<Reply> {
    let options = call.query.list_options()?;
    let page = page(api, call, &options).await?;
    reply(api, call, page).await
}

/// The answer that shows a page.
pub async fn reply(api: &Api, call: &Call, page: Page) -> Result<Reply> {
    let next = page.next.as_ref().map(Continue::encode);
    let meta = table::list_meta(page.revision.0, &next.unwrap_or_default(), page.remaining);
    let listing = Listing::of(api, call, meta, Items::Stored(page.entries))?;
    listing.reply().await
}

/// The page that a request asks for.
pub async fn page(api: &Api, call: &Call, options: &ListOptions) -> Result<Page> {
    options::check_list(options)?;
    let selection = Selection::of(&call.resource, options, "")?;
    let (snapshot, resumed) = snapshot(api, call, options).await?;
    let since = resumed.as_ref().map(|resumed| resumed.since);
    let mut page = collect(
        &snapshot,
        &selection,
        call.target.namespace.as_str(),
        options.limit,
        resumed.map(|resumed| resumed.after),
    );
    if let Some(next) = &mut page.next {
        next.since = since.unwrap_or_else(|| api.now().as_second());
    }
    Ok(page)
}

/// Reads a resourceVersion; none and 0 are `None`.
pub fn revision(text: &str) -> Result<Option<Revision>> {
    match text {
        "" | "0" => Ok(None),
        text => match text.parse() {
            Ok(number) => Ok(Some(Revision(number))),
            Err(_) => Err(Status::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))),
        },
    }
}

/// Waits until a revision is applied here.
pub async fn reached(api: &Api, revision: Revision) -> Result<()> {
    let waited = tokio::time::timeout(FUTURE_WAIT, api.store.applied(revision)).await;
    match waited {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(fault)) => Err(Status::unavailable(fault.to_string())),
        Err(_) => Err(Status::too_large_resource_version(
            revision.0,
            api.store.revision().0,
        )),
    }
}

async fn snapshot(
    api: &Api,
    call: &Call,
    options: &ListOptions,
) -> Result<(Snapshot, Option<Resumed>)> {
    let range = storage::range(call.kind());
    if !options.continue_token.is_empty() {
        let (snapshot, resumed) = continued(api, call, options)?;
        return Ok((snapshot, Some(resumed)));
    }
    let asked = revision(&options.resource_version)?;
    match asked {
        Some(exact) if options.resource_version_match == "Exact" => {
            reached(api, exact).await?;
            let found = api.store.at(&range, exact).map_err(too_old)?;
            return Ok((found, None));
        }
        Some(least) => reached(api, least).await?,
        None if options.resource_version.is_empty() => {
            let fenced = api.store.fence().await;
            fenced.map_err(|fault| Status::unavailable(fault.to_string()))?;
        }
        None => {}
    }
    Ok((api.store.snapshot(&range), None))
}

fn too_old(fault: AtError) -> Status {
    match fault {
        AtError::Compacted(compacted) => Status::expired(format!(
            "The resourceVersion for the provided list is too old. ({compacted})"
        )),
        AtError::Future { asked, newest } => Status::too_large_resource_version(asked.0, newest.0),
    }
}

fn continued(api: &Api, call: &Call, options: &ListOptions) -> Result<(Snapshot, Resumed)> {
    if !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let token = Continue::parse(&options.continue_token)?;
    let range = storage::range(call.kind());
    let (namespace, name) = token.start.split_once('/').unwrap_or(("", &token.start));
    let after = range
        .key(namespace, name)
        .map_err(|_| Continue::invalid())?;
    let Ok(rv) = u64::try_from(token.rv) else {
        let since = api.now().as_second();
        return Ok((api.store.snapshot(&range), Resumed { after, since }));
    };
    let since = token.since;
    match api.store.at(&range, Revision(rv)) {
        Ok(snapshot) if token.is_fresh(api.now()) => Ok((snapshot, Resumed { after, since })),
        _ => Err(Status::inconsistent_continue(
            &Continue::new(-1, &after).encode(),
        )),
    }
}

fn collect(
    snapshot: &Snapshot,
    selection: &Selection,
    namespace: &str,
    limit: usize,
    after: Option<Key>,
) -> Page {
    let scope = match namespace {
        "" => Scope::All,
        namespace => Scope::Namespace(namespace),
    };
    let mut entries = Vec::new();
    let mut page = |source: &mut dyn Iterator<Item = &Entry>| {
        for entry in source {
            if !selection.matches(entry) {
                continue;
            }
            if limit > 0 && entries.len() == limit {
                return true;
            }
            entries.push(entry.clone());
        }
        false
    };
    let more = match &selection.index {
        Some((index, value)) => {
            let found = snapshot.select(*index, value);
            let inside = |e: &&Entry| namespace.is_empty() || e.key.namespace() == namespace;
            let follows = |e: &&Entry| after.as_ref().is_none_or(|after| e.key > *after);
            page(&mut found.filter(inside).filter(follows))
        }
        None => page(&mut snapshot.range(scope, after.as_ref())),
    };
    let last = entries.last().filter(|_| more).map(|entry| &entry.key);
    let rv = i64::try_from(snapshot.revision().0).unwrap_or(i64::MAX);
    let next = last.map(|key| Continue::new(rv, key));
    let remaining = last
        .filter(|_| selection.is_everything())
        .map(|last| snapshot.range(scope, Some(last)).count());
    Page {
        revision: snapshot.revision(),
        next,
        remaining,
        entries,
    }
}

// === impl Continue ===

impl Continue {
    fn new(rv: i64, last: &Key) -> Self {
        Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv,
            start: format!("{}/{}", last.namespace(), last.name()),
            since: 0,
        }
    }

    /// Whether the list may still go on as it was.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let age = now.as_second().saturating_sub(self.since);
        age <= CONSISTENT_SECONDS
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!(self).to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Self::invalid())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| Self::invalid())?;
        match token.v.as_str() {
            "meta.k8s.io/v1" => Ok(token),
            _ => Err(Self::invalid()),
        }
    }

    fn invalid() -> Status {
        Status::bad_request("continue key is not valid: illegal base64 data or an unknown version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_read_what_they_write() {
        let key = Key::new("/core/pods/default/a").unwrap();
        let token = Continue::new(7, &key);
        assert_eq!(Continue::parse(&token.encode()), Ok(token));
        let other = URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#);
        assert!(Continue::parse(&other).is_err());
    }

    #[test]
    fn lists_go_on_for_minutes() {
        let key = Key::new("/core/pods/default/a").unwrap();
        let token = Continue {
            since: 1_000,
            ..Continue::new(7, &key)
        };
        for (now, fresh) in [(1_000, true), (1_300, true), (1_301, false)] {
            let now = Timestamp::from_second(now).unwrap();
            assert_eq!(token.is_fresh(now), fresh, "{now}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-zA-Z0-9_-]{0,60}") {
            let _ = Continue::parse(&text);
            let _ = revision(&text);
        }
    }
}
