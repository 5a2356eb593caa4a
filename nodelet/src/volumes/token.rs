//! Service account tokens: asked for, kept while they are fresh, renewed before they are not. A token that an
//! earlier run of the agent left in the pod's volume goes on being used.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client};
use peapod_api::k8s_openapi;
use serde::Deserialize;
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
    /// A fresh token for a pod and when to ask again. `left` is what stands in its place in the volume: good
    /// for as long as it is fresh, if no other was asked for yet.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
        left: impl FnOnce() -> Option<String>,
    ) -> Result<(String, Timestamp), kube::Error> {
        let (audience, seconds) = (projection.audience.clone(), projection.expiration_seconds);
        let left = |now| kept(left()?, pod, audience.as_deref(), now);
        let held = self.fresh(client, pod, audience.clone(), seconds, left);
        held.await.map(|held| (held.token, held.renew_at))
    }

    /// A fresh token for a pod, an audience (`None` for the API server) and so many seconds.
    pub async fn ask(
        &self,
        client: &Client,
        pod: &Pod,
        audience: Option<String>,
        seconds: Option<i64>,
    ) -> Result<Held, kube::Error> {
        self.fresh(client, pod, audience, seconds, |_| None).await
    }

    async fn fresh(
        &self,
        client: &Client,
        pod: &Pod,
        audience: Option<String>,
        seconds: Option<i64>,
        left: impl FnOnce(Timestamp) -> Option<Held>,
    ) -> Result<Held, kube::Error> {
        let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (audience, seconds);
        let mut held = self.0.lock().await;
        let now = Timestamp::now();
        match held.get(&key) {
            Some(known) if known.renew_at > now => return Ok(known.clone()),
            Some(_) => {}
            None => {
                if let Some(left) = left(now) {
                    held.insert(key, left.clone());
                    return Ok(left);
                }
            }
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

/// What a token says of itself. The signature is not looked at: it is for those that are shown the token.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: i64,
    iat: i64,
    aud: Vec<String>,
    #[serde(rename = "kubernetes.io")]
    private: Private,
}

#[derive(Debug, Deserialize)]
struct Private {
    pod: Option<Bound>,
    /// Until when it was asked for, where the API server makes it hold for longer.
    warnafter: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Bound {
    uid: String,
}

/// A token that was left in a pod's volume, if it is that pod's and need not be renewed yet.
fn kept(token: String, pod: &Pod, audience: Option<&str>, now: Timestamp) -> Option<Held> {
    let body = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    let until = claims.private.warnafter.unwrap_or(claims.exp);
    let issued = Timestamp::from_second(claims.iat).ok()?;
    let expires = Timestamp::from_second(until.min(claims.exp)).ok()?;
    let renew_at = renew_at(issued, expires);
    let own = claims.private.pod.map(|bound| bound.uid) == pod.metadata.uid;
    let meant = audience.is_none_or(|audience| claims.aud.iter().any(|one| one == audience));
    (own && meant && issued <= now && now < renew_at).then_some(Held {
        token,
        expires,
        renew_at,
    })
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

    #[test]
    fn what_was_left_is_used_while_it_is_fresh() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let pod = |uid: &str| Pod {
            metadata: kube::api::ObjectMeta {
                uid: Some(uid.to_owned()),
                ..Default::default()
            },
            ..Pod::default()
        };
        let token = |claims: serde_json::Value| {
            let body = URL_SAFE_NO_PAD.encode(claims.to_string());
            format!("e30.{body}.c2ln")
        };
        let claims = serde_json::json!({"iat": 1000, "exp": 4600, "aud": ["vault"],
            "kubernetes.io": {"pod": {"name": "a", "uid": "u"}}});
        let left = token(claims.clone());
        let try_at = |second| kept(left.clone(), &pod("u"), Some("vault"), at(second));
        let held = try_at(1000).unwrap();
        assert_eq!((held.renew_at, held.expires), (at(3880), at(4600)));
        assert_eq!(held.token, left);
        assert!(try_at(3879).is_some());
        assert!(try_at(3880).is_none(), "to be renewed");
        assert!(try_at(999).is_none(), "of another clock");
        assert!(kept(left.clone(), &pod("other"), None, at(1000)).is_none());
        assert!(kept(left.clone(), &pod("u"), Some("bank"), at(1000)).is_none());
        assert!(kept(left.clone(), &pod("u"), None, at(1000)).is_some());

        let mut longer = claims;
        longer["exp"] = 32_000_000.into();
        longer["kubernetes.io"]["warnafter"] = 4607.into();
        let held = kept(token(longer), &pod("u"), None, at(1000)).unwrap();
        assert_eq!(held.expires, at(4607));
        for broken in ["", "a.b", "a.!.c", "a.e30.c"] {
            assert!(kept(broken.to_owned(), &pod("u"), None, at(1000)).is_none());
        }
    }
}
