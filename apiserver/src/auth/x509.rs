//! Users by client certificate: the subject's common name is the user, its organisations are the
//! groups. That the certificate is signed by the cluster's CA is checked by TLS before.

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::parse_x509_certificate;

use super::user::User;

/// The user of a verified client certificate; `None` when it names none.
pub fn user(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization();
    let groups = groups.filter_map(|group| group.as_str().ok());
    let digest = Sha256::digest(certificate);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = (
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={digest}")],
    );
    Some(User::with(name, "", groups, vec![id]))
}
