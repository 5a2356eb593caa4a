//! Bootstrap tokens: with one of them a machine asks to become a node. Each is a Secret
//! `bootstrap-token-ID` in `kube-system`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::auth::same;
use crate::auth::user::User;
use crate::registry::value;

/// Where the Secrets are.
pub const NAMESPACE: &str = "kube-system";
/// Their type.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of all who show such a token, and the beginning of their other groups.
const GROUP: &str = "system:bootstrappers";

/// The ID and the secret of a token, if it looks like one: `abcdef.0123456789abcdef`.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, len| {
        text.len() == len
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// The name of a token's Secret.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Whom a token speaks for, by its Secret.
pub fn user(found: &Value, id: &str, secret: &str, now: Timestamp) -> Result<User, String> {
    let field = |name: &str| {
        let encoded = found["data"].get(name).and_then(Value::as_str);
        let decoded = STANDARD.decode(encoded.unwrap_or_default());
        String::from_utf8(decoded.unwrap_or_default()).unwrap_or_default()
    };
    if value::text(found, "type") != TYPE || field("token-id") != id {
        return Err("the Secret is no bootstrap token".to_owned());
    }
    if !same(field("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("the bootstrap token's secret is another".to_owned());
    }
    let expiration = field("expiration");
    if !expiration.is_empty() {
        let until: Result<Timestamp, _> = expiration.parse();
        if until.map_or(true, |until| until <= now) {
            return Err("the bootstrap token has expired".to_owned());
        }
    }
    if field("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".to_owned());
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = field("auth-extra-groups");
    for group in extra
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty())
    {
        if !is_group(group) {
            return Err(format!("{group:?} is no group of bootstrap tokens"));
        }
        groups.push(group.to_owned());
    }
    Ok(User::authenticated(
        &format!("system:bootstrap:{id}"),
        groups,
    ))
}

/// Whether a group may be given by a token: `system:bootstrappers:` and more.
fn is_group(group: &str) -> bool {
    let Some(rest) = group
        .strip_prefix(GROUP)
        .and_then(|rest| rest.strip_prefix(':'))
    else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || matches!(b, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(change: &[(&str, &str)], secret: &str) -> Result<Vec<String>, String> {
        let mut fields = vec![
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("expiration", "2027-01-01T00:00:00Z"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:rack-1"),
        ];
        fields.extend(change);
        let mut object = json!({"type": TYPE});
        for (name, value) in fields {
            object["data"][name] = STANDARD.encode(value).into();
        }
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        user(&object, "abcdef", secret, now).map(|user| user.groups().to_vec())
    }

    #[test]
    fn a_token_is_what_its_secret_says() {
        let good = "0123456789abcdef";
        assert_eq!(
            told(&[], good).unwrap(),
            [
                "system:bootstrappers",
                "system:bootstrappers:rack-1",
                "system:authenticated"
            ]
        );
        assert!(told(&[("expiration", "")], good).is_ok());
        for (change, secret) in [
            (("token-id", "fedcba"), good),
            (("token-id", "abcdef"), "0123456789abcdee"),
            (("expiration", "2026-05-31T00:00:00Z"), good),
            (("expiration", "soon"), good),
            (("usage-bootstrap-authentication", "false"), good),
            (("auth-extra-groups", "system:masters"), good),
            (("auth-extra-groups", "system:bootstrappers:"), good),
        ] {
            assert!(told(&[change], secret).is_err(), "{change:?}");
        }
    }

    #[test]
    fn looks() {
        assert_eq!(
            split("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for other in [
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "a.b.c",
            "",
        ] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
