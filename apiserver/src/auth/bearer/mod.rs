//! Bearer tokens: whom they speak for.
//!
//! Four kinds, told apart by their looks: of the static file, of service accounts, of machines
//! that are to become nodes, of OIDC issuers. Each kind is checked by a pure core; what it needs
//! of the store is looked up here.

pub mod bootstrap;
pub mod file;
pub mod oidc;

use jiff::Timestamp;
use serde_json::Value;

use file::{FileError, StaticTokens};
use oidc::config::{Authentication, ConfigError};
use oidc::{IssuerError, Issuers};

use super::tokens::Bound;
use super::user::User;
use crate::api::Api;
use crate::config::Config;
use crate::registry::value;
use crate::storage;

/// Whose tokens are taken, beside those of service accounts.
pub struct Bearers {
    file: StaticTokens,
    issuers: Issuers,
    anonymous: bool,
    authentication: Authentication,
}

/// Why tokens cannot be checked as configured.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// The file of static tokens.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration of the issuers.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
}

// === impl Bearers ===

impl Bearers {
    /// As configured.
    pub fn new(config: &Config) -> Result<Self, BearerError> {
        let file = config.token_file.as_deref().map(StaticTokens::read);
        let authentication = config.authentication_file.as_deref();
        let authentication = authentication.map(Authentication::read);
        let authentication = authentication.transpose()?.unwrap_or_default();
        Ok(Self {
            file: file.transpose()?.unwrap_or_default(),
            issuers: Issuers::new(&authentication.jwt)?,
            anonymous: config.anonymous,
            authentication,
        })
    }

    /// Whether who proves nothing may ask for a path.
    pub fn allows_anonymous(&self, path: &str) -> bool {
        self.anonymous && self.authentication.allows_anonymous(path)
    }
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Who.
    pub user: User,
    /// Of the audiences that were asked for, those that the token is for.
    pub audiences: Vec<String>,
}

/// Finds out whom a token speaks for, if it is for one of `audiences`; empty for this server.
pub async fn authenticate(api: &Api, token: &str, audiences: &[String]) -> Result<Bearer, String> {
    let own = [api.tokens.issuer().to_owned()];
    let wanted = match audiences.is_empty() {
        true => &own,
        false => audiences,
    };
    // What is no JWT says nothing of audiences: it is for this server.
    let for_us = |user| {
        let audiences: Vec<String> = wanted
            .iter()
            .filter(|one| **one == own[0])
            .cloned()
            .collect();
        match audiences.is_empty() {
            true => Err("the token is for this server only".to_owned()),
            false => Ok(Bearer { user, audiences }),
        }
    };
    if let Some(user) = api.bearers.file.find(token) {
        return for_us(user);
    }
    if let Some((id, secret)) = bootstrap::split(token) {
        let found = get(
            api,
            "secrets",
            bootstrap::NAMESPACE,
            &bootstrap::secret_name(id),
        );
        let found = found.ok_or("there is no such bootstrap token")?;
        return for_us(bootstrap::user(&found, id, secret, api.now())?);
    }
    if let Some(user) = api.bearers.issuers.authenticate(token, api.now()).await {
        return for_us(user?);
    }
    account(api, token, wanted, api.now())
}

fn account(api: &Api, token: &str, wanted: &[String], now: Timestamp) -> Result<Bearer, String> {
    let claims = api
        .tokens
        .check(token, wanted, now)
        .map_err(|fault| fault.to_string())?;
    for (plural, bound) in claims.bindings() {
        if !exists(api, plural, &claims.private.namespace, bound) {
            return Err(format!("{plural} {:?} is gone", bound.name));
        }
    }
    let audiences = wanted.iter().filter(|one| claims.aud.contains(one));
    Ok(Bearer {
        user: claims.user(),
        audiences: audiences.cloned().collect(),
    })
}

/// Whether an object that a token is bound to is still the same.
fn exists(api: &Api, plural: &str, namespace: &str, bound: &Bound) -> bool {
    let Some(resource) = api.registry.find("", "v1", plural) else {
        return false;
    };
    let namespace = match resource.kind.is_namespaced() {
        true => namespace,
        false => "",
    };
    let key = storage::key(&resource.kind, namespace, &bound.name).ok();
    let found = key.and_then(|key| api.store.get(&key));
    found.is_some_and(|entry| *entry.meta.uid == *bound.uid)
}

fn get(api: &Api, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let resource = api.registry.find("", "v1", plural)?;
    let key = storage::key(&resource.kind, namespace, name).ok()?;
    let object: Value = serde_json::from_slice(&api.store.get(&key)?.value).ok()?;
    value::at(&object, "metadata.deletionTimestamp")
        .is_none()
        .then_some(object)
}
