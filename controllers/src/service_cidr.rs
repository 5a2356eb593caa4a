//! ServiceCIDRs beside the servers' own: they are ready when they are there, and one that is
//! deleted stays while Services have addresses that no other has. Upstream calls the loop
//! `service-cidr-controller`.
//!
//! The core is [`plan`]. From which ranges addresses are given the API server decides: from none of
//! one that is going.
//!
//! <https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/>

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::ListParams;
use peapod_api::labels::{DEFAULT_SERVICE_CIDR, FINALIZER_SERVICE_CIDR};
use serde_json::json;

use crate::common::Key;
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

/// How long one that was deleted is held at least, so that every server knows that it gives no
/// more addresses.
const GRACE: SignedDuration = SignedDuration::from_secs(10);

struct ServiceCidrs(Context);

/// Wires the loop. Any change of one may free another, and so may a Service that is gone.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let all = ctx.informers.service_cidrs.clone();
    let going = ctx.informers.service_cidrs.clone();
    Loop::new(ctx, "service-cidr-controller")
        .on(&ctx.informers.service_cidrs, move |_| keys(all.all()))
        .on(&ctx.informers.services, move |change| {
            let changed = change.new.is_none() || change.old.is_some();
            let going = going.all().into_iter().filter(|range| is_going(range));
            let keys = keys(going.collect());
            if changed { keys } else { Vec::new() }
        })
        .workers(1)
        .run(tasks, ServiceCidrs(ctx.clone()));
}

fn keys(ranges: Vec<Arc<ServiceCIDR>>) -> Vec<Key> {
    ranges.iter().map(|range| Key::of(&**range)).collect()
}

/// What is to be done about a ServiceCIDR.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It gets its finalizer.
    Hold,
    /// It gets this condition.
    Tell(Condition),
    /// It is looked at again.
    Wait(Duration),
    /// Its finalizer goes.
    LetGo,
    /// Nothing.
    Keep,
}

/// Decides about `range`, beside which there are `others`; `used` are the addresses of Services.
fn plan(range: &ServiceCIDR, others: &[IpNet], used: &[IpAddr], now: Timestamp) -> Plan {
    let is_held = has_finalizer(range);
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        if !is_held {
            return Plan::Hold;
        }
        return tell(range, true, "", "Kubernetes Service CIDR is ready", now);
    };
    if !is_held {
        return Plan::Keep;
    }
    let own = nets(range);
    let only_here = |address: &&IpAddr| {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(*address));
        within(&own) && !within(others)
    };
    if used.iter().any(|address| only_here(&address)) {
        let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them \
                   or create a new ServiceCIDR";
        return tell(range, false, "Terminating", why, now);
    }
    let left = GRACE - now.duration_since(deleted.0);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => Plan::Wait(left),
        _ => Plan::LetGo,
    }
}

/// The condition, unless it stands there. Of the servers' own ranges they tell themselves.
fn tell(range: &ServiceCIDR, ready: bool, reason: &str, message: &str, now: Timestamp) -> Plan {
    let status = if ready { "True" } else { "False" };
    let known = range.status.iter().flat_map(|status| &status.conditions);
    let known = known.flatten().find(|one| one.type_ == "Ready");
    let same = known.is_some_and(|known| known.status == status && known.reason == reason);
    let own = range.metadata.name.as_deref() == Some(DEFAULT_SERVICE_CIDR);
    if same || (own && ready) {
        return Plan::Keep;
    }
    Plan::Tell(Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    })
}

fn is_going(range: &ServiceCIDR) -> bool {
    range.metadata.deletion_timestamp.is_some()
}

fn has_finalizer(range: &ServiceCIDR) -> bool {
    let mut all = range.metadata.finalizers.iter().flatten();
    all.any(|name| name == FINALIZER_SERVICE_CIDR)
}

/// The ranges of a ServiceCIDR.
fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = range.spec.iter().flat_map(|spec| &spec.cidrs).flatten();
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

