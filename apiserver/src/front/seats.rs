//! How many seats a request takes, and whether it gets them.

use std::sync::Arc;

use super::Front;
use crate::auth::action::{Access, Action};
use crate::auth::user::User;
use crate::flow::{Admitted, Route, width};
use crate::rest::query::Query;
use crate::rest::target::Verb;
use crate::status::Result;
use crate::storage;

// === impl Front ===

impl Front {
    /// Lets a request in, or makes it wait, or turns it away. Streams and proxied requests may
    /// last for ever: they are not counted.
    pub(super) async fn admit(
        &self,
        route: Option<Arc<Route>>,
        user: &User,
        action: &Action<'_>,
        (verb, query): (Verb, &Query),
    ) -> Result<Option<Admitted>> {
        let Some(route) = route else {
            return Ok(None);
        };
        let seats = match action {
            Action::Path { .. } => 1,
            Action::Resource(access) if is_endless(access.subresource) => return Ok(None),
            Action::Resource(access) => {
                let initial = verb == Verb::Watch
                    && (query.flag("sendInitialEvents")?
                        || query
                            .get("resourceVersion")
                            .trim_start_matches('0')
                            .is_empty());
                let many = matches!(verb, Verb::List | Verb::DeleteCollection) || initial;
                let objects = if many { self.count(access) } else { 0 };
                let limit = query.number("limit")?.unwrap_or(0);
                let limit = usize::try_from(limit).unwrap_or(0);
                width::width(verb, objects, limit, initial, route.nominal())
            }
        };
        let admitted = self.api.flow.admit(route, user, action, seats);
        admitted.await.map(Some)
    }

    /// How many objects of a resource there are in all.
    fn count(&self, access: &Access<'_>) -> usize {
        let registry = &self.api.registry;
        let resource = registry.find(access.group, access.version, access.resource);
        resource.map_or(0, |resource| {
            self.api
                .store
                .snapshot(&storage::range(&resource.kind))
                .len()
        })
    }
}

/// Whether requests on a subresource are streams, or may be.
fn is_endless(subresource: &str) -> bool {
    matches!(
        subresource,
        "attach" | "exec" | "log" | "portforward" | "proxy"
    )
}
