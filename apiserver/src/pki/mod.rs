//! Keys and certificates of a cluster: a CA, what it signs, and the key of service account
//! tokens. Files in `DATA_DIR/pki`, readable by their owner only, made when they are missing and
//! renewed when they are about to expire; names are kubeadm's. Several servers share the CA and the
//! token key, in a directory of their own; what the CA signs for one server is that server's.

mod files;
mod kept;
mod made;
mod shown;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};

use files::{content, file, load, store};
use made::{make_ca, service_account_keys};

/// Why keys and certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// `read`, `write` or `lock`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no key or certificate.
    #[error("{path} is not usable: {why}; set it aside and start again to have it made anew")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate of {name}: {source}")]
    Make {
        /// Whose.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// TLS refuses what was made.
    #[error("TLS refuses the certificates: {0}")]
    Tls(String),
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM (PKCS #8).
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Common name: the user, or the server.
    pub name: &'a str,
    /// Organisations: the groups.
    pub groups: &'a [&'a str],
    /// DNS names and addresses at which it serves; empty for clients.
    pub sans: &'a [String],
}

/// The keys and certificates of a cluster.
pub struct Pki {
    dir: PathBuf,
    ca: Credential,
    issuer: Issuer<'static, KeyPair>,
    /// The key pair of service account tokens, in PEM: private, public.
    pub service_accounts: (String, String),
}

// === impl Pki ===

impl Pki {
    /// Opens the directory, and makes what is missing in it.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        Self::open_shared(dir, dir, now)
    }

    /// As [`Self::open`], with the CA and the token key in a directory that several servers have.
    pub fn open_shared(shared: &Path, dir: &Path, now: Timestamp) -> Result<Self, PkiError> {
        for dir in [shared, dir] {
            fs::create_dir_all(dir).map_err(|e| file("write", dir, e))?;
        }
        // One server makes what is missing; the others find it.
        let lock = fs::File::open(shared).and_then(|dir| dir.lock().map(|()| dir));
        let _lock = lock.map_err(|e| file("lock", shared, e))?;
        let ca = match load(shared, "ca")? {
            Some(ca) => ca,
            None => store(shared, "ca", make_ca(now)?)?,
        };
        let path = shared.join("ca.crt");
        let key = KeyPair::from_pem(&ca.key).map_err(|e| content(&shared.join("ca.key"), e))?;
        let issuer =
            Issuer::from_ca_cert_pem(&ca.certificate, key).map_err(|e| content(&path, e))?;
        let service_accounts = service_account_keys(shared)?;
        Ok(Self {
            dir: dir.to_owned(),
            ca,
            issuer,
            service_accounts,
        })
    }

    /// The certificate of the CA, in PEM: what clients must trust.
    pub fn ca_certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// The private key of the CA, in PEM: for who signs certificate requests.
    pub fn ca_key(&self) -> &str {
        &self.ca.key
    }

    /// The credential of a name, from its files, or made and kept there: again when it is about
    /// to expire, or when the names it serves have changed.
    pub fn credential(
        &self,
        file_name: &str,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Result<Credential, PkiError> {
        if let Some(kept) = load(&self.dir, file_name)?
            && self.is_good(&kept, subject, now)
        {
            return Ok(kept);
        }
        store(&self.dir, file_name, self.issue(subject, now)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Span;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_kept_private_and_renewed_when_due() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let pki = Pki::open(dir.path(), now).unwrap();
        let admin = Subject {
            name: "kubernetes-admin",
            groups: &["system:masters"],
            sans: &[],
        };
        let first = pki.credential("admin", &admin, now).unwrap();
        let mode = fs::metadata(dir.path().join("admin.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Pki::open(dir.path(), now).unwrap();
        assert_eq!(again.ca_certificate(), pki.ca_certificate());
        let same = again.credential("admin", &admin, now).unwrap();
        assert_eq!(same.certificate, first.certificate);
        let later = now + Span::new().hours(24 * 300);
        let renewed = again.credential("admin", &admin, later).unwrap();
        assert_ne!(renewed.certificate, first.certificate);
    }

    #[test]
    fn a_new_name_makes_a_new_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let pki = Pki::open(dir.path(), now).unwrap();
        let serve = |sans: &[&str]| {
            let sans: Vec<String> = sans.iter().map(|s| (*s).to_owned()).collect();
            let subject = Subject {
                name: "kube-apiserver",
                groups: &[],
                sans: &sans,
            };
            pki.credential("apiserver", &subject, now)
                .unwrap()
                .certificate
        };
        let first = serve(&["localhost", "127.0.0.1"]);
        assert_eq!(serve(&["127.0.0.1"]), first);
        assert_ne!(serve(&["localhost", "fd00::1"]), first);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), "x").unwrap();
        fs::write(dir.path().join("ca.key"), "x").unwrap();
        let Err(fault) = Pki::open(dir.path(), Timestamp::now()) else {
            panic!("a broken CA was accepted");
        };
        assert!(fault.to_string().contains("ca.key"), "{fault}");
    }
}
