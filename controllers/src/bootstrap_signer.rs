//! `kube-public/cluster-info` is signed by every bootstrap token that is for it, so that who has
//! the token can tell that it is the cluster's. Upstream calls the loop `bootstrapsigner`.
//!
//! The core is [`signed`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::Patch;
use peapod_api::bootstrap::{CLUSTER_INFO, KUBECONFIG, PUBLIC, SIGNATURE, SYSTEM, Token};
use serde_json::{Value, json};

use crate::common::Key;
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

struct Signer(Context);

/// Wires the loop; any change of a token looks at the whole.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, "bootstrap_signer")
        .on_self(&ctx.informers.bootstrap_tokens)
        .workers(1)
        .run(tasks, Signer(ctx.clone()));
}

/// The token of a Secret, if it signs now.
fn signs(secret: &Secret, now: Timestamp) -> Option<Token> {
    if secret.metadata.namespace.as_deref() != Some(SYSTEM)
        || secret.metadata.deletion_timestamp.is_some()
    {
        return None;
    }
    let data = secret.data.as_ref()?;
    let field = |name: &str| {
        let bytes = data.get(name)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    if field("usage-bootstrap-signing").as_deref() != Some("true") {
        return None;
    }
    if let Some(until) = field("expiration") {
        let until: Timestamp = until.parse().ok()?;
        if until <= now {
            return None;
        }
    }
    format!("{}.{}", field("token-id")?, field("token-secret")?)
        .parse()
        .ok()
}

/// The data as it should be: its own, and the signatures of these tokens only.
fn signed(data: &BTreeMap<String, String>, tokens: &[Token]) -> BTreeMap<String, String> {
    let own = data.iter().filter(|(key, _)| !key.starts_with(SIGNATURE));
    let mut all: BTreeMap<String, String> = own
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(text) = data.get(KUBECONFIG) {
        for token in tokens {
            all.insert(format!("{SIGNATURE}{}", token.id), token.sign(text));
        }
    }
    all
}

impl Controller for Signer {
    async fn reconcile(&self, _key: &Key) -> Result<Outcome> {
        let maps: Api<ConfigMap> = Api::namespaced(self.0.client.clone(), PUBLIC);
        let found = maps.get_opt(CLUSTER_INFO).await;
        let found = found.doing(|| format!("read ConfigMap {PUBLIC}/{CLUSTER_INFO}"))?;
        let Some(info) = found else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let secrets = self.0.informers.bootstrap_tokens.all();
        let tokens: Vec<Token> = secrets.iter().filter_map(|one| signs(one, now)).collect();
        let data = info.data.unwrap_or_default();
        let wanted = signed(&data, &tokens);
        if wanted == data {
            return Ok(Outcome::Done);
        }
        let mut change: BTreeMap<String, Value> = data
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .map(|key| (key.clone(), Value::Null))
            .collect();
        change.extend(wanted.into_iter().map(|(key, value)| (key, value.into())));
        let version = info.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "data": change});
        maps.patch(CLUSTER_INFO, &write::patch_params(), &Patch::Merge(patch))
            .await
            .doing(|| format!("sign ConfigMap {PUBLIC}/{CLUSTER_INFO}"))?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(change: &[(&str, &str)]) -> Secret {
        let mut fields = BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
            ("expiration", "2027-01-01T00:00:00Z"),
        ]);
        fields.extend(change.iter().copied());
        let mut secret = Secret::default();
        secret.metadata.namespace = Some(SYSTEM.to_owned());
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        secret.data = Some(
            fields
                .into_iter()
                .map(|(k, v)| (k.to_owned(), bytes(v)))
                .collect(),
        );
        secret
    }

    #[test]
    fn tokens_that_are_for_it_sign_while_they_hold() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        assert!(signs(&secret(&[]), now).is_some());
        for change in [
            ("usage-bootstrap-signing", "false"),
            ("expiration", "2026-05-31T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "short"),
        ] {
            assert_eq!(signs(&secret(&[change]), now), None, "{change:?}");
        }
    }

    #[test]
    fn signatures_come_and_go_with_their_tokens() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let data = BTreeMap::from([
            ("kubeconfig".to_owned(), "text".to_owned()),
            ("jws-kubeconfig-gone00".to_owned(), "old".to_owned()),
        ]);
        let wanted = signed(&data, std::slice::from_ref(&token));
        let keys: Vec<&str> = wanted.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "kubeconfig"]);
        assert_eq!(wanted["jws-kubeconfig-abcdef"], token.sign("text"));
        assert_eq!(signed(&wanted, &[token]), wanted);
    }
}
