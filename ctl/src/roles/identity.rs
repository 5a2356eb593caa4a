//! Who a node is to the API: its certificate and the CA, in files; and a client that shows the
//! certificate that is there now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::csr::{self, Wanted};
use super::link::{Connect, Link};
use crate::instance::Layout;
use crate::instance::settings::write_private;

/// A certificate is renewed when this part of its life is over, percent.
const RENEW_AT_PERCENT: i64 = 80;
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(30);

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// The files of an identity.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

// === impl Files ===

impl Files {
    /// Below a data directory.
    pub fn new(layout: &Layout) -> Self {
        Self {
            dir: layout.root().join("pki"),
        }
    }

    /// The CA that servers must have been certified by.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Certificate and key of the node as a client, in one file, so that they change as one.
    pub fn client(&self) -> PathBuf {
        self.dir.join("kubelet-client.pem")
    }

    /// Certificate and key of the node as a server.
    pub fn serving(&self) -> PathBuf {
        self.dir.join("kubelet.pem")
    }

    /// A kubeconfig of the node itself. It names the files, so that it is good after a renewal.
    pub fn kubeconfig(&self, server: &str, node: &str) -> String {
        let (ca, client) = (self.ca(), self.client());
        let (ca, client) = (ca.display(), client.display());
        let user = format!("system:node:{node}");
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: peapod\n\
             clusters:\n\
             - name: peapod\n  cluster:\n    server: {server}\n    certificate-authority: {ca}\n\
             contexts:\n\
             - name: peapod\n  context:\n    cluster: peapod\n    user: {user}\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate: {client}\n    client-key: {client}\n"
        )
    }

    /// Keeps the CA.
    pub fn write_ca(&self, pem: &str) -> Result<()> {
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot create {}", self.dir.display()))?;
        write_private(&self.ca(), pem.as_bytes())
    }

    /// The CA.
    pub fn read_ca(&self) -> Result<String> {
        let path = self.ca();
        std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; this machine has not joined a cluster: see `peapod join --help`",
                path.display()
            )
        })
    }
}

// === impl Pair ===

impl Pair {
    /// Writes both into one file.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_private(path, format!("{}{}", self.certificate, self.key).as_bytes())
    }

    /// Reads a file that [`Self::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let end = "-----END CERTIFICATE-----\n";
        let split = text.rfind(end).with_context(|| {
            format!(
                "{} holds no certificate; join the cluster anew",
                path.display()
            )
        })?;
        let (certificate, key) = text.split_at(split + end.len());
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// When the certificate is to be renewed.
    pub fn renew_at(&self) -> Result<Timestamp> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .ok()
            .context("the node's certificate is not PEM")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .context("the node's certificate is malformed")?;
        let validity = parsed.validity();
        let (from, to) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        Ok(renewal(from, to))
    }
}

/// When a certificate of this life, in seconds since the epoch, is to be renewed.
fn renewal(from: i64, to: i64) -> Timestamp {
    let at = from + (to - from) / 100 * RENEW_AT_PERCENT;
    Timestamp::from_second(at).unwrap_or(Timestamp::MAX)
}

/// A client that shows a certificate.
pub fn connect(server: &str, ca_pem: &str, pair: &Pair) -> Result<Client> {
    let mut config = base(server, ca_pem)?;
    let encode = |text: &str| STANDARD.encode(text);
    config.auth_info.client_certificate_data = Some(encode(&pair.certificate));
    config.auth_info.client_key_data = Some(encode(&pair.key).into());
    Client::try_from(config).context("cannot use the node's certificate")
}

/// What every connection to a server has in common.
pub fn base(server: &str, ca_pem: &str) -> Result<kube::Config> {
    let url: http::Uri = server
        .parse()
        .with_context(|| format!("{server} is no URL of an API server"))?;
    let mut config = kube::Config::new(url);
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca_pem.as_bytes()).collect();
    let roots = roots.ok().context("the cluster's CA is not PEM")?;
    config.root_cert = Some(roots.iter().map(|der| der.to_vec()).collect());
    Ok(config)
}

/// A node's identity, in use.
pub struct Identity {
    node: String,
    ca: String,
    files: Files,
    link: Arc<Link>,
}

// === impl Identity ===

impl Identity {
    /// Reads the files.
    pub fn open(layout: &Layout, node: &str, server: &str) -> Result<Self> {
        let files = Files::new(layout);
        let ca = files.read_ca()?;
        let connect = by(&ca, Pair::read(&files.client())?);
        Ok(Self {
            node: node.to_owned(),
            link: Link::open(server, &layout.servers(), connect)?,
            ca,
            files,
        })
    }

    /// A client that uses the certificate that is there when it asks, and asks a server that lives.
    pub fn client(&self) -> Client {
        self.link.client()
    }

    /// Follows which API servers there are; for ever.
    pub fn follow_servers(&self) -> impl Future<Output = Result<()>> + use<> {
        self.link.clone().follow()
    }

    /// The CA, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Renews the certificate whenever it is due; for ever. Of several processes with one
    /// identity one is to renew it, and the others wait for so long in addition: they find it
    /// renewed then, or do it themselves.
    pub async fn renew(self, grace: Duration) -> Result<()> {
        loop {
            let pair = Pair::read(&self.files.client())?;
            self.link.reconnect_by(by(&self.ca, pair.clone()))?;
            let due = pair.renew_at()?;
            sleep_until(due.saturating_add(SignedDuration::try_from(grace)?)?).await;
            if Pair::read(&self.files.client())? != pair {
                continue;
            }
            match csr::request(&self.client(), &Wanted::client(&self.node)).await {
                Ok(pair) => {
                    pair.write(&self.files.client())?;
                    tracing::info!("the node's client certificate was renewed");
                }
                Err(error) => {
                    let error = crate::terminal::sentence(&error);
                    tracing::warn!(%error, "cannot renew the node's client certificate");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Connects to any server of the cluster with a certificate.
fn by(ca_pem: &str, pair: Pair) -> Connect {
    let ca_pem = ca_pem.to_owned();
    Box::new(move |server| connect(server, &ca_pem, &pair))
}

/// Sleeps until a time of the calendar, however the machine's clock is set meanwhile.
pub async fn sleep_until(at: Timestamp) {
    const LONGEST_S: i64 = 3600;
    loop {
        let left = at.as_second() - Timestamp::now().as_second();
        if left <= 0 {
            return;
        }
        let seconds = left.min(LONGEST_S).unsigned_abs();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_before_it_ends() {
        assert_eq!(renewal(1000, 2000).as_second(), 1800);
        assert!(renewal(0, i64::MAX) > Timestamp::now());
    }

    #[test]
    fn certificate_and_key_change_as_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pair.pem");
        let block = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let pair = Pair {
            certificate: block("CERTIFICATE"),
            key: block("PRIVATE KEY"),
        };
        pair.write(&path).unwrap();
        assert_eq!(Pair::read(&path).unwrap(), pair);
    }
}
