//! Which kinds the API serves, custom ones included.

use kube::Client;
use kube::api::{ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, core::discovery::ApiCapabilities};

use super::Result;
use super::error::Doing;

/// A kind that the API serves, in its most stable version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Its names.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    verbs: Vec<String>,
}

impl Discovered {
    fn new((resource, capabilities): (ApiResource, ApiCapabilities)) -> Self {
        Self {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            verbs: capabilities.operations,
        }
    }

    /// Whether it has a verb, as `watch`.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    /// Whether objects of it stay until they are deleted.
    pub fn is_deletable(&self) -> bool {
        self.can(verbs::DELETE) && self.can(verbs::LIST)
    }

    /// The API of a namespace; of the whole cluster when it is empty.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match self.namespaced && !namespace.is_empty() {
            true => Api::namespaced_with(client.clone(), namespace, &self.resource),
            false => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// Group and kind: what an owner reference names, whatever its version.
    pub fn group_kind(&self) -> (String, String) {
        (self.resource.group.clone(), self.resource.kind.clone())
    }
}

/// Asks the API. An aggregated answer if the server has one, else group by group.
pub async fn discover(client: &Client) -> Result<Vec<Discovered>> {
    let aggregated = Discovery::new(client.clone()).run_aggregated().await;
    let discovery = match aggregated {
        Ok(discovery) => discovery,
        Err(_) => {
            let one_by_one = Discovery::new(client.clone()).run().await;
            one_by_one.doing(|| "discover the kinds that the API serves".to_owned())?
        }
    };
    let groups = discovery.groups();
    let kinds = groups.flat_map(|group| group.resources_by_stability());
    Ok(kinds.map(Discovered::new).collect())
}
