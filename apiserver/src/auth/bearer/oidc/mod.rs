//! Tokens of OIDC issuers: JWTs checked by the keys that the issuer publishes.
//!
//! [`config`] says which issuers are trusted, [`claims`] makes a user of a token. Here are the
//! keys: fetched when a token needs one that is not known, never more often than
//! [`FETCH_EVERY`], kept until then; an issuer that does not answer refuses its own tokens only.

pub mod claims;
pub mod config;

use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::auth::user::User;
use config::Jwt;

/// Shortest time between two fetches of an issuer's keys.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// How long an issuer may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a document.
const DOCUMENT_MAX: usize = 1 << 20;
/// The signatures that are taken: none by a shared secret.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The issuers.
pub struct Issuers(Vec<Issuer>);

/// An issuer and its keys.
struct Issuer {
    jwt: Jwt,
    http: reqwest::Client,
    keys: ArcSwap<JwkSet>,
    /// When the keys were last asked for; held while they are.
    fetched: Mutex<Option<Instant>>,
}

/// Why an issuer cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the issuer {url}: {source}")]
pub struct IssuerError {
    url: String,
    source: reqwest::Error,
}

// === impl Issuers ===

impl Issuers {
    /// The issuers of a configuration. Nothing is fetched before a token is shown.
    pub fn new(all: &[Jwt]) -> Result<Self, IssuerError> {
        let issuers = all.iter().map(|jwt| {
            let http = client(&jwt.issuer.certificate_authority);
            let http = http.map_err(|source| IssuerError {
                url: jwt.issuer.url.clone(),
                source,
            });
            Ok(Issuer {
                jwt: jwt.clone(),
                http: http?,
                keys: ArcSwap::from_pointee(JwkSet { keys: Vec::new() }),
                fetched: Mutex::new(None),
            })
        });
        issuers.collect::<Result<_, _>>().map(Self)
    }

    /// Whom a token speaks for; `None` when it is of none of the issuers.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Option<Result<User, String>> {
        if self.0.is_empty() {
            return None;
        }
        let claims: Value = jsonwebtoken::dangerous::insecure_decode(token).ok()?.claims;
        let issuer = claims["iss"].as_str()?;
        let issuer = self.0.iter().find(|one| one.jwt.issuer.url == issuer)?;
        Some(issuer.authenticate(token, now).await)
    }
}

// === impl Issuer ===

impl Issuer {
    async fn authenticate(&self, token: &str, now: Timestamp) -> Result<User, String> {
        let claims = match self.signed(token) {
            Ok(claims) => claims,
            // The keys may have changed.
            Err(_) if self.fetch().await? => self.signed(token)?,
            Err(fault) => return Err(fault),
        };
        claims::user(&self.jwt, &claims, now)
    }

    /// The claims of a token, if one of the known keys signed it.
    fn signed(&self, token: &str) -> Result<Value, String> {
        let header = decode_header(token).map_err(|fault| fault.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("signatures by {:?} are not taken", header.alg));
        }
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let keys = self.keys.load();
        let fits = |id: &Option<String>| header.kid.is_none() || *id == header.kid;
        let keys = keys.keys.iter().filter(|key| fits(&key.common.key_id));
        for key in keys {
            let Ok(key) = DecodingKey::from_jwk(key) else {
                continue;
            };
            if let Ok(data) = decode::<Value>(token, &key, &validation) {
                return Ok(data.claims);
            }
        }
        Err("none of the issuer's keys signed the token".to_owned())
    }

    /// Fetches the keys, unless that was done just now; says whether it did.
    async fn fetch(&self) -> Result<bool, String> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < FETCH_EVERY) {
            return Ok(false);
        }
        *fetched = Some(Instant::now());
        let document: Value = self.get(&self.jwt.discovery()).await?;
        if document["issuer"] != self.jwt.issuer.url {
            return Err(format!(
                "the discovery document is of another issuer: {}",
                document["issuer"]
            ));
        }
        let keys = document["jwks_uri"].as_str().unwrap_or_default();
        let keys: JwkSet = self.get(keys).await?;
        self.keys.store(keys.into());
        Ok(true)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let fault = |why: &dyn std::fmt::Display| format!("cannot get {url}: {why}");
        let answer = self.http.get(url).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let mut answer = answer.map_err(|why| fault(&why))?;
        let mut document = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|why| fault(&why))? {
            if document.len() + piece.len() > DOCUMENT_MAX {
                return Err(fault(&"it is larger than 1 MiB"));
            }
            document.extend_from_slice(&piece);
        }
        serde_json::from_slice(&document).map_err(|why| fault(&why))
    }
}

fn client(ca: &str) -> Result<reqwest::Client, reqwest::Error> {
    // reqwest takes the process's provider; whoever was first has set the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::limited(3));
    if !ca.is_empty() {
        let roots = reqwest::Certificate::from_pem_bundle(ca.as_bytes())?;
        builder = builder.tls_certs_only(roots);
    }
    builder.build()
}
