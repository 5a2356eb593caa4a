//! Who may ask: certificates of the cluster's CA that are the API server's, or an
//! administrator's.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::ServerConfig;

/// The API server, when it asks a node.
const CLIENT_NAME: &str = "kube-apiserver-kubelet-client";
/// Administrators.
const ADMINS: &str = "system:masters";

/// The TLS configuration, or the sentence of what is wrong with the certificates.
pub fn config(config: &ServerConfig) -> Result<Arc<rustls::ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.client_ca_pem, "client CA")? {
        roots
            .add(certificate)
            .map_err(|e| format!("the client CA is not usable: {e}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("the client CA is not usable: {e}"))?;
    let serving = config.serving.borrow().clone();
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes())
        .map_err(|e| format!("the serving key is not usable: {e}"))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&serving.cert_pem, "serving certificate")?, key)
        .map_err(|e| format!("the serving certificate is not usable: {e}"))?;
    // Upgrades are of HTTP/1.1.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| format!("the {what} is not PEM: {e}"))?;
    if all.is_empty() {
        return Err(format!("the {what} holds no certificate"));
    }
    Ok(all)
}

/// Whether the other side of a connection may ask.
pub fn allowed(connection: &rustls::ServerConnection) -> bool {
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    leaf.is_some_and(|leaf| is_allowed(leaf))
}

fn is_allowed(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let subject = certificate.subject();
    let named = subject
        .iter_common_name()
        .any(|name| name.as_str() == Ok(CLIENT_NAME));
    let admin = subject
        .iter_organization()
        .any(|group| group.as_str() == Ok(ADMINS));
    named || admin
}