/// The addresses of Services.
fn addresses<'a>(services: impl Iterator<Item = &'a Service>) -> Vec<IpAddr> {
    let specs = services.filter_map(|service| service.spec.as_ref());
    let texts = specs.flat_map(|spec| spec.cluster_ips.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

impl Controller for ServiceCidrs {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let ranges = &self.0.informers.service_cidrs;
        let Some(range) = ranges.get(key) else {
            return Ok(Outcome::Done);
        };
        let others = ranges.all().into_iter();
        let others = others.filter(|other| Key::of(&**other) != *key && !is_going(other));
        let others: Vec<IpNet> = others.flat_map(|other| nets(&other)).collect();
        let services = self.0.informers.services.all();
        let used = addresses(services.iter().map(|service| &**service));
        let mut plan = plan(&range, &others, &used, Timestamp::now());
        if plan == Plan::LetGo {
            // The cache may lack a Service that was just made.
            let used = self.addresses_live().await?;
            plan = self::plan(&range, &others, &used, Timestamp::now());
        }
        self.carry_out(&range, plan).await
    }
}

impl ServiceCidrs {
    async fn addresses_live(&self) -> Result<Vec<IpAddr>> {
        let api: Api<Service> = Api::all(self.0.client.clone());
        let live = api.list(&ListParams::default()).await;
        let live = live.doing(|| "list services".to_owned())?;
        Ok(addresses(live.iter()))
    }

    async fn carry_out(&self, range: &ServiceCIDR, plan: Plan) -> Result<Outcome> {
        let mut finalizers = range.metadata.finalizers.clone().unwrap_or_default();
        match plan {
            Plan::Keep => return Ok(Outcome::Done),
            Plan::Wait(left) => return Ok(Outcome::After(left)),
            Plan::Tell(condition) => {
                let status = ServiceCIDRStatus {
                    conditions: Some(vec![condition]),
                };
                write::status(&self.0, range, range.status.as_ref(), &status).await?;
                return Ok(Outcome::Done);
            }
            Plan::Hold => finalizers.push(FINALIZER_SERVICE_CIDR.to_owned()),
            Plan::LetGo => finalizers.retain(|name| name != FINALIZER_SERVICE_CIDR),
        }
        let patch = json!({"metadata": {
            "uid": range.metadata.uid,
            "resourceVersion": range.metadata.resource_version,
            "finalizers": finalizers,
        }});
        match write::patch::<ServiceCIDR>(&self.0, &Key::of(range), patch).await {
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            written => written.map(|_| Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn range(meta: Value, ready: Option<&str>) -> ServiceCIDR {
        let conditions = ready.map(|status| {
            json!([{"type": "Ready", "status": status, "reason": "", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        });
        let object = json!({
            "metadata": meta,
            "spec": {"cidrs": ["192.0.2.0/28", "2001:db8::/112"]},
            "status": {"conditions": conditions},
        });
        serde_json::from_value(object).unwrap()
    }

    fn told(range: &ServiceCIDR, others: &[&str], used: &[&str]) -> String {
        let others: Vec<IpNet> = others.iter().map(|net| net.parse().unwrap()).collect();
        let used: Vec<IpAddr> = used.iter().map(|ip| ip.parse().unwrap()).collect();
        let now = "2026-01-01T00:00:14Z".parse().unwrap();
        match plan(range, &others, &used, now) {
            Plan::Tell(condition) => format!("{} {}", condition.status, condition.reason),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn one_that_is_there_is_held_and_ready() {
        assert_eq!(
            told(&range(json!({"name": "more"}), None), &[], &[]),
            "Hold"
        );
        let held = |name: &str| json!({"name": name, "finalizers": [FINALIZER_SERVICE_CIDR]});
        assert_eq!(told(&range(held("more"), None), &[], &[]), "True ");
        assert_eq!(told(&range(held("more"), Some("True")), &[], &[]), "Keep");
        assert_eq!(told(&range(held("kubernetes"), None), &[], &[]), "Keep");
    }

    #[test]
    fn one_that_is_going_waits_for_its_addresses() {
        let going = |at: &str| {
            let meta = json!({"name": "more", "finalizers": [FINALIZER_SERVICE_CIDR],
                              "deletionTimestamp": format!("2026-01-01T00:00:{at}Z")});
            range(meta, Some("True"))
        };
        for (at, others, used, expected) in [
            ("00", &[][..], &["10.96.0.1"][..], "LetGo"),
            ("10", &[], &[], "Wait(6s)"),
            ("00", &[], &["192.0.2.3"], "False Terminating"),
            ("00", &[], &["2001:db8::1"], "False Terminating"),
            ("00", &["192.0.2.0/24"], &["192.0.2.3"], "LetGo"),
        ] {
            assert_eq!(
                told(&going(at), others, used),
                expected,
                "{others:?} {used:?}"
            );
        }
        let free = json!({"name": "more", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(told(&range(free, None), &[], &["192.0.2.3"]), "Keep");
    }
}
