//! Asking the cluster for certificates (certificates.k8s.io).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::identity::Pair;

/// How long approval and signing may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate that a node asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    node: String,
    signer: &'static str,
    usage: &'static str,
    ips: Vec<IpAddr>,
}

// === impl Wanted ===

impl Wanted {
    /// What the node shows to the API server.
    pub fn client(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usage: "client auth",
            ips: Vec::new(),
        }
    }

    /// What the node's own API shows to who asks.
    pub fn serving(node: &str, ips: &[IpAddr]) -> Self {
        Self {
            signer: "kubernetes.io/kubelet-serving",
            usage: "server auth",
            ips: ips.to_vec(),
            ..Self::client(node)
        }
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "system:nodes");
        subject.push(DnType::CommonName, format!("system:node:{}", self.node));
        params.distinguished_name = subject;
        if !self.ips.is_empty() {
            let name = self.node.as_str().try_into().context("the node's name")?;
            params.subject_alt_names = vec![SanType::DnsName(name)];
            let ips = self.ips.iter().copied().map(SanType::IpAddress);
            params.subject_alt_names.extend(ips);
        }
        Ok(params)
    }

    /// A certificate that this key signs itself, until a better one is there.
    pub fn self_signed(&self) -> Result<Pair> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let made = self.params()?.self_signed(&key);
        let certificate = made.context("cannot make a certificate")?.pem();
        Ok(Pair {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

/// Asks for a certificate and waits for it. The key never leaves this machine.
pub async fn request(client: &Client, wanted: &Wanted) -> Result<Pair> {
    let key = KeyPair::generate().context("cannot make a key")?;
    let request = wanted.params()?.serialize_request(&key);
    let pem = request.and_then(|request| request.pem());
    let pem = pem.context("cannot make a certificate request")?;
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some("node-csr-".to_owned()),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(vec![
                "digital signature".to_owned(),
                wanted.usage.to_owned(),
            ]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let made = requests.create(&PostParams::default(), &object).await;
    let name = made
        .map_err(crate::client::server_error)
        .context("cannot ask for a certificate")?
        .name_any();
    let decided = await_condition(requests, &name, is_decided);
    let decided = tokio::time::timeout(PATIENCE, decided).await;
    let Ok(decided) = decided else {
        bail!(
            "the certificate request {name} was not decided within {PATIENCE:?}; approve it \
             (kubectl certificate approve {name}), or see whether the controllers run"
        );
    };
    let decided = decided.context("cannot watch the certificate request")?;
    let certificate = certificate(&name, decided.as_ref())?;
    Ok(Pair {
        certificate,
        key: key.serialize_pem(),
    })
}

fn is_decided(request: Option<&CertificateSigningRequest>) -> bool {
    // Deleted is decided too.
    let Some(request) = request else { return true };
    let status = request.status.clone().unwrap_or_default();
    let refused = status.conditions.iter().flatten();
    let mut refused = refused.filter(|one| matches!(one.type_.as_str(), "Denied" | "Failed"));
    status.certificate.is_some_and(|pem| !pem.0.is_empty()) || refused.next().is_some()
}

fn certificate(name: &str, request: Option<&CertificateSigningRequest>) -> Result<String> {
    let Some(status) = request.and_then(|request| request.status.clone()) else {
        bail!("the certificate request {name} was deleted; try again");
    };
    if let Some(pem) = status.certificate.filter(|pem| !pem.0.is_empty()) {
        return String::from_utf8(pem.0).context("the certificate is not PEM");
    }
    let conditions = status.conditions.unwrap_or_default();
    let refusal = conditions
        .iter()
        .find(|one| matches!(one.type_.as_str(), "Denied" | "Failed"));
    let why = refusal.and_then(|one| one.message.as_deref());
    bail!(
        "the certificate request {name} was refused: {}",
        why.unwrap_or("no reason was given")
    )
}
