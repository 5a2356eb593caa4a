//! Bootstrap tokens that have expired are deleted. Upstream calls the loop `tokencleaner`.
//!
//! The core is [`left`].

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::common::Key;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAMESPACE: &str = "kube-system";

struct Cleaner(Context);

/// Wires the loop; its keys are Secrets of bootstrap tokens.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, "token_cleaner")
        .on_self(&ctx.informers.bootstrap_tokens)
        .workers(1)
        .run(tasks, Cleaner(ctx.clone()));
}

/// How long a token still holds; `None` when it holds for ever. One whose end cannot be read is
/// over.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let until = secret.data.as_ref()?.get("expiration")?;
    let until = std::str::from_utf8(&until.0).ok();
    let until: Option<Timestamp> = until.and_then(|text| text.parse().ok());
    let seconds = until.map_or(0, |until| until.as_second() - now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

impl Controller for Cleaner {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let token = self.0.informers.bootstrap_tokens.get(key);
        let Some(token) = token.filter(|_| key.namespace == NAMESPACE) else {
            return Ok(Outcome::Done);
        };
        match left(&token, Timestamp::now()) {
            Some(left) if left.is_zero() => {
                write::delete::<Secret>(&self.0, &token.metadata).await?;
                Ok(Outcome::Done)
            }
            left => Ok(Outcome::maybe(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn tokens_end_in_time() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ends = |text: Option<&str>| {
            let expiration = text.map(|text| {
                let bytes = ByteString(text.as_bytes().to_vec());
                ("expiration".to_owned(), bytes)
            });
            let secret = Secret {
                data: Some(expiration.into_iter().collect()),
                ..Secret::default()
            };
            left(&secret, now).map(|left| left.as_secs())
        };
        assert_eq!(ends(None), None);
        assert_eq!(ends(Some("2026-01-01T01:00:00Z")), Some(3600));
        assert_eq!(ends(Some("2026-01-01T01:00:00+01:00")), Some(0));
        assert_eq!(ends(Some("2025-01-01T00:00:00Z")), Some(0));
        assert_eq!(ends(Some("soon")), Some(0));
    }
}
