//! Which drivers there are, which of them these controllers serve, and connections to them.
//!
//! A driver is registered on the nodes whose CSINode lists it. It is asked on one of them: on the
//! one that the question is about, if the driver is there, so that drivers of node-local storage
//! need no Controller elsewhere; else on a node that is ready.
//!
//! A job is left to others when the CSIDriver's annotation [`EXTERNAL`] says so, or when a side
//! car of upstream's holds the leader's Lease for it. Side cars that run without election and
//! without the annotation do no harm: volumes, snapshots and attachments have the same names and
//! finalizers here as there, and CSI's calls are idempotent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSINodeDriver};
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;
use peapod_api::conditions;
use peapod_csi::Driver;
use peapod_csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, NodeGetCapabilitiesRequest,
};

use super::abilities::Abilities;
use crate::common::Key;
use crate::shell::context::Informers;
use crate::shell::error::Doing;
use crate::shell::{Context, Error, Result};

/// Annotation of a CSIDriver: the jobs, separated by commas, that side cars do for it:
/// `provisioner`, `attacher`, `resizer`, `snapshotter`, or `all`.
pub const EXTERNAL: &str = "csi.peapod.dev/external";
/// How long a connection's capabilities are believed.
const BELIEVED: Duration = Duration::from_secs(300);
/// How long it is believed whether a side car leads: as long as its Lease runs without renewal.
const LEASED: Duration = Duration::from_secs(15);
/// Nodes tried at a time.
const TRIED: usize = 3;

/// What is done for a driver, by the names of upstream's side cars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Volumes are made and deleted, and capacities asked for.
    Provisioner,
    /// Volumes are attached to nodes.
    Attacher,
    /// Volumes grow, and change their attributes.
    Resizer,
    /// Snapshots are taken and deleted.
    Snapshotter,
}

/// A driver that was reached.
#[derive(Debug)]
pub struct Reached {
    /// How to ask it.
    pub driver: Driver,
    /// What it can do.
    pub abilities: Abilities,
    at: Instant,
}

/// The drivers. Cheap to clone.
#[derive(Clone)]
pub struct Drivers(Arc<Inner>);

struct Inner {
    ctx: Context,
    /// By driver and node.
    reached: Mutex<HashMap<(String, String), Arc<Reached>>>,
    leased: Mutex<HashMap<(String, Job), (Instant, bool)>>,
}

// === impl Job ===

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::Attacher => "attacher",
            Self::Resizer => "resizer",
            Self::Snapshotter => "snapshotter",
        }
    }

    /// The Lease that the job's side car holds while it leads.
    fn lease(self, driver: &str) -> String {
        let name = sanitized(driver);
        match self {
            Self::Provisioner => name,
            Self::Attacher => format!("external-attacher-leader-{name}"),
            Self::Resizer => format!("external-resizer-{name}"),
            Self::Snapshotter => format!("external-snapshotter-leader-{name}"),
        }
    }
}

/// A driver's name as upstream's side cars put it into names of other objects.
pub fn sanitized(driver: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut name: String = driver.chars().map(plain).collect();
    if name.ends_with('-') {
        name.push('X');
    }
    name
}

/// Whether an operator leaves a job to a side car.
fn is_external(driver: Option<&CSIDriver>, job: Job) -> bool {
    let annotations = driver.and_then(|driver| driver.metadata.annotations.as_ref());
    let jobs = annotations.and_then(|all| all.get(EXTERNAL));
    jobs.is_some_and(|jobs| {
        let mut jobs = jobs.split(',').map(str::trim);
        jobs.any(|one| one == job.name() || one == "all")
    })
}

/// Whether somebody leads by this Lease.
fn is_held(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else {
        return false;
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    let renewed = spec.renew_time.as_ref().map(|time| time.0.as_second());
    !holder.is_empty() && renewed.is_some_and(|renewed| renewed + seconds >= now.as_second())
}

/// What a node's CSINode says of a driver.
pub fn on_node<'a>(node: &'a CSINode, driver: &str) -> Option<&'a CSINodeDriver> {
    node.spec.drivers.iter().find(|one| one.name == driver)
}

/// The nodes on which a driver may be asked, best first.
fn candidates(informers: &Informers, driver: &str, near: Option<&str>) -> Vec<String> {
    let nodes = informers.csi_nodes.all();
    let with = nodes.iter().filter(|node| on_node(node, driver).is_some());
    let mut names: Vec<String> = with.filter_map(|node| node.metadata.name.clone()).collect();
    names.sort_by_cached_key(|name| {
        let node = informers.nodes.get(&Key::cluster(name));
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let ready = conditions::is_true(conditions.unwrap_or_default(), "Ready");
        (near != Some(name), !ready, name.clone())
    });
    names.truncate(TRIED);
    names
}

// === impl Drivers ===

