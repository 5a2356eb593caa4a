//! How a machine that has only a token comes to trust a cluster and to be trusted by it: the
//! shape of bootstrap tokens, and the signatures over `cluster-info`, as kubeadm and upstream's
//! `bootstrapsigner` have them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Namespace of the ConfigMap that everybody may read.
pub const PUBLIC: &str = "kube-public";
/// Its name.
pub const CLUSTER_INFO: &str = "cluster-info";
/// Its key with the kubeconfig that names the server and its CA.
pub const KUBECONFIG: &str = "kubeconfig";
/// How its keys with signatures begin; the token's ID follows.
pub const SIGNATURE: &str = "jws-kubeconfig-";
/// Namespace of what only nodes and who is about to become one may read.
pub const SYSTEM: &str = "kube-system";
/// The ConfigMap there with what every node must know, as JSON under [`SETTINGS`].
pub const NODE_SETTINGS: &str = "peapod-cluster";
/// Its key.
pub const SETTINGS: &str = "settings";

/// A bootstrap token: `abcdef.0123456789abcdef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The public part: 6 of `a-z0-9`.
    pub id: String,
    /// The secret part: 16 of `a-z0-9`.
    pub secret: String,
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token must look like abcdef.0123456789abcdef")]
pub struct NoToken;

impl std::str::FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let (id, secret) = text.split_once('.').ok_or(NoToken)?;
        let plain = |part: &str, length: usize| {
            let mut bytes = part.bytes();
            part.len() == length && bytes.all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        };
        if !plain(id, 6) || !plain(secret, 16) {
            return Err(NoToken);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl Token {
    /// The signature over a text: a JWS (RFC 7515, HS256) without its payload. The same token and
    /// text give the same signature, so it is checked by being made again.
    pub fn sign(&self, text: &str) -> String {
        let header = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let header = encode(header.as_bytes());
        let signed = format!("{header}.{}", encode(text.as_bytes()));
        let signature = hmac_sha256(self.secret.as_bytes(), signed.as_bytes());
        format!("{header}..{}", encode(&signature))
    }
}

/// HMAC-SHA256 (RFC 2104) with a key of at most 64 bytes.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let pad = |with: u8| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        key.take(BLOCK).map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// The pin of a CA: `sha256:` and the digest of its public key (DER, SubjectPublicKeyInfo).
pub fn pin(public_key: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(public_key)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!(token.to_string(), "abcdef.0123456789abcdef");
        for wrong in [
            "",
            "abcdef",
            "abcdef.0123456789ABCDEF",
            "abc.0123456789abcdef",
        ] {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let made = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&made), expected);
    }

    #[test]
    fn a_signature_is_of_one_token_and_one_text() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let other: Token = "abcdef.0123456789abcdee".parse().unwrap();
        let signature = token.sign("text");
        assert!(signature.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.."));
        assert_eq!(signature, token.sign("text"));
        assert_ne!(signature, token.sign("texts"));
        assert_ne!(signature, other.sign("text"));
    }
}
