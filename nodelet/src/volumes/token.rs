//! Service account tokens: asked for, kept while they are fresh, renewed before they are not.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use tokio::sync::Mutex;

use crate::core::spec_of;

/// What a token is for when nothing else is said, seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// A token is renewed at the latest after this, seconds.
const RENEW_AT_MOST_S: i64 = 24 * 3600;

/// A token that is fresh.
#[derive(Clone, Debug)]
pub struct Held {
    /// The token.
    pub token: String,
    /// When it is not valid any more.
    pub expires: Timestamp,
    /// When to ask for another.
    pub renew_at: Timestamp,
}

/// The tokens of one pod, by audience and lifetime.
#[derive(Debug, Default)]
pub struct Tokens(Mutex<HashMap<(Option<String>, i64), Held>>);

/// When to renew a token: after four fifths of its life, and once a day at least.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now).as_secs();
    let after = (life * 4 / 5).clamp(1, RENEW_AT_MOST_S);
    now.checked_add(SignedDuration::from_secs(after))
        .unwrap_or(Timestamp::MAX)
}

impl Tokens {
    /// A fresh token for a pod and when to ask again.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), kube::Error> {
        let (audience, seconds) = (projection.audience.clone(), projection.expiration_seconds);
        let held = self.ask(client, pod, audience, seconds).await?;
        Ok((held.token, held.renew_at))
    }

    /// A fresh token for a pod, an audience (`None` for the API server) and so many seconds.
    pub async fn ask(
        &self,
        client: &Client,
        pod: &Pod,
        audience: Option<String>,
        seconds: Option<i64>,
    ) -> Result<Held, kube::Error> {
        let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (audience, seconds);
        let mut held = self.0.lock().await;
        let now = Timestamp::now();
        if let Some(fresh) = held.get(&key).filter(|held| held.renew_at > now) {
            return Ok(fresh.clone());
        }
        let answer = request(client, pod, &key.0, seconds).await?;
        let status = answer.status.unwrap_or_default();
        let Time(expires) = status.expiration_timestamp.unwrap_or(Time(now));
        let fresh = Held {
            token: status.token.unwrap_or_default(),
            expires,
            renew_at: renew_at(now, expires),
        };
        held.insert(key, fresh.clone());
        Ok(fresh)
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    audience: &Option<String>,
    seconds: i64,
) -> Result<TokenRequest, kube::Error> {
    let meta = &pod.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let account = spec_of(pod)
        .service_account_name
        .as_deref()
        .unwrap_or("default");
    let ask = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.iter().cloned().collect()),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
            expiration_seconds: Some(seconds),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    accounts
        .create_token_request(account, &PostParams::default(), &ask)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_in_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(renew_at(at(0), at(3600)), at(2880));
        assert_eq!(renew_at(at(0), at(365 * 86400)), at(86400));
        assert_eq!(renew_at(at(10), at(5)), at(11));
    }
}
