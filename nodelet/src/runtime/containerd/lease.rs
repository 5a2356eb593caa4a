//! Leases: what is being made is kept from containerd's garbage collector until it is
//! referred to.

use std::collections::HashMap;

use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use jiff::{SignedDuration, Timestamp};

use super::client::Client;
use crate::runtime::Result;

/// A lease that a crash left behind ends by itself after this time.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// A lease that is held.
pub struct Lease {
    client: Client,
    id: String,
}

// === impl Lease ===

impl Lease {
    /// Takes a lease.
    pub async fn take(client: &Client) -> Result<Self> {
        let id = format!("peapod-{}", uuid::Uuid::new_v4());
        let expiry = Timestamp::now() + LIFETIME;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expiry.to_string())]);
        let request = CreateRequest {
            id: id.clone(),
            labels,
        };
        client
            .call("taking a lease", client.leases().create(request))
            .await?;
        Ok(Self {
            client: client.leased(&id)?,
            id,
        })
    }

    /// The client whose work the lease holds.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the lease and waits until what nothing refers to is collected.
    pub async fn release_and_collect(self) -> Result<()> {
        let request = DeleteRequest {
            id: self.id,
            sync: true,
        };
        let mut leases = self.client.leases();
        let release = leases.delete(request);
        self.client
            .call_gone_ok("collecting what nothing refers to", release)
            .await
    }

    /// Ends the lease: what nothing refers to may be collected. If it fails, expiry does it.
    pub async fn release(self) {
        let request = DeleteRequest {
            id: self.id,
            sync: false,
        };
        let release = self.client.leases().delete(request).await;
        if let Err(error) = release {
            tracing::debug!(%error, "lease left to expire");
        }
    }
}
