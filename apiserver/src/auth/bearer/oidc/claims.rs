//! From the claims of a token, whose signature was found good, to its user. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::config::{Jwt, Prefixed};
use crate::auth::user::User;

/// Seconds by which the issuer's clock may differ.
const LEEWAY: i64 = 60;

/// Whom a token speaks for, and its audiences among those that the issuer's tokens must be for.
pub fn user(jwt: &Jwt, claims: &Value, now: Timestamp) -> Result<User, String> {
    if claims["iss"] != jwt.issuer.url {
        return Err("the token is of another issuer".to_owned());
    }
    let time = |claim: &str| claims[claim].as_f64().map(|seconds| seconds as i64);
    let now = now.as_second();
    let until = time("exp").ok_or("the token has no exp")?;
    if until + LEEWAY < now || time("nbf").is_some_and(|from| from - LEEWAY > now) {
        return Err("the token is not valid at this time".to_owned());
    }
    let audiences = texts(&claims["aud"]);
    if !audiences
        .iter()
        .any(|one| jwt.issuer.audiences.contains(one))
    {
        return Err(format!(
            "the token's audiences {audiences:?} have none that is asked for"
        ));
    }
    for rule in &jwt.claim_validation_rules {
        if claims[&rule.claim] != rule.required_value {
            return Err(format!(
                "the claim {:?} is not {:?}",
                rule.claim, rule.required_value
            ));
        }
    }
    let name = name(&jwt.claim_mappings.username, claims)?;
    let groups = jwt.claim_mappings.groups.iter();
    let groups = groups.flat_map(|groups| prefixed(groups, claims));
    let uid = jwt.claim_mappings.uid.as_ref();
    let uid = uid.and_then(|uid| claims[&uid.claim].as_str());
    let groups: Vec<String> = groups.collect();
    let reserved = |text: &String| text.starts_with("system:");
    if reserved(&name) || groups.iter().any(reserved) {
        return Err("the token claims a name of the system's own".to_owned());
    }
    Ok(User::with(
        &name,
        uid.unwrap_or_default(),
        groups,
        Vec::new(),
    ))
}

fn name(mapping: &Prefixed, claims: &Value) -> Result<String, String> {
    let claim = &mapping.claim;
    let name = claims[claim].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("the token has no {claim:?}"));
    }
    if claim == "email" && claims.get("email_verified").is_some_and(|is| *is != true) {
        return Err("the token's email is not verified".to_owned());
    }
    Ok(format!("{}{name}", mapping.prefix))
}

fn prefixed(mapping: &Prefixed, claims: &Value) -> Vec<String> {
    let all = texts(&claims[&mapping.claim]).into_iter();
    all.map(|one| format!("{}{one}", mapping.prefix)).collect()
}

/// A claim that is one text or several.
fn texts(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Authentication, tests::GOOD};
    use super::*;
    use serde_json::json;

    fn told(change: impl FnOnce(&mut Value)) -> Result<User, String> {
        let mut claims = json!({
            "iss": "https://id.example.com", "aud": ["x", "kubernetes"], "sub": "jane", "exp": 1000,
            "hd": "example.com", "roles": ["a", "b"], "uid": "7",
        });
        change(&mut claims);
        let config = Authentication::parse(GOOD).unwrap();
        user(
            &config.jwt[0],
            &claims,
            Timestamp::from_second(900).unwrap(),
        )
    }

    #[test]
    fn claims_become_a_user() {
        let jane = told(|_| ()).unwrap();
        assert_eq!((jane.name(), jane.uid()), ("oidc:jane", "7"));
        assert_eq!(jane.groups(), ["a", "b", "system:authenticated"]);
        let one = told(|claims| claims["roles"] = json!("a")).unwrap();
        assert_eq!(one.groups(), ["a", "system:authenticated"]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (claim, value) in [
            ("iss", json!("https://other")),
            ("aud", json!("x")),
            ("exp", json!(800)),
            ("exp", Value::Null),
            ("nbf", json!(1000)),
            ("hd", json!("other.com")),
            ("sub", json!("")),
            ("sub", json!(5)),
            ("roles", json!(["system:masters"])),
        ] {
            let outcome = told(|claims| claims[claim] = value.clone());
            assert!(outcome.is_err(), "{claim} {value}");
        }
    }
}
