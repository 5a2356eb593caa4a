//! Priority and fairness: which requests are worked on, and which wait, when there are too many.
//!
//! A request belongs to the first FlowSchema that matches it ([`schema`]), and so to a flow at a
//! priority level. A level has seats by its [`shares`], a request takes some by its [`width`],
//! and where there are none free it waits in the level's [`queues`]; [`level`] is that at work.
//! [`bootstrap`] are the objects that every cluster begins with, [`maintain`] keeps them so.
//!
//! <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>

mod bootstrap;
mod level;
pub mod maintain;
mod meters;
mod queues;
mod schema;
mod shares;
#[cfg(test)]
mod tests;
pub mod width;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use peapod_store::{Entry, Key, Resource as Range};
use serde_json::Value;

use crate::auth::action::Action;
use crate::auth::user::User;
use crate::registry::value;
use crate::status::Status;
use crate::storage::{Followed, Meta, Store, View};
use level::{Ledger, Level, Seats, Setup};
use meters::{FlowMeters, Meters};
use queues::Settings;
use schema::Schema;

/// The group of the kinds.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The plural of FlowSchemas.
const SCHEMAS: &str = "flowschemas";
/// The plural of priority levels.
const LEVELS: &str = "prioritylevelconfigurations";

/// Flow control as the store configures it.
pub struct Flow {
    plan: Followed<Plan>,
    patience: Duration,
}

/// Where a request goes: a schema and its level.
pub struct Route {
    schema: Schema,
    level: Arc<Level>,
    ledger: Arc<Ledger>,
    meters: FlowMeters,
    /// UIDs of both, as headers; none while they are not stored.
    pub uids: Option<(HeaderValue, HeaderValue)>,
}

/// A request in work.
pub struct Admitted {
    route: Arc<Route>,
    width: u32,
    since: Instant,
    _seats: Seats,
}

/// All routes, made anew whenever an object changes.
struct Plan {
    total: u32,
    meters: Meters,
    schemas: BTreeMap<String, Value>,
    levels: BTreeMap<String, Value>,
    at_work: BTreeMap<String, Arc<Level>>,
    ledger: Arc<Ledger>,
    /// In the order in which they are asked; the last takes everything.
    routes: Vec<Arc<Route>>,
}

// === impl Flow ===

impl Flow {
    /// Flow control over the objects in a store, for `total` seats. A request waits for at most
    /// a quarter of the time that it may take.
    pub fn new(
        store: Store,
        total: usize,
        request_timeout: Duration,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Self {
        let ranges = [SCHEMAS, LEVELS]
            .iter()
            .filter_map(|kind| Range::new(GROUP, kind).ok());
        let plan = Plan::new(
            u32::try_from(total).unwrap_or(u32::MAX),
            Meters::new(registry),
        );
        Self {
            plan: Followed::new(store, ranges.collect(), plan),
            patience: request_timeout / 4,
        }
    }

    /// Where a request goes. Who is in no group that a schema knows goes where everybody may.
    pub fn route(&self, user: &User, action: &Action<'_>) -> Option<Arc<Route>> {
        let plan = self.plan.read();
        let mut routes = plan.routes.iter();
        let found = routes.find(|route| route.schema.matches(user, action));
        found.or(plan.routes.last()).cloned()
    }

    /// Lets a request of `width` seats in, perhaps after a while, or turns it away with 429.
    pub async fn admit(
        &self,
        route: Arc<Route>,
        user: &User,
        action: &Action<'_>,
        width: u32,
    ) -> Result<Admitted, Status> {
        let flow = (route.schema.flow(user, action), width);
        let came = Instant::now();
        let meters = &route.meters;
        meters.inqueue.inc();
        let queued = Queued(&meters.inqueue);
        let entered = route.level.enter(&route.ledger, flow, self.patience).await;
        drop(queued);
        let waited = came.elapsed().as_secs_f64();
        match entered {
            Ok(seats) => {
                meters.waited.observe(waited);
                meters.dispatched.inc();
                meters.executing.inc();
                meters.seats.inc_by(width.into());
                Ok(Admitted {
                    route,
                    width,
                    since: Instant::now(),
                    _seats: seats,
                })
            }
            Err(refused) => {
                meters.waited_in_vain.observe(waited);
                meters.refuse(refused);
                let why = "Too many requests, please try again later.";
                Err(Status::too_many_requests(why, 1))
            }
        }
    }
}

/// Counts one who waits, also when the client goes away meanwhile.
struct Queued<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let meters = &self.route.meters;
        meters.execution.observe(self.since.elapsed().as_secs_f64());
        meters.executing.dec();
        meters.seats.dec_by(self.width.into());
    }
}

