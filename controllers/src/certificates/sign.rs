//! Signing with the cluster's CA. Its only randomness is the serial number.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rand::Rng;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

/// The longest lifetime of a certificate, and that of one whose request names none: a year.
const LIFETIME_S: u64 = 365 * 24 * 3600;
/// Leeway for clocks that are behind.
const BACKDATE_S: u64 = 300;

/// The cluster's CA.
pub struct Authority(Issuer<'static, KeyPair>);

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The CA's own certificate or key.
    #[error("the CA's certificate or key cannot be used: {0}")]
    Authority(rcgen::Error),
    /// The request.
    #[error("the request cannot be signed: {0}")]
    Request(#[from] rcgen::Error),
    /// The request is no text.
    #[error("the request is no PEM")]
    NotText,
    /// A usage that no certificate can have.
    #[error("{0:?} is no usage that this signer knows")]
    Usage(String),
}

impl Authority {
    /// A CA by its certificate and key, both in PEM.
    pub fn new(certificate: &str, key: &str) -> Result<Self, SignError> {
        let key = KeyPair::from_pem(key).map_err(SignError::Authority)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key);
        Ok(Self(issuer.map_err(SignError::Authority)?))
    }
}

/// The certificate, in PEM, for an approved request: its subject, names and key, with the usages
/// and the lifetime of the spec, and nothing else that it asks for.
pub fn sign(
    authority: &Authority,
    spec: &CertificateSigningRequestSpec,
    now: Timestamp,
) -> Result<String, SignError> {
    let pem = std::str::from_utf8(&spec.request.0).map_err(|_| SignError::NotText)?;
    let mut request = CertificateSigningRequestParams::from_pem(pem)?;
    let params = &mut request.params;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = Vec::new();
    params.extended_key_usages = Vec::new();
    for usage in spec.usages.iter().flatten() {
        match usage_of(usage) {
            Some(Usage::Key(usage)) => params.key_usages.push(usage),
            Some(Usage::Extended(usage)) => params.extended_key_usages.push(usage),
            None => return Err(SignError::Usage(usage.clone())),
        }
    }
    let asked = spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
    let lifetime = asked.unwrap_or(LIFETIME_S).min(LIFETIME_S);
    let since_1970 = u64::try_from(now.as_second()).unwrap_or(0);
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(since_1970.saturating_sub(BACKDATE_S));
    params.not_after = at(since_1970 + lifetime);
    let mut serial: [u8; 16] = rand::rng().random();
    // A serial number is positive (RFC 5280, 4.1.2.2).
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(request.signed_by(&authority.0)?.pem())
}

enum Usage {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn usage_of(name: &str) -> Option<Usage> {
    use ExtendedKeyUsagePurpose as Extended;
    use KeyUsagePurpose as Key;
    Some(match name {
        "signing" | "digital signature" => Usage::Key(Key::DigitalSignature),
        "content commitment" => Usage::Key(Key::ContentCommitment),
        "key encipherment" => Usage::Key(Key::KeyEncipherment),
        "data encipherment" => Usage::Key(Key::DataEncipherment),
        "key agreement" => Usage::Key(Key::KeyAgreement),
        "client auth" => Usage::Extended(Extended::ClientAuth),
        "server auth" => Usage::Extended(Extended::ServerAuth),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::pem;
    use super::*;
    use k8s_openapi::ByteString;
    use rcgen::{BasicConstraints, CertificateParams};
    use x509_parser::pem::Pem;

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority::new(&certificate.pem(), &key.serialize_pem()).unwrap()
    }

    fn spec(
        request: String,
        usages: &[&str],
        seconds: Option<i32>,
    ) -> CertificateSigningRequestSpec {
        CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            usages: Some(usages.iter().map(|one| (*one).to_owned()).collect()),
            expiration_seconds: seconds,
            ..Default::default()
        }
    }

    #[test]
    fn a_certificate_is_what_was_asked_for_and_no_more() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let asked = spec(
            pem("jane", &["team"], &[]),
            &["client auth", "digital signature"],
            Some(600),
        );
        let signed = sign(&authority(), &asked, now).unwrap();
        let block = Pem::iter_from_buffer(signed.as_bytes())
            .next()
            .unwrap()
            .unwrap();
        let certificate = block.parse_x509().unwrap();
        let subject = certificate.subject();
        assert_eq!(
            subject.iter_common_name().next().unwrap().as_str(),
            Ok("jane")
        );
        assert_eq!(
            subject.iter_organization().next().unwrap().as_str(),
            Ok("team")
        );
        let validity = certificate.validity();
        assert_eq!(validity.not_after.timestamp(), now.as_second() + 600);
        assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(!certificate.is_ca());
    }

    #[test]
    fn lifetimes_end_after_a_year_at_most() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for asked in [None, Some(i32::MAX)] {
            let asked = spec(pem("jane", &[], &[]), &["client auth"], asked);
            let signed = sign(&authority(), &asked, now).unwrap();
            let block = Pem::iter_from_buffer(signed.as_bytes())
                .next()
                .unwrap()
                .unwrap();
            let until = block.parse_x509().unwrap().validity().not_after.timestamp();
            assert_eq!(until, now.as_second() + LIFETIME_S as i64);
        }
        let odd = spec(pem("jane", &[], &[]), &["crl sign"], None);
        assert!(matches!(
            sign(&authority(), &odd, now),
            Err(SignError::Usage(_))
        ));
        let garbage = spec("x".to_owned(), &["client auth"], None);
        assert!(sign(&authority(), &garbage, now).is_err());
    }
}
