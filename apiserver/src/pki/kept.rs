//! Whether a certificate that is kept still serves.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::{Credential, Pki, Subject};

/// A certificate with less left, in days, is renewed at the next start.
const RENEW_DAYS: i64 = 90;

// === impl Pki ===

impl Pki {
    /// Whether a kept credential was signed by this CA, lasts, and serves all names.
    pub(super) fn is_good(&self, kept: &Credential, subject: &Subject<'_>, now: Timestamp) -> bool {
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
