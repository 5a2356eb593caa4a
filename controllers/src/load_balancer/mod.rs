//! Load balancers: Services of type LoadBalancer get addresses of `LoadBalancerPool`s, and the nodes
//! answer and announce them.
//!
//! A `LoadBalancerAddress` is the claim: its name is the address, so that of two claims of one
//! address only one can be created, and who joins those that share it changes what it has read.
//! [`wish`] says what a Service asks for, [`choose`] which address it gets. A Service keeps its
//! addresses as long as they are what it asks for. Where there is no pool nothing is done: some
//! other controller may be at work.

pub mod choose;
mod status;
pub mod wish;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Preconditions};
use peapod_api::net::{
    LoadBalancerAddress, LoadBalancerAddressService, LoadBalancerAddressSpec, LoadBalancerPool,
    address_name,
};
use peapod_api::selector::Selector;
use serde_json::json;

use self::choose::{Choice, Pool, Taken, Wish};
use crate::common::Key;
use crate::shell::context::{Informers, term};
use crate::shell::error::Doing;
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "load-balancer";
const COMPONENT: &str = "load-balancer-controller";
/// Claims that may be lost to another claimant before giving up until the next event.
const CLAIMS_MAX: usize = 16;

struct Balancers(Context);

/// Wires the loops: one whose keys are Services, and that of the pools' status.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    status::start(ctx, tasks);
    let informers = &ctx.informers;
    let (addresses, pools, namespaces) = (informers.clone(), informers.clone(), informers.clone());
    Loop::new(ctx, NAME)
        .on_self(&informers.services)
        .on(&informers.load_balancer_addresses, move |change| {
            concerned(&addresses, change)
        })
        .on(&informers.load_balancer_pools, move |_| {
            let all = pools.services.all().into_iter();
            let ours = all.filter(|service| wish::is_ours(service));
            ours.map(|service| Key::of(&*service)).collect::<Vec<_>>()
        })
        .on(&informers.namespaces, move |change: &Change<Namespace>| {
            let labels = |namespace: &Arc<Namespace>| namespace.metadata.labels.clone();
            if change.old.as_ref().map(labels) == change.new.as_ref().map(labels) {
                return Vec::new();
            }
            let services = namespaces.services.in_namespace(&change.key.name);
            services.iter().map(|service| Key::of(&**service)).collect()
        })
        .workers(1)
        .run(tasks, Balancers(ctx.clone()));
}

/// The Services of an address; and when one lets go of it, those that wait for one.
fn concerned(informers: &Informers, change: &Change<LoadBalancerAddress>) -> Vec<Key> {
    let holders = |address: Option<&Arc<LoadBalancerAddress>>| {
        let services = address
            .into_iter()
            .flat_map(|address| &address.spec.services);
        let keys = services.map(|one| Key::new(&one.namespace, &one.name));
        keys.collect::<BTreeSet<Key>>()
    };
    let (old, new) = (holders(change.old.as_ref()), holders(change.new.as_ref()));
    let mut keys: Vec<Key> = old.union(&new).cloned().collect();
    if !old.is_subset(&new) {
        let all = informers.services.all().into_iter();
        let waiting = all.filter(|service| wish::is_ours(service) && is_short(service));
        keys.extend(waiting.map(|service| Key::of(&*service)));
    }
    keys
}

/// Whether a Service has fewer addresses than families.
fn is_short(service: &Service) -> bool {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    shown(service).len() < families.map_or(1, Vec::len)
}

/// The addresses that a Service's status shows.
fn shown(service: &Service) -> Vec<IpAddr> {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    let ips = ingress
        .into_iter()
        .flatten()
        .filter_map(|one| one.ip.as_ref());
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

fn ip_of(address: &LoadBalancerAddress) -> Option<IpAddr> {
    address.spec.address.parse().ok()
}

impl Controller for Balancers {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let claims = informers
            .load_balancer_addresses
            .indexed(&term::of_service(key));
        let service = informers.services.get(key);
        match service.filter(|service| wish::is_ours(service)) {
            Some(service) => self.furnish(key, &service, &claims).await?,
            None if claims.is_empty() => {}
            None => self.release_all(key, &claims).await?,
        }
        Ok(Outcome::Done)
    }
}

