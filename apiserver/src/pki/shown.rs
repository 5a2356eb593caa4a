//! What is made of credentials: TLS of servers and clients, kubeconfigs.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Credential, Pki, PkiError};

// === impl Pki ===

impl Pki {
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

fn chain(credential: &Credential) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(credential.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| PkiError::Tls(e.to_string()))
}

fn private_key(credential: &Credential) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(credential.key.as_bytes())
        .map_err(|e| PkiError::Tls(e.to_string()))
}