// === impl Route ===

impl Route {
    /// The seats of its level.
    pub fn nominal(&self) -> u32 {
        self.level.nominal()
    }
}

// === impl Plan ===

impl Plan {
    fn new(total: u32, meters: Meters) -> Self {
        let mut plan = Self {
            total,
            meters,
            schemas: BTreeMap::new(),
            levels: BTreeMap::new(),
            at_work: BTreeMap::new(),
            ledger: Arc::default(),
            routes: Vec::new(),
        };
        plan.make();
        plan
    }

    /// Makes the routes from the objects; the mandatory ones are there in any case.
    fn make(&mut self) {
        let mandatory = |kind: &str| {
            let all = bootstrap::objects()
                .iter()
                .filter(move |one| one["kind"] == kind);
            let all = all.map(|one| (value::text(one, "metadata.name").to_owned(), one));
            let found = all.filter(|(name, _)| bootstrap::is_mandatory(name));
            found.collect::<BTreeMap<String, &Value>>()
        };
        let mut levels = mandatory("PriorityLevelConfiguration");
        levels.extend(
            self.levels
                .iter()
                .map(|(name, level)| (name.clone(), level)),
        );
        let specs = levels.values().map(|level| &level["spec"]);
        let bounds = shares::bounds(specs, self.total);
        let mut at_work = BTreeMap::new();
        for ((name, object), bounds) in levels.iter().zip(bounds) {
            let setup = Setup {
                exempt: value::text(object, "spec.type") == "Exempt",
                bounds,
                settings: settings(object),
            };
            let level = match self.at_work.get(name) {
                Some(level) => {
                    level.set(setup);
                    level.clone()
                }
                None => Arc::new(Level::new(name, setup, self.meters.level(name))),
            };
            at_work.insert(name.clone(), level);
        }
        let mut schemas = mandatory("FlowSchema");
        schemas.extend(self.schemas.iter().map(|(name, one)| (name.clone(), one)));
        let mut schemas: Vec<Schema> = schemas.values().map(|one| Schema::of(one)).collect();
        schema::sort(&mut schemas);
        let uid = |object: Option<&&Value>| {
            let uid = object.map(|object| value::text(object, "metadata.uid"));
            HeaderValue::from_str(uid.filter(|uid| !uid.is_empty())?).ok()
        };
        let ledger = &self.ledger;
        let meters = &self.meters;
        // A schema whose level is missing is as if it were not there.
        let routes = schemas.into_iter().filter_map(|schema| {
            let level = at_work.get(&schema.level)?.clone();
            let own = HeaderValue::from_str(&schema.uid).ok();
            let own = own.filter(|own| !own.is_empty());
            let uids = own.zip(uid(levels.get(&schema.level)));
            Some(Arc::new(Route {
                meters: meters.flow(&schema.name, &level.name),
                schema,
                level,
                ledger: ledger.clone(),
                uids,
            }))
        });
        self.routes = routes.collect();
        let limited = at_work
            .values()
            .filter(|level| level.name != bootstrap::EXEMPT);
        self.ledger.set(limited.cloned().collect());
        self.at_work = at_work;
    }

    fn objects(&mut self, key: &Key) -> &mut BTreeMap<String, Value> {
        match key.resource().trim_end_matches('/').ends_with(SCHEMAS) {
            true => &mut self.schemas,
            false => &mut self.levels,
        }
    }
}

impl View for Plan {
    fn clear(&mut self) {
        self.schemas.clear();
        self.levels.clear();
        self.make();
    }

    fn put(&mut self, entry: &Entry<Meta>) {
        let Ok(object) = serde_json::from_slice::<Value>(&entry.value) else {
            return;
        };
        let name = entry.key.name().to_owned();
        // A status says nothing of how requests are treated.
        let known = |one: &Value| {
            one["spec"] == object["spec"] && one["metadata"]["uid"] == object["metadata"]["uid"]
        };
        let objects = self.objects(&entry.key);
        if objects.get(&name).is_some_and(known) {
            return;
        }
        objects.insert(name, object);
        self.make();
    }

    fn remove(&mut self, key: &Key) {
        if self.objects(key).remove(key.name()).is_some() {
            self.make();
        }
    }
}

fn settings(level: &Value) -> Settings {
    let queuing = value::at(level, "spec.limited.limitResponse.queuing");
    let number = |field| {
        let number = queuing.and_then(|queuing| value::integer(queuing, field));
        number
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(0)
    };
    Settings {
        queues: number("queues"),
        hand: number("handSize"),
        length: number("queueLengthLimit"),
    }
}