impl Balancers {
    /// Gives a Service the addresses that it lacks, and takes those that it does not want.
    async fn furnish(
        &self,
        key: &Key,
        service: &Service,
        claims: &[Arc<LoadBalancerAddress>],
    ) -> Result<()> {
        if claims.is_empty() && self.0.informers.load_balancer_pools.all().is_empty() {
            return Ok(());
        }
        let wish = match wish::of(service) {
            Ok(wish) => wish,
            Err(why) => {
                self.warn(service, why);
                return Ok(());
            }
        };
        let mut has: Vec<IpAddr> = Vec::new();
        let mut unwanted = Vec::new();
        for claim in claims {
            let kept = ip_of(claim).filter(|&ip| {
                wish.allows(ip, &claim.spec)
                    && choose::may_share(&wish, key, &claim.spec)
                    && !has.iter().any(|other| other.is_ipv4() == ip.is_ipv4())
            });
            match kept {
                Some(ip) => {
                    self.renew(key, &wish, claim).await?;
                    has.push(ip);
                }
                None => unwanted.push(claim),
            }
        }
        self.complete(key, service, &wish, &mut has).await?;
        let order = |ip: &IpAddr| wish.families.iter().position(|&v4| v4 == ip.is_ipv4());
        has.sort_by_key(order);
        // What the status does not show any more may be another's.
        self.show(key, service, &has, &unwanted).await?;
        for claim in unwanted {
            self.release(key, claim).await?;
        }
        Ok(())
    }

    /// Claims an address of each family that has none yet.
    async fn complete(
        &self,
        key: &Key,
        service: &Service,
        wish: &Wish,
        has: &mut Vec<IpAddr>,
    ) -> Result<()> {
        let pools = self.pools_for(service);
        let required = service
            .spec
            .as_ref()
            .and_then(|spec| spec.ip_family_policy.as_deref());
        let required = required == Some("RequireDualStack");
        let mut shortages = Vec::new();
        for &v4 in &wish.families {
            if has.iter().any(|ip| ip.is_ipv4() == v4) {
                continue;
            }
            match self.claim_next(key, service, wish, v4, &pools).await? {
                Ok(choice) => {
                    let Choice { ip, pool } = &choice;
                    let note = format!("assigned {ip} of the LoadBalancerPool {pool}");
                    self.0
                        .events
                        .record(COMPONENT, service, Note::normal("IPAllocated", note));
                    has.push(*ip);
                }
                Err(why) => shortages.push(why),
            }
        }
        // A service that prefers two families is content with one.
        if let Some(why) = shortages
            .into_iter()
            .next()
            .filter(|_| has.is_empty() || required)
        {
            self.warn(service, why);
        }
        Ok(())
    }

    fn warn(&self, service: &Service, why: String) {
        let note = Note::warning("AllocationFailed", why);
        self.0.events.record(COMPONENT, service, note);
    }

    /// The pools that are for a Service, by name.
    fn pools_for(&self, service: &Service) -> Vec<Pool> {
        let informers = &self.0.informers;
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let namespace = informers.namespaces.get(&Key::cluster(namespace));
        let of_namespace = namespace
            .map(|one| one.metadata.clone())
            .unwrap_or_default();
        let pools = informers.load_balancer_pools.all();
        let fits = |pool: &&Arc<LoadBalancerPool>| {
            pool.metadata.deletion_timestamp.is_none()
                && selects(pool.spec.service_selector.as_ref(), &service.metadata)
                && selects(pool.spec.namespace_selector.as_ref(), &of_namespace)
        };
        let pools = pools.iter().filter(fits).map(|pool| Pool {
            name: pool.metadata.name.clone().unwrap_or_default(),
            ranges: status::ranges(pool),
            auto_assign: pool.spec.auto_assign != Some(false),
        });
        pools.collect()
    }

    /// Claims an address; one that the status shows already rather than another.
    async fn claim_next(
        &self,
        key: &Key,
        service: &Service,
        wish: &Wish,
        v4: bool,
        pools: &[Pool],
    ) -> Result<Result<Choice, String>> {
        let mut taken: Taken = Taken::new();
        for claim in self.0.informers.load_balancer_addresses.all() {
            if let Some(ip) = ip_of(&claim) {
                taken.insert(ip, claim.spec.clone());
            }
        }
        let mut wishes = vec![wish.clone()];
        let earlier = shown(service).into_iter().find(|ip| ip.is_ipv4() == v4);
        if let Some(ip) = earlier.filter(|_| wish.ips.is_empty()) {
            wishes.push(Wish {
                ips: vec![ip],
                ..wish.clone()
            });
        }
        for _ in 0..CLAIMS_MAX {
            let Some(wish) = wishes.last() else { break };
            match choose::choose(wish, v4, key, pools, &taken) {
                Ok(choice) => {
                    if self.claim(key, wish, &choice, &mut taken).await? {
                        return Ok(Ok(choice));
                    }
                }
                Err(why) if wishes.len() == 1 => return Ok(Err(why)),
                Err(_) => drop(wishes.pop()),
            }
        }
        Ok(Err(
            "too many others claim addresses at the same time".to_owned()
        ))
    }

