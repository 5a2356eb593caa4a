//! `metrics.k8s.io`: what nodes and pods use now, asked of the nodes when somebody wants to know.
//!
//! Nobody polls: a request that finds an account of a node too old has a new one made, and shows
//! what was used since the one before. The first one waits for two. [`summary`] is what is read
//! from a node, [`serve`] answers requests. An `APIService` of the same group takes precedence.

pub mod serve;
mod summary;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::api::Api;
use crate::status::{Result, Status};
use summary::Summary;

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// How long an account is good.
const FRESH: Duration = Duration::from_secs(10);
/// Up to which age it still serves as the one before.
const STALE: Duration = Duration::from_secs(120);
/// The time between the first two.
const FIRST: Duration = Duration::from_secs(1);
/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The accounts of all nodes that somebody asked for.
#[derive(Default)]
pub struct Usage(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Pair>>>>>);

/// The last two accounts of a node.
#[derive(Clone)]
pub struct Pair {
    earlier: Arc<Summary>,
    later: Arc<Summary>,
    at: Instant,
}

/// What is to be done when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing: what is there is good.
    Nothing,
    /// One new account, which follows the last one.
    One,
    /// Two new ones.
    Two,
}

/// What is needed, given the age of the last account.
fn need(age: Option<Duration>) -> Need {
    match age {
        Some(age) if age < FRESH => Need::Nothing,
        Some(age) if age < STALE => Need::One,
        _ => Need::Two,
    }
}

// === impl Usage ===

impl Usage {
    /// The two last accounts of a node. Who asks at the same time waits for the same answer.
    ///
    /// # Errors
    /// 503 and the like when the node does not answer.
    pub async fn of_node(&self, api: &Api, node: &str) -> Result<Pair> {
        let place = self.0.lock().entry(node.to_owned()).or_default().clone();
        let mut pair = place.lock().await;
        let age = pair.as_ref().map(|pair| pair.at.elapsed());
        let earlier = match (need(age), &*pair) {
            (Need::Nothing, Some(known)) => return Ok(known.clone()),
            (Need::One, Some(known)) => known.later.clone(),
            _ => {
                let first = ask(api, node).await?;
                tokio::time::sleep(FIRST).await;
                first
            }
        };
        let new = Pair {
            earlier,
            later: ask(api, node).await?,
            at: Instant::now(),
        };
        *pair = Some(new.clone());
        Ok(new)
    }

    /// Forgets nodes that are not there any more.
    pub fn retain(&self, there: impl Fn(&str) -> bool) {
        self.0.lock().retain(|node, _| there(node));
    }
}

async fn ask(api: &Api, node: &str) -> Result<Arc<Summary>> {
    let fetching = crate::proxy::fetch(api, node, "/stats/summary");
    let bytes = tokio::time::timeout(TIMEOUT, fetching).await;
    let bytes = bytes.map_err(|_| {
        Status::unavailable(format!("node {node} did not say in time what it uses"))
    })??;
    let document = serde_json::from_slice(&bytes).map_err(|fault| {
        Status::unavailable(format!("node {node} does not say what it uses: {fault}"))
    })?;
    Ok(Arc::new(Summary::of(&document)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_made_when_they_are_wanted() {
        let seconds = Duration::from_secs;
        for (age, expected) in [
            (None, Need::Two),
            (Some(seconds(1)), Need::Nothing),
            (Some(seconds(15)), Need::One),
            (Some(seconds(600)), Need::Two),
        ] {
            assert_eq!(need(age), expected, "{age:?}");
        }
    }
}
