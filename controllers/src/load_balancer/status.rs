//! How much of each pool is used: `kubectl get loadbalancerpools` shows it. The core is [`count`].

use std::sync::Arc;
use std::time::Duration;

use peapod_api::net::{
    AddressRange, LoadBalancerAddress, LoadBalancerPool, LoadBalancerPoolAddresses,
    LoadBalancerPoolStatus,
};

use super::ip_of;
use crate::common::Key;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

/// How far the counts may be behind: many changes at once are counted once.
const LAG: Duration = Duration::from_millis(500);
/// The largest number that every client of the API reads.
const COUNT_MAX: u64 = i64::MAX as u64;

struct Statuses(Context);

/// Wires the loop; its keys are pools.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let wired = Loop::new(ctx, "load-balancer-pool")
        .on_self(&ctx.informers.load_balancer_pools)
        .reads(&ctx.informers.load_balancer_addresses);
    let (queue, pools) = (wired.queue(), ctx.informers.load_balancer_pools.clone());
    ctx.informers.load_balancer_addresses.on_change(move |_| {
        for pool in pools.all() {
            queue.add_after(Key::of(&*pool), LAG);
        }
    });
    wired.workers(1).run(tasks, Statuses(ctx.clone()));
}

/// The addresses of a pool; what cannot be read is none.
pub fn ranges(pool: &LoadBalancerPool) -> Vec<AddressRange> {
    let ranges = pool.spec.addresses.iter();
    ranges.filter_map(|text| text.parse().ok()).collect()
}

impl Controller for Statuses {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(pool) = informers.load_balancer_pools.get(key) else {
            return Ok(Outcome::Done);
        };
        let status = count(&ranges(&pool), &informers.load_balancer_addresses.all());
        write::status(&self.0, &*pool, pool.status.as_ref(), &status).await?;
        Ok(Outcome::Done)
    }
}

/// What of a pool is used.
fn count(ranges: &[AddressRange], claims: &[Arc<LoadBalancerAddress>]) -> LoadBalancerPoolStatus {
    let total = ranges.iter().map(AddressRange::count);
    let total = total.fold(0, u128::saturating_add).min(COUNT_MAX.into());
    let total = u64::try_from(total).unwrap_or(COUNT_MAX);
    let ips = claims.iter().filter_map(|claim| ip_of(claim));
    let used = ips.filter(|ip| ranges.iter().any(|range| range.contains(*ip)));
    let used = used.count() as u64;
    LoadBalancerPoolStatus {
        addresses: LoadBalancerPoolAddresses {
            total,
            used,
            free: total.saturating_sub(used),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_of_the_pool_counts() {
        let claim = |ip: &str| {
            let claim = json!({"apiVersion": "net.peapod.dev/v1", "kind": "LoadBalancerAddress",
                "metadata": {"name": "a"}, "spec": {"address": ip, "pool": "p", "services": []}});
            Arc::new(serde_json::from_value(claim).unwrap())
        };
        let claims = ["192.0.2.1", "198.51.100.1"].map(claim);
        let counted = |ranges: &[&str]| {
            let ranges: Vec<_> = ranges.iter().map(|text| text.parse().unwrap()).collect();
            let addresses = count(&ranges, &claims).addresses;
            (addresses.total, addresses.used, addresses.free)
        };
        assert_eq!(counted(&["192.0.2.0-192.0.2.9"]), (10, 1, 9));
        assert_eq!(
            counted(&["2001:db8::/32", "::/0"]),
            (COUNT_MAX, 0, COUNT_MAX)
        );
    }
}
