//! What a further server must have, sealed for its way through the cluster: the keys never lie
//! open in the store, whose readers could be anybody otherwise. Who opens it has the key from the
//! operator, beside the token.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// What a further server must have.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The cluster's keys: files of the PKI directory.
    pub keys: BTreeMap<String, String>,
    /// URLs of etcd's members.
    pub etcd_urls: Vec<String>,
    /// What all keys in etcd begin with.
    pub etcd_prefix: String,
    /// What proves who is who there: files, none where etcd speaks in the clear.
    pub etcd_files: BTreeMap<String, String>,
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// UDP port of VXLAN between nodes.
    pub vxlan_port: u16,
}

/// The key of one sealed bundle.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

// === impl SealKey ===

impl SealKey {
    /// A new one.
    pub fn random() -> Result<Self> {
        let mut key = [0; 32];
        fill(&mut key)?;
        Ok(Self(key))
    }

    /// Seals a bundle; the nonce goes before it.
    pub fn seal(&self, bundle: &Bundle) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(bundle)?;
        let mut nonce = [0; NONCE_LEN];
        fill(&mut nonce)?;
        let key = self.cipher()?;
        let sealed = key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut text,
        );
        sealed.ok().context("the cluster's keys cannot be sealed")?;
        Ok([&nonce[..], &text].concat())
    }

    /// Opens what was sealed with the same key.
    pub fn open(&self, sealed: &[u8]) -> Result<Bundle> {
        let Some((nonce, text)) = sealed.split_first_chunk::<NONCE_LEN>() else {
            bail!("what the cluster has for this server is damaged; make another token");
        };
        let mut text = text.to_vec();
        let key = self.cipher()?;
        let opened = key.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::empty(),
            &mut text,
        );
        let opened = opened.ok().context(
            "--certificate-key does not open what the cluster has for this server; is it the one \
             that was printed with the token?",
        )?;
        serde_json::from_slice(opened).context(
            "the cluster's server is of another version than this one; use the same on all",
        )
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0);
        Ok(LessSafeKey::new(key.ok().context("a key of this length")?))
    }
}

impl fmt::Display for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Keys are not for logs.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl FromStr for SealKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.map(Self).ok_or_else(|| {
            "it must be what `peapod token create --server` printed, 43 characters".to_owned()
        })
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    let filled = SystemRandom::new().fill(bytes);
    filled.ok().context("this machine has no random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            keys: [("ca.key".to_owned(), "secret".to_owned())].into(),
            etcd_urls: vec!["https://10.0.0.1:2379".to_owned()],
            etcd_prefix: "/registry".to_owned(),
            etcd_files: BTreeMap::new(),
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            vxlan_port: 4789,
        }
    }

    #[test]
    fn only_the_key_opens() {
        let key = SealKey::random().unwrap();
        let sealed = key.seal(&bundle()).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("secret"));
        let told: SealKey = key.to_string().parse().unwrap();
        assert!(told.open(&sealed).unwrap() == bundle());
        let refused = |key: &SealKey, sealed: &[u8]| key.open(sealed).err().unwrap().to_string();
        let other = SealKey::random().unwrap();
        assert!(refused(&other, &sealed).contains("--certificate-key"));
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(refused(&key, &changed).contains("--certificate-key"));
        assert!(refused(&key, b"short").contains("damaged"));
        // The same is never sealed twice alike.
        assert_ne!(key.seal(&bundle()).unwrap(), sealed);
    }

    #[test]
    fn keys_are_read() {
        for wrong in ["", "abc", "====", &"a".repeat(44)] {
            assert!(wrong.parse::<SealKey>().is_err(), "{wrong}");
        }
        let key = SealKey::random().unwrap();
        assert_eq!(format!("{key:?}"), "SealKey(..)");
        assert_eq!(key.to_string().len(), 43);
    }
}
