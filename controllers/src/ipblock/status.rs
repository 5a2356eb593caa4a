//! How much of each pool is used: `kubectl get ippools` shows it. The core is [`count`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use peapod_api::net::{IpBlock, IpPool, IpPoolBlocks, IpPoolStatus};

use super::{allocate, cidr_of, ips, pools, wants_address};
use crate::common::Key;
use crate::config::BlockRange;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

/// How far the counts may be behind: many changes at once are counted once.
const LAG: Duration = Duration::from_millis(500);

struct Statuses(Context);

/// Wires the loop; its keys are pools.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let wired = Loop::new(ctx, "ip-pool")
        .on_self(&ctx.informers.ip_pools)
        .reads(&ctx.informers.ip_blocks)
        .reads(&ctx.informers.pods);
    let (queue, pools) = (wired.queue(), ctx.informers.ip_pools.clone());
    let later = move || {
        for pool in pools.all() {
            queue.add_after(Key::of(&*pool), LAG);
        }
    };
    let soon = later.clone();
    ctx.informers.ip_blocks.on_change(move |_| soon());
    ctx.informers.pods.on_change(move |change: &Change<Pod>| {
        let addresses = |pod: &Arc<Pod>| own_ips(pod).collect::<Vec<_>>();
        let old = change.old.as_ref().map(addresses).unwrap_or_default();
        if old != change.new.as_ref().map(addresses).unwrap_or_default() {
            later();
        }
    });
    wired.workers(1).run(tasks, Statuses(ctx.clone()));
}

fn own_ips(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    ips(pod).filter(move |_| wants_address(pod))
}

impl Controller for Statuses {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let pool = informers.ip_pools.get(key);
        let Some((pool, range)) = pool.and_then(|pool| {
            let range = pools::range_of(&pool.spec)?;
            Some((pool, range))
        }) else {
            return Ok(Outcome::Done);
        };
        let pods = informers.pods.all();
        let in_use = pods.iter().flat_map(|pod| own_ips(pod));
        let status = count(&range, &informers.ip_blocks.all(), in_use);
        write::status::<IpPool, _>(&self.0, &pool, pool.status.as_ref(), &status).await?;
        Ok(Outcome::Done)
    }
}

/// What of a pool is used.
fn count(
    range: &BlockRange,
    blocks: &[Arc<IpBlock>],
    in_use: impl Iterator<Item = IpAddr>,
) -> IpPoolStatus {
    let of_pool =
        |block: &&Arc<IpBlock>| cidr_of(block).is_some_and(|cidr| range.cidr.contains(&cidr));
    let total = u64::try_from(allocate::block_count(range)).unwrap_or(u64::MAX);
    let used = blocks.iter().filter(of_pool).count() as u64;
    IpPoolStatus {
        blocks: IpPoolBlocks {
            total,
            used,
            free: total.saturating_sub(used),
        },
        addresses_in_use: in_use.filter(|ip| range.cidr.contains(ip)).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_of_the_pool_counts() {
        let range = BlockRange {
            cidr: "10.0.0.0/24".parse().unwrap(),
            block_prefix: 26,
        };
        let block = |cidr: &str| {
            let block = json!({"apiVersion": "net.peapod.dev/v1", "kind": "IpBlock",
                "metadata": {"name": "b"}, "spec": {"cidr": cidr, "node": "n"}});
            Arc::new(serde_json::from_value(block).unwrap())
        };
        let blocks = ["10.0.0.64/26", "10.0.1.0/26", "fd00::/64"].map(block);
        let in_use = ["10.0.0.65", "10.0.1.1", "fd00::1"].map(|ip| ip.parse().unwrap());
        let status = count(&range, &blocks, in_use.into_iter());
        let wanted = json!({"blocks": {"total": 4, "used": 1, "free": 3}, "addressesInUse": 1});
        assert_eq!(serde_json::to_value(status).unwrap(), wanted);
    }
}
