//! Service account tokens: JWTs signed by the cluster, bound to their account and, where asked,
//! to a pod, a secret or a node, with which they end.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::user::User;

/// The group of all service accounts.
pub const GROUP: &str = "system:serviceaccounts";

/// How many seconds clocks may differ.
const LEEWAY: i64 = 60;
/// How many tokens are remembered whose signature was found good.
const KNOWN_MAX: usize = 8192;

/// Signs and checks tokens.
pub struct Tokens {
    issuer: String,
    signing: EncodingKey,
    checking: DecodingKey,
    key_id: String,
    jwks: Value,
    /// Claims of tokens whose signature was found good, by the token's hash: checking a signature
    /// costs more than all the rest of a request. Times and what a token is bound to are looked at
    /// each time.
    known: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is malformed, expired, or not signed by this cluster.
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// It is over, or not yet begun.
    #[error("the token is not valid at this time")]
    Time,
    /// It is for others.
    #[error("the token's audiences {found:?} have none of {wanted:?}")]
    Audience {
        /// The token's.
        found: Vec<String>,
        /// Those that would be accepted.
        wanted: Vec<String>,
    },
}

/// A reference to an object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// The claims under `kubernetes.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    /// Namespace of the account.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Bound,
    /// The pod, when bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    /// The node, when bound to one, or to a pod on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// The secret, when bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
}

/// All claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who may accept it.
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// From when on it holds.
    pub nbf: i64,
    /// Who made it.
    pub iss: String,
    /// A number of its own.
    pub jti: String,
    /// `system:serviceaccount:NAMESPACE:NAME`
    pub sub: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub private: Private,
}

// === impl Tokens ===

impl Tokens {
    /// Tokens of an issuer, signed with ES256 by a key in PEM: PKCS #8 and SPKI.
    pub fn new(issuer: &str, private_pem: &str, public_pem: &str) -> Result<Self, TokenError> {
        let digest = Sha256::digest(public_pem.as_bytes());
        let key_id: String = digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            issuer: issuer.to_owned(),
            signing: EncodingKey::from_ec_pem(private_pem.as_bytes())?,
            checking: DecodingKey::from_ec_pem(public_pem.as_bytes())?,
            jwks: jwks(public_pem, &key_id),
            key_id,
            known: Mutex::default(),
        })
    }

    /// The public key as a set of JSON Web Keys (RFC 7517): how others check these tokens.
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// Who signs; the default audience too.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A signed token for an account. `audiences` empty means the API server's own.
    pub fn sign(
        &self,
        private: Private,
        audiences: Vec<String>,
        now: Timestamp,
        seconds: i64,
        jti: String,
    ) -> Result<String, TokenError> {
        let now = now.as_second();
        let sub = subject(&private.namespace, &private.serviceaccount.name);
        let claims = Claims {
            aud: match audiences.is_empty() {
                true => vec![self.issuer.clone()],
                false => audiences,
            },
            exp: now + seconds,
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti,
            sub,
            private,
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        Ok(encode(&header, &claims, &self.signing)?)
    }

    /// The claims of a token that holds at `now`, for one of `audiences`. What it is bound to must
    /// still be looked up.
    pub fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Arc<Claims>, TokenError> {
        let claims = self.signed(token)?;
        let now = now.as_second();
        // Clocks of other machines may differ a little.
        if claims.exp + LEEWAY < now || claims.nbf - LEEWAY > now {
            return Err(TokenError::Time);
        }
        if !claims.aud.iter().any(|one| audiences.contains(one)) {
            return Err(TokenError::Audience {
                found: claims.aud.clone(),
                wanted: audiences.to_vec(),
            });
        }
        Ok(claims)
    }

    /// The claims of a token that this cluster signed.
    fn signed(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.known.lock().get(&hash) {
            return Ok(claims.clone());
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_aud = false;
        validation.validate_exp = false;
        let claims: Claims = decode(token, &self.checking, &validation)?.claims;
        let claims = Arc::new(claims);
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash, claims.clone());
        Ok(claims)
    }
}

/// The point of a P-256 key in SPKI is its last 65 bytes: 4, x, y (RFC 5480).
fn jwks(public_pem: &str, key_id: &str) -> Value {
    let body: String = public_pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(body).unwrap_or_default();
    let point = der.len().checked_sub(64).map(|at| der[at..].split_at(32));
    let (x, y) = point.unwrap_or_default();
    json!({"keys": [{
        "use": "sig",
        "kty": "EC",
        "kid": key_id,
        "crv": "P-256",
        "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(x),
        "y": URL_SAFE_NO_PAD.encode(y),
    }]})
}

