//! Keys and certificates as they are made: of the CA, by it, and the key of tokens.

use std::net::IpAddr;
use std::path::Path;

use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::files::{content, read, write};
use super::{Credential, Pki, PkiError, Subject};

/// Lifetime of the CA in days.
const CA_DAYS: i64 = 3650;
/// Lifetime of what it signs in days.
const LEAF_DAYS: i64 = 365;

// === impl Pki ===

impl Pki {
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

/// A new CA.
pub(super) fn make_ca(now: Timestamp) -> Result<Credential, PkiError> {
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

/// The key pair of service account tokens, in PEM, made if it is missing: private, public.
pub(super) fn service_account_keys(dir: &Path) -> Result<(String, String), PkiError> {
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