    /// Claims an address; whether it is now this Service's. If not, `taken` says whose.
    async fn claim(
        &self,
        key: &Key,
        wish: &Wish,
        choice: &Choice,
        taken: &mut Taken,
    ) -> Result<bool> {
        let name = Key::cluster(address_name(choice.ip));
        if taken.contains_key(&choice.ip) {
            let Some(claim) = self.0.informers.load_balancer_addresses.get(&name) else {
                taken.remove(&choice.ip);
                return Ok(false);
            };
            // Bound to what was seen of the others that have it.
            self.renew(key, wish, &claim).await?;
            return Ok(true);
        }
        let address = LoadBalancerAddress {
            metadata: ObjectMeta {
                name: Some(name.name.clone()),
                ..Default::default()
            },
            spec: LoadBalancerAddressSpec {
                address: choice.ip.to_string(),
                pool: choice.pool.clone(),
                sharing_key: wish.sharing_key.clone(),
                services: vec![entry(key, wish)],
            },
        };
        match write::create(&self.0, &address).await {
            Ok(_) => Ok(true),
            // It may be our own claim of a moment ago, which the cache does not show yet.
            Err(error) if error.is_already_exists() => {
                let found = write::get::<LoadBalancerAddress>(&self.0, &name).await?;
                let Some(found) = found else { return Ok(false) };
                let ours = found.spec.services.iter().any(|one| choose::is(one, key));
                taken.insert(choice.ip, found.spec);
                Ok(ours)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the Service's entry in a claim as it should be.
    async fn renew(&self, key: &Key, wish: &Wish, claim: &LoadBalancerAddress) -> Result<()> {
        let mut new = claim.clone();
        new.spec.services.retain(|one| !choose::is(one, key));
        if new.spec.services.is_empty() {
            new.spec.sharing_key.clone_from(&wish.sharing_key);
        }
        new.spec.services.push(entry(key, wish));
        new.spec
            .services
            .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        write::update(&self.0, claim, &new).await?;
        Ok(())
    }

    /// Shows the addresses in the Service's status. Without any, only what was ours is taken away.
    async fn show(
        &self,
        key: &Key,
        service: &Service,
        has: &[IpAddr],
        unwanted: &[&Arc<LoadBalancerAddress>],
    ) -> Result<()> {
        let shown = shown(service);
        let ours = |ip: &IpAddr| unwanted.iter().any(|claim| ip_of(claim) == Some(*ip));
        if shown == has || (has.is_empty() && !shown.iter().any(ours)) {
            return Ok(());
        }
        let ingress = has.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"}));
        let ingress: Vec<_> = ingress.collect();
        let patch = json!({
            "metadata": {"uid": service.metadata.uid},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        write::patch_status::<Service>(&self.0, key, patch).await?;
        Ok(())
    }

    /// Takes the addresses of a Service that is gone or of another type now.
    async fn release_all(&self, key: &Key, claims: &[Arc<LoadBalancerAddress>]) -> Result<()> {
        // The cache may not know yet that there is such a service.
        if let Some(service) = write::get::<Service>(&self.0, key).await? {
            if wish::is_ours(&service) {
                return Ok(());
            }
            let unwanted: Vec<_> = claims.iter().collect();
            self.show(key, &service, &[], &unwanted).await?;
        }
        for claim in claims {
            self.release(key, claim).await?;
        }
        Ok(())
    }

    /// Takes a Service out of a claim; with the last one the claim goes.
    async fn release(&self, key: &Key, claim: &LoadBalancerAddress) -> Result<()> {
        let mut new = claim.clone();
        new.spec.services.retain(|one| !choose::is(one, key));
        if !new.spec.services.is_empty() {
            write::update(&self.0, claim, &new).await?;
            return Ok(());
        }
        // Not one that somebody has joined meanwhile.
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid: claim.metadata.uid.clone(),
                resource_version: claim.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let api: Api<LoadBalancerAddress> = Api::all(self.0.client.clone());
        let deleted = api.delete(name, &exactly).await;
        deleted.unless_gone(|| format!("delete LoadBalancerAddress {name}"))?;
        Ok(())
    }
}

fn entry(key: &Key, wish: &Wish) -> LoadBalancerAddressService {
    LoadBalancerAddressService {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ports: wish.ports.iter().cloned().collect(),
    }
}

/// Whether a selector selects what has these labels; one that cannot be read selects nothing.
fn selects(selector: Option<&LabelSelector>, meta: &ObjectMeta) -> bool {
    let Some(selector) = selector else {
        return true;
    };
    let labels = meta.labels.as_ref();
    let label = |key: &str| labels.and_then(|all| all.get(key)).map(String::as_str);
    Selector::from_label_selector(selector).is_ok_and(|selector| selector.matches_with(label))
}