/// The user name of an account.
pub fn subject(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

// === impl Claims ===

impl Claims {
    /// Who the token speaks for.
    pub fn user(&self) -> User {
        let namespace = &self.private.namespace;
        let mut extra = vec![(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("JTI={}", self.jti)],
        )];
        for (what, bound) in [("pod", &self.private.pod), ("node", &self.private.node)] {
            if let Some(bound) = bound {
                let key = |part| format!("authentication.kubernetes.io/{what}-{part}");
                extra.push((key("name"), vec![bound.name.clone()]));
                extra.push((key("uid"), vec![bound.uid.clone()]));
            }
        }
        User::with(
            &self.sub,
            &self.private.serviceaccount.uid,
            [GROUP.to_owned(), format!("{GROUP}:{namespace}")],
            extra,
        )
    }

    /// The objects that must exist, with these UIDs, for the token to hold: (resource, object).
    pub fn bindings(&self) -> Vec<(&'static str, &Bound)> {
        let private = &self.private;
        let mut all = vec![("serviceaccounts", &private.serviceaccount)];
        all.extend(private.pod.as_ref().map(|bound| ("pods", bound)));
        all.extend(private.secret.as_ref().map(|bound| ("secrets", bound)));
        // The node of a pod's token is for the record; only a token of a node ends with it.
        if private.pod.is_none() {
            all.extend(private.node.as_ref().map(|bound| ("nodes", bound)));
        }
        all
    }
}

/// The object reference of a `TokenRequest`, as claims.
pub fn bound(object: &Value) -> Option<Bound> {
    Some(Bound {
        name: object["metadata"]["name"].as_str()?.to_owned(),
        uid: object["metadata"]["uid"].as_str()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::KeyPair;

    fn tokens() -> Tokens {
        let key = KeyPair::generate().unwrap();
        Tokens::new(
            "https://issuer",
            &key.serialize_pem(),
            &key.public_key_pem(),
        )
        .unwrap()
    }

    fn private() -> Private {
        Private {
            namespace: "default".into(),
            serviceaccount: Bound {
                name: "web".into(),
                uid: "u1".into(),
            },
            pod: Some(Bound {
                name: "web-1".into(),
                uid: "u2".into(),
            }),
            node: None,
            secret: None,
        }
    }

    #[test]
    fn a_token_speaks_for_its_account() {
        let tokens = tokens();
        let now = Timestamp::now();
        let token = tokens
            .sign(private(), vec![], now, 600, "j".into())
            .unwrap();
        let here = ["https://issuer".into()];
        let claims = tokens.check(&token, &here, now).unwrap();
        assert_eq!(tokens.check(&token, &here, now).unwrap(), claims);
        let later = now + std::time::Duration::from_secs(700);
        assert!(
            tokens.check(&token, &here, later).is_err(),
            "known, and over"
        );
        assert_eq!(claims.user().name(), "system:serviceaccount:default:web");
        assert!(claims.user().is_in("system:serviceaccounts:default"));
        assert_eq!(claims.bindings().len(), 2);
    }

    #[test]
    fn others_tokens_old_ones_and_other_audiences_are_refused() {
        let (ours, theirs) = (tokens(), tokens());
        let here = ["https://issuer".to_owned()];
        let now = Timestamp::now();
        let sign =
            |tokens: &Tokens, now| tokens.sign(private(), vec![], now, 60, "j".into()).unwrap();
        assert!(ours.check(&sign(&theirs, now), &here, now).is_err());
        let long_ago = Timestamp::from_second(1_000_000).unwrap();
        assert!(ours.check(&sign(&ours, long_ago), &here, now).is_err());
        let theirs = ["vault".to_owned()];
        assert!(ours.check(&sign(&ours, now), &theirs, now).is_err());
        assert!(ours.check("garbage", &here, now).is_err());
    }

    #[test]
    fn others_check_tokens_by_the_published_key() {
        let tokens = tokens();
        let now = Timestamp::now();
        let token = tokens.sign(private(), vec![], now, 600, "j".into());
        let keys: jsonwebtoken::jwk::JwkSet =
            serde_json::from_value(tokens.jwks().clone()).unwrap();
        let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        let read: Claims = decode(token.unwrap(), &key, &validation).unwrap().claims;
        assert_eq!(read.sub, "system:serviceaccount:default:web");
    }
}
