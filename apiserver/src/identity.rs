//! Which API servers there are. Each keeps a Lease of its own in `kube-system`, as upstream's do, and the
//! `kubernetes` Service leads to those that live. What a server that died has left is removed by the others.
//!
//! How long a Lease was not renewed is measured by this server's own clock, from when it saw the last
//! renewal: clocks need not agree. Over a store of its own a server is the only one, and writes nothing
//! while it is idle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Config, Engine};

const NAMESPACE: &str = "kube-system";
/// What marks these Leases, as upstream's.
const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// Where a server is reached.
const ADDRESS: &str = "net.peapod.dev/advertise-address";
/// Who writes here.
const MANAGER: &str = "kube-apiserver";
/// Of several servers: how often a Lease is renewed, and how long it then holds.
const AMONG_OTHERS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// The same of one that is alone. The second is upstream's.
const ALONE: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(3600));

/// A server among the others.
pub struct Identity {
    client: kube::Client,
    /// The name of its Lease.
    name: String,
    /// This process.
    holder: String,
    address: SocketAddr,
    shared: bool,
    known: Known,
}

// === impl Identity ===

impl Identity {
    /// Who a server is, by its configuration.
    pub fn new(client: kube::Client, config: &Config) -> Self {
        let address = SocketAddr::new(config.advertise_address, config.secure_port);
        let hash = Sha256::digest(address.to_string().as_bytes());
        let hash: String = hash[..13]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("apiserver-{hash}");
        Self {
            client,
            holder: format!("{name}_{}", uuid::Uuid::new_v4()),
            name,
            address,
            shared: matches!(config.engine, Engine::Etcd(_)),
            known: Known::default(),
        }
    }

    /// Renews this server's Lease, and has the `kubernetes` Service lead to the servers that live.
    ///
    /// # Errors
    /// What could not be read or written.
    pub async fn refresh(&mut self) -> kube::Result<()> {
        let hash = self.name.trim_start_matches("apiserver-");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "labels": {LABEL.0: LABEL.1, "kubernetes.io/hostname": hash},
                "annotations": {ADDRESS: self.address.to_string()},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": self.times().1.as_secs(),
                "renewTime": format!("{:.6}", Timestamp::now()),
            },
        });
        let params = PatchParams::apply(MANAGER).force();
        self.leases()
            .patch(&self.name, &params, &Patch::Apply(lease))
            .await?;
        self.tell(true).await
    }

    /// Keeps at it until it is dropped.
    pub fn spawn(mut self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(self.times().0).await;
                if let Err(error) = self.refresh().await {
                    tracing::warn!(%error, "cannot renew the lease of this API server");
                }
            }
        }))
    }

    /// Tells the others that this server goes. Alone it has nobody to tell.
    pub async fn leave(mut self) -> kube::Result<()> {
        if !self.shared {
            return Ok(());
        }
        self.leases()
            .delete(&self.name, &DeleteParams::default())
            .await?;
        self.tell(false).await
    }

    fn times(&self) -> (Duration, Duration) {
        match self.shared {
            true => AMONG_OTHERS,
            false => ALONE,
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Writes down where servers are: this one, if it stays, and the others that live.
    async fn tell(&mut self, stays: bool) -> kube::Result<()> {
        let params = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        let leases = self.leases().list(&params).await?.items;
        let others = leases.into_iter();
        let others = others.filter(|lease| lease.metadata.name.as_deref() != Some(&self.name));
        let (mut living, dead) = match self.shared {
            true => self.known.judge(others, Instant::now()),
            false => (BTreeSet::new(), others.collect()),
        };
        living.extend(stays.then_some(self.address));
        for lease in dead {
            self.forget(&lease).await?;
        }
        // The last one leaves its address: nobody else would put it back at once.
        if !living.is_empty() {
            self.write(&living).await?;
        }
        Ok(())
    }

    async fn forget(&self, lease: &Lease) -> kube::Result<()> {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        let unchanged = Preconditions {
            resource_version: lease.metadata.resource_version.clone(),
            uid: None,
        };
        let params = DeleteParams::default().preconditions(unchanged);
        match self.leases().delete(name, &params).await {
            Ok(_) => {
                tracing::info!(lease = name, "an API server is gone");
                Ok(())
            }
            // Another server was quicker, or it lives after all.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, living: &BTreeSet<SocketAddr>) -> kube::Result<()> {
        let params = PatchParams::apply(MANAGER).force();
        let endpoints: Api<k8s_openapi::api::core::v1::Endpoints> =
            Api::namespaced(self.client.clone(), "default");
        let wanted = Patch::Apply(endpoints_of(living));
        endpoints.patch("kubernetes", &params, &wanted).await?;
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let wanted = slices_of(living);
        for (name, slice) in &wanted {
            let written = slices.patch(name, &params, &Patch::Apply(slice)).await;
            match written {
                // Of the other family, which cannot be changed: made anew.
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    slices.delete(name, &DeleteParams::default()).await?;
                    slices.patch(name, &params, &Patch::Apply(slice)).await?;
                }
                written => drop(written?),
            }
        }
        let of_it = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        for slice in slices.list(&of_it).await?.items {
            let name = slice.metadata.name.unwrap_or_default();
            if name.starts_with("kubernetes-") && !wanted.contains_key(&name) {
                slices.delete(&name, &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }
}

/// When other servers' Leases were last seen to be renewed.
#[derive(Debug, Default)]
struct Known {
    renewals: HashMap<String, (Option<Timestamp>, Instant)>,
}

// === impl Known ===

impl Known {
    /// Where the servers are that live, and the Leases of those that do not.
    fn judge(
        &mut self,
        leases: impl Iterator<Item = Lease>,
        now: Instant,
    ) -> (BTreeSet<SocketAddr>, Vec<Lease>) {
        let (mut living, mut dead, mut present) = (BTreeSet::new(), Vec::new(), HashMap::new());
        for lease in leases {
            let name = lease.metadata.name.clone().unwrap_or_default();
            let spec = lease.spec.clone().unwrap_or_default();
            let renewed = spec.renew_time.map(|time| time.0);
            let seen = self
                .renewals
                .get(&name)
                .filter(|(before, _)| *before == renewed);
            let since = seen.map_or(now, |(_, since)| *since);
            let secs = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
            let annotations = lease.metadata.annotations.as_ref();
            let address = annotations.and_then(|all| all.get(ADDRESS)?.parse().ok());
            match address {
                Some(address) if now - since < Duration::from_secs(secs) => {
                    living.insert(address);
                }
                _ => dead.push(lease),
            }
            present.insert(name, (renewed, since));
        }
        self.renewals = present;
        (living, dead)
    }
}

/// Addresses by port.
fn by_port(living: &BTreeSet<SocketAddr>) -> BTreeMap<u16, Vec<String>> {
    let mut ports: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for address in living {
        ports
            .entry(address.port())
            .or_default()
            .push(address.ip().to_string());
    }
    ports
}

fn endpoints_of(living: &BTreeSet<SocketAddr>) -> Value {
    let subset = |(port, addresses): (u16, Vec<String>)| {
        let addresses: Vec<Value> = addresses.into_iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "addresses": addresses,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        })
    };
    let subsets: Vec<Value> = by_port(living).into_iter().map(subset).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    })
}

