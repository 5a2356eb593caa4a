//! What a PKCS #10 request asks for, and whether the signers of the cluster sign such. Pure.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, Pem};

/// Before the name of a node, in the name of its user.
const NODE: &str = "system:node:";
/// The group of nodes.
const NODES: &str = "system:nodes";

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The common name: the user, or the server.
    pub name: String,
    /// The organisations: the groups.
    pub groups: Vec<String>,
    /// How many names and addresses it is to serve.
    pub servers: usize,
    /// Those names and addresses, as a Node's status has them.
    pub names: Vec<String>,
    /// How many mail addresses, URIs and others it is to be for.
    pub others: usize,
}

impl Asked {
    /// Reads a request in PEM.
    pub fn of(pem: &[u8]) -> Result<Self, String> {
        let fault = |what: &str| format!("the request is malformed: {what}");
        let block = Pem::iter_from_buffer(pem).next();
        let block = block.and_then(Result::ok).ok_or_else(|| fault("no PEM"))?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|_| fault("no PKCS #10"))?;
        let subject = &request.certification_request_info.subject;
        let texts = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            name.as_str().unwrap_or_default().to_owned()
        };
        let mut asked = Self {
            name: subject
                .iter_common_name()
                .next()
                .map(texts)
                .unwrap_or_default(),
            groups: subject.iter_organization().map(texts).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(name) => {
                            asked.servers += 1;
                            asked.names.push((*name).to_owned());
                        }
                        GeneralName::IPAddress(bytes) => {
                            asked.servers += 1;
                            asked.names.push(address(bytes));
                        }
                        _ => asked.others += 1,
                    }
                }
            }
        }
        Ok(asked)
    }

    fn fault_as_node(&self) -> Option<&'static str> {
        if self.groups != [NODES] {
            return Some("subject organization is not system:nodes");
        }
        let node = self.name.strip_prefix(NODE).unwrap_or_default();
        node.is_empty()
            .then_some("subject common name does not begin with system:node:")
    }

    /// Why this is no client certificate of a node.
    pub fn fault_as_node_client(&self, usages: &[String]) -> Option<&'static str> {
        if let Some(fault) = self.fault_as_node() {
            return Some(fault);
        }
        if self.servers + self.others > 0 {
            return Some("DNS, IP, email and URI subjectAltNames are not allowed");
        }
        let right = are(usages, &["digital signature", "client auth"]);
        (!right)
            .then_some("usages did not match [key encipherment,] digital signature, client auth")
    }

    /// Why this is no serving certificate of a node.
    pub fn fault_as_node_serving(&self, usages: &[String]) -> Option<&'static str> {
        if let Some(fault) = self.fault_as_node() {
            return Some(fault);
        }
        if self.servers == 0 {
            return Some("DNS or IP subjectAltName is required");
        }
        if self.others > 0 {
            return Some("email and URI subjectAltNames are not allowed");
        }
        let right = are(usages, &["digital signature", "server auth"]);
        (!right)
            .then_some("usages did not match [key encipherment,] digital signature, server auth")
    }

    /// Why this is no certificate of a client of the API.
    pub fn fault_as_client(&self, usages: &[String]) -> Option<&'static str> {
        const ALLOWED: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
        let all = usages.iter().all(|usage| ALLOWED.contains(&usage.as_str()));
        let client = usages.iter().any(|usage| usage == "client auth");
        (!all || !client).then_some(
            "usages must include client auth and may only hold digital signature and key encipherment beside it",
        )
    }
}

/// An address as text; what is none is a name that nobody has.
fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::from(bytes).to_string());
    v4.or_else(|_| v6()).unwrap_or_default()
}

/// Whether usages are these, with or without key encipherment (which RSA keys want).
fn are(usages: &[String], wanted: &[&str]) -> bool {
    let given = usages.iter().filter(|usage| *usage != "key encipherment");
    let given: Vec<&str> = given.map(String::as_str).collect();
    given.len() == wanted.len() && wanted.iter().all(|usage| given.contains(usage))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    /// A request in PEM.
    pub fn pem(name: &str, groups: &[&str], sans: &[&str]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        for san in sans {
            params.subject_alt_names.push(match san.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if san.contains('@') => SanType::Rfc822Name((*san).try_into().unwrap()),
                Err(_) => SanType::DnsName((*san).try_into().unwrap()),
            });
        }
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    fn asked(name: &str, groups: &[&str], sans: &[&str]) -> Asked {
        Asked::of(pem(name, groups, sans).as_bytes()).unwrap()
    }

    fn usages(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn what_the_signers_sign() {
        let client = usages(&["digital signature", "client auth"]);
        let rsa = usages(&["key encipherment", "client auth", "digital signature"]);
        let server = usages(&["digital signature", "server auth"]);
        let node = asked("system:node:n1", &[NODES], &[]);
        assert_eq!(node.fault_as_node_client(&client), None);
        assert_eq!(node.fault_as_node_client(&rsa), None);
        assert!(node.fault_as_node_client(&server).is_some());
        assert!(
            node.fault_as_node_serving(&server).is_some(),
            "it serves nothing"
        );
        let serving = asked("system:node:n1", &[NODES], &["n1", "10.0.0.1"]);
        assert_eq!(serving.fault_as_node_serving(&server), None);
        assert!(serving.fault_as_node_client(&client).is_some());
        assert!(serving.fault_as_node_serving(&client).is_some());
        let mail = asked("system:node:n1", &[NODES], &["n1", "a@b"]);
        assert!(mail.fault_as_node_serving(&server).is_some());
        for other in [
            asked("jane", &[NODES], &[]),
            asked("system:node:", &[NODES], &[]),
            asked("system:node:n1", &["system:masters"], &[]),
            asked("system:node:n1", &[], &[]),
        ] {
            assert!(other.fault_as_node_client(&client).is_some(), "{other:?}");
        }
        let jane = asked("jane", &["team"], &[]);
        assert_eq!(jane.fault_as_client(&rsa), None);
        assert!(jane.fault_as_client(&server).is_some());
        assert!(
            jane.fault_as_client(&usages(&["digital signature"]))
                .is_some()
        );
    }

    #[test]
    fn garbage_is_no_request() {
        for bytes in [
            &b""[..],
            b"garbage",
            b"-----BEGIN X-----\neA==\n-----END X-----\n",
        ] {
            assert!(Asked::of(bytes).is_err());
        }
    }
}