impl Drivers {
    /// None known yet.
    pub fn new(ctx: &Context) -> Self {
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            reached: Mutex::default(),
            leased: Mutex::default(),
        }))
    }

    /// The driver of a name, if these controllers do the job for it: registered somewhere, with a
    /// Controller service, and nobody else's. Near a node, if one is given.
    pub async fn reach(
        &self,
        driver: &str,
        job: Job,
        near: Option<&str>,
    ) -> Result<Option<Arc<Reached>>> {
        let informers = &self.0.ctx.informers;
        let candidates = candidates(informers, driver, near);
        if candidates.is_empty() {
            return Ok(None);
        }
        let object = informers.csi_drivers.get(&Key::cluster(driver));
        if is_external(object.as_deref(), job) || self.is_leased(driver, job).await? {
            return Ok(None);
        }
        let mut fault = String::new();
        for node in &candidates {
            match self.on(driver, node).await {
                Ok(reached) => return Ok(Some(reached).filter(|one| one.abilities.controller)),
                Err(error) => fault = error,
            }
        }
        Err(Error::Driver(fault))
    }

    async fn on(&self, driver: &str, node: &str) -> Result<Arc<Reached>, String> {
        let key = (driver.to_owned(), node.to_owned());
        let known = self.0.reached.lock().get(&key).cloned();
        let connection = match known {
            Some(known) if known.at.elapsed() < BELIEVED => return Ok(known),
            // Its channel connects itself again.
            Some(old) => old.driver.clone(),
            None => {
                let ctx = &self.0.ctx;
                let dialer = &ctx.config.csi;
                dialer.dial(&ctx.client, node, driver).await?
            }
        };
        let abilities = abilities(&connection).await.map_err(|e| e.to_string())?;
        let reached = Arc::new(Reached {
            driver: connection,
            abilities,
            at: Instant::now(),
        });
        let mut all = self.0.reached.lock();
        // Nodes come and go; what is old is made anew when it is asked for.
        all.retain(|_, one| one.at.elapsed() < BELIEVED);
        all.insert(key, reached.clone());
        Ok(reached)
    }

    /// Whether a side car leads for the job.
    async fn is_leased(&self, driver: &str, job: Job) -> Result<bool> {
        let key = (driver.to_owned(), job);
        if let Some((at, held)) = self.0.leased.lock().get(&key)
            && at.elapsed() < LEASED
        {
            return Ok(*held);
        }
        let name = job.lease(driver);
        let leases: Api<Lease> = Api::all(self.0.ctx.client.clone());
        let asked = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = leases.list(&asked).await;
        let found = found.doing(|| format!("list Leases of name {name}"))?;
        let held = found.iter().any(|lease| is_held(lease, Timestamp::now()));
        let mut leased = self.0.leased.lock();
        leased.retain(|_, (at, _)| at.elapsed() < LEASED);
        leased.insert(key, (Instant::now(), held));
        Ok(held)
    }
}

async fn abilities(driver: &Driver) -> Result<Abilities, peapod_csi::Error> {
    let plugin = driver.call(GetPluginCapabilitiesRequest {}).await?;
    let abilities = Abilities::of_plugin(&plugin);
    if !abilities.controller {
        return Ok(abilities);
    }
    let control = driver.call(ControllerGetCapabilitiesRequest {}).await?;
    let abilities = abilities.and(&control);
    // A plugin of the Controller alone has no Node service.
    match driver.call(NodeGetCapabilitiesRequest {}).await {
        Ok(node) => Ok(abilities.and_node(&node)),
        Err(error) if error.code == tonic::Code::Unimplemented => Ok(abilities),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_side_car_that_leads_or_is_announced_keeps_its_job() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| -> Lease {
            let spec =
                json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed});
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        assert!(is_held(&lease("pod-1", "2026-01-01T00:00:50.000000Z"), now));
        assert!(!is_held(
            &lease("pod-1", "2026-01-01T00:00:40.000000Z"),
            now
        ));
        assert!(!is_held(&lease("", "2026-01-01T00:00:59.000000Z"), now));
        let driver = |jobs: &str| -> CSIDriver {
            let meta = json!({"annotations": {EXTERNAL: jobs}});
            serde_json::from_value(json!({"metadata": meta, "spec": {}})).unwrap()
        };
        let two = driver("attacher, resizer");
        assert!(is_external(Some(&two), Job::Attacher));
        assert!(!is_external(Some(&two), Job::Provisioner));
        assert!(is_external(Some(&driver("all")), Job::Snapshotter));
        assert!(!is_external(None, Job::Snapshotter));
        assert_eq!(
            Job::Attacher.lease("ebs.csi.aws.com"),
            "external-attacher-leader-ebs-csi-aws-com"
        );
        assert_eq!(sanitized("odd.name."), "odd-name-X");
    }
}