/// Slices by name: one for each family and port, the first of them under upstream's name.
fn slices_of(living: &BTreeSet<SocketAddr>) -> BTreeMap<String, Value> {
    let mut groups: BTreeMap<(bool, u16), Vec<Value>> = BTreeMap::new();
    for address in living {
        let endpoint = json!({
            "addresses": [address.ip().to_string()],
            "conditions": {"ready": true},
        });
        let group = groups.entry((address.is_ipv6(), address.port()));
        group.or_default().push(endpoint);
    }
    let slices = groups.into_iter().enumerate();
    let slices = slices.map(|(at, ((is_ipv6, port), endpoints))| {
        let family = if is_ipv6 { "IPv6" } else { "IPv4" };
        let name = match at {
            0 => "kubernetes".to_owned(),
            _ => format!("kubernetes-{}-{port}", family.to_lowercase()),
        };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        (name, slice)
    });
    slices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str, renewed_secs: i64) -> Lease {
        let renewed = Timestamp::from_second(renewed_secs).unwrap();
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {ADDRESS: format!("10.0.0.{name}:6443")},
            },
            "spec": {"leaseDurationSeconds": 30, "renewTime": format!("{renewed:.6}")},
        }))
        .unwrap()
    }

    fn living(known: &mut Known, leases: &[Lease], now: Instant) -> (Vec<String>, usize) {
        let (living, dead) = known.judge(leases.iter().cloned(), now);
        (living.iter().map(ToString::to_string).collect(), dead.len())
    }

    #[test]
    fn a_server_lives_until_its_lease_was_not_renewed_for_as_long_as_it_holds() {
        let (mut known, began) = (Known::default(), Instant::now());
        let at = |secs| began + Duration::from_secs(secs);
        let both = [lease("1", 5), lease("2", 900)];
        let all = vec!["10.0.0.1:6443".to_owned(), "10.0.0.2:6443".to_owned()];
        // Whatever its clock says, it may live as long as it is not known better.
        assert_eq!(living(&mut known, &both, at(0)), (all.clone(), 0));
        assert_eq!(living(&mut known, &both, at(29)), (all.clone(), 0));
        let renewed = [lease("1", 15), lease("2", 900)];
        assert_eq!(living(&mut known, &renewed, at(31)), (all[..1].to_vec(), 1));
        // It comes back with a Lease of a new time.
        let back = [lease("1", 15), lease("2", 910)];
        assert_eq!(living(&mut known, &back, at(40)), (all, 0));
    }

    #[test]
    fn a_lease_without_an_address_is_nobodys() {
        let mut odd = lease("1", 5);
        odd.metadata.annotations = None;
        let mut known = Known::default();
        assert_eq!(living(&mut known, &[odd], Instant::now()), (Vec::new(), 1));
    }

    #[test]
    fn servers_are_grouped_by_family_and_port() {
        let servers = [
            "10.0.0.2:6443",
            "10.0.0.1:6443",
            "10.0.0.1:6444",
            "[fd00::1]:6443",
        ];
        let servers = servers
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let slices = slices_of(&servers);
        let names: Vec<&str> = slices.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["kubernetes", "kubernetes-ipv4-6444", "kubernetes-ipv6-6443"]
        );
        assert_eq!(
            slices["kubernetes"]["endpoints"].as_array().unwrap().len(),
            2
        );
        let endpoints = endpoints_of(&servers);
        let subsets = endpoints["subsets"].as_array().unwrap();
        let counts: Vec<usize> = subsets
            .iter()
            .map(|subset| subset["addresses"].as_array().unwrap().len())
            .collect();
        assert_eq!(counts, [3, 1]);
    }
}
