//! Keys and certificates of a cluster: a CA, what it signs, and the key of service account
//! tokens. Files in `DATA_DIR/pki`, readable by their owner only, made when they are missing and
//! renewed when they are about to expire; names are kubeadm's. Several servers share the CA and the
//! token key, in a directory of their own; what the CA signs for one server is that server's.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

/// Lifetime of the CA in days.
const CA_DAYS: i64 = 3650;
/// Lifetime of what it signs in days.
const LEAF_DAYS: i64 = 365;
/// A certificate with less left, in days, is renewed at the next start.
const RENEW_DAYS: i64 = 90;

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

    /// A new credential, kept nowhere.
    pub fn issue(&self, subject: &Subject<'_>, now: Timestamp) -> Result<Credential, PkiError> {
        let made = |source| PkiError::Make {
            name: subject.name.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(made)?;
        let mut params = params(subject.name, subject.groups, now, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject.sans.is_empty() {
            true => vec![ExtendedKeyUsagePurpose::ClientAuth],
            false => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        for san in subject.sans {
            params.subject_alt_names.push(match san.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(san.as_str().try_into().map_err(made)?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok(Credential {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Whether a kept credential was signed by this CA, lasts, and serves all names.
    fn is_good(&self, kept: &Credential, subject: &Subject<'_>, now: Timestamp) -> bool {
        let Ok(certificate) = CertificateDer::from_pem_slice(kept.certificate.as_bytes()) else {
            return false;
        };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&certificate) else {
            return false;
        };
        let ca = CertificateDer::from_pem_slice(self.ca.certificate.as_bytes());
        let signed = ca.is_ok_and(|ca| {
            x509_parser::parse_x509_certificate(&ca)
                .is_ok_and(|(_, ca)| ca.subject() == parsed.issuer() && is_key_of(&ca, &parsed))
        });
        let left = parsed.validity().not_after.timestamp() - now.as_second();
        let served = names_of(&parsed);
        signed
            && left > RENEW_DAYS * 86_400
            && subject.sans.iter().all(|san| served.contains(&normal(san)))
    }

    /// The TLS of the server: its certificate, and the CA that clients' certificates must have;
    /// they need not have one.
    pub fn server_tls(&self, serving: &Credential) -> Result<Arc<ServerConfig>, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots()?);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|e| PkiError::Tls(e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| PkiError::Tls(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(serving)?, private_key(serving)?)
            .map_err(|e| PkiError::Tls(e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The TLS of a client that shows a certificate and trusts the CA.
    pub fn client_tls(&self, client: &Credential) -> Result<Arc<ClientConfig>, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| PkiError::Tls(e.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain(client)?, private_key(client)?)
            .map_err(|e| PkiError::Tls(e.to_string()))?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&self.ca)? {
            roots
                .add(certificate)
                .map_err(|e| PkiError::Tls(e.to_string()))?;
        }
        Ok(roots)
    }

    /// A kubeconfig for a client credential.
    pub fn kubeconfig(&self, server: &str, user: &str, client: &Credential) -> String {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (authority, certificate, key) = (
            encode(&self.ca.certificate),
            encode(&client.certificate),
            encode(&client.key),
        );
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: peapod\n\
             clusters:\n\
             - name: peapod\n  cluster:\n    server: {server}\n    certificate-authority-data: {authority}\n\
             contexts:\n\
             - name: peapod\n  context:\n    cluster: peapod\n    user: {user}\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }
}

fn params(name: &str, groups: &[&str], now: Timestamp, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    for group in groups {
        subject.push(DnType::OrganizationName, *group);
    }
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let day = |offset: i64| {
        let at = now + Span::new().hours(offset * 24);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    // A day of leeway for clocks that are behind.
    params.not_before = day(-1);
    params.not_after = day(days);
    params
}

fn make_ca(now: Timestamp) -> Result<Credential, PkiError> {
    let made = |source| PkiError::Make {
        name: "the CA".to_owned(),
        source,
    };
    let key = KeyPair::generate().map_err(made)?;
    let mut params = params("peapod-ca", &[], now, CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = params.self_signed(&key).map_err(made)?;
    Ok(Credential {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn service_account_keys(dir: &Path) -> Result<(String, String), PkiError> {
    let (private, public) = (dir.join("sa.key"), dir.join("sa.pub"));
    if let Some(pem) = read(&private)? {
        let key = KeyPair::from_pem(&pem).map_err(|e| content(&private, e))?;
        return Ok((pem, key.public_key_pem()));
    }
    let made = |source| PkiError::Make {
        name: "service account tokens".to_owned(),
        source,
    };
    let key = KeyPair::generate().map_err(made)?;
    let (private_pem, public_pem) = (key.serialize_pem(), key.public_key_pem());
    write(&private, &private_pem)?;
    write(&public, &public_pem)?;
    Ok((private_pem, public_pem))
}

/// Whether the key that signed a certificate is this CA's, as far as they name it.
fn is_key_of(ca: &X509Certificate<'_>, signed: &X509Certificate<'_>) -> bool {
    let own = ca
        .extensions()
        .iter()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
    let named = signed
        .extensions()
        .iter()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0),
            _ => None,
        });
    own.zip(named).is_none_or(|(own, named)| own == named)
}

/// The names that a certificate serves, addresses in their canonical text.
fn names_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes)
                    .ok()
                    .map(|b| IpAddr::from(b).to_string()),
                _ => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|b| IpAddr::from(b).to_string()),
            },
            _ => None,
        })
        .collect()
}

fn normal(san: &str) -> String {
    san.parse::<IpAddr>()
        .map_or_else(|_| san.to_owned(), |address| address.to_string())
}

fn chain(credential: &Credential) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(credential.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| PkiError::Tls(e.to_string()))
}

fn private_key(credential: &Credential) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(credential.key.as_bytes())
        .map_err(|e| PkiError::Tls(e.to_string()))
}

fn file(what: &'static str, path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

fn content(path: &Path, why: impl std::fmt::Display) -> PkiError {
    PkiError::Content {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(file("read", path, fault)),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let draft = path.with_extension("new");
    let written = (|| {
        let mut out = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, path)
    })();
    written.map_err(|fault| file("write", path, fault))
}

fn load(dir: &Path, name: &str) -> Result<Option<Credential>, PkiError> {
    let certificate = read(&dir.join(format!("{name}.crt")))?;
    let key = read(&dir.join(format!("{name}.key")))?;
    Ok(certificate
        .zip(key)
        .map(|(certificate, key)| Credential { certificate, key }))
}

fn store(dir: &Path, name: &str, made: Credential) -> Result<Credential, PkiError> {
    write(&dir.join(format!("{name}.key")), &made.key)?;
    write(&dir.join(format!("{name}.crt")), &made.certificate)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
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
