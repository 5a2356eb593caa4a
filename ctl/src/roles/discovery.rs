//! How a machine that joins learns what cluster it is about to trust: `cluster-info`, which
//! anybody may read, signed by the token or pinned by the CA's hash (as `kubeadm join` does).
//!
//! [`check`] is the core: pure.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::Kubeconfig;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use peapod_api::bootstrap::{self, CLUSTER_INFO, KUBECONFIG, PUBLIC, SIGNATURE, Token};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// How far two clocks may be apart, seconds: certificates are good from a little before their
/// making.
const SKEW_MAX_S: i64 = 300;

/// How long the controllers may take to sign with a new token.
const SIGNED_WITHIN: Duration = Duration::from_secs(5);

/// What the server said before it is trusted.
struct Told {
    info: ConfigMap,
    /// When it said so by its own clock.
    at: Option<Timestamp>,
}

/// Learns the CA of the cluster at a URL.
pub async fn discover(server: &str, token: &Token, pin: Option<&str>) -> Result<String> {
    let told = ask(server).await?;
    check_clock(server, told.at, Timestamp::now())?;
    check(server, &told.info, token, pin)
}

/// Waits until `cluster-info` bears a token's signature, which the controllers make: a join before that
/// would hear of no such token. Where they do not run it is not waited for for long.
pub async fn signed(client: &Client, token: &Token) {
    let key = format!("{SIGNATURE}{}", token.id);
    let infos: Api<ConfigMap> = Api::namespaced(client.clone(), PUBLIC);
    let bears = move |info: Option<&ConfigMap>| {
        let data = info.and_then(|info| info.data.as_ref());
        data.is_some_and(|data| data.contains_key(&key))
    };
    let there = await_condition(infos, CLUSTER_INFO, bears);
    if !matches!(tokio::time::timeout(SIGNED_WITHIN, there).await, Ok(Ok(_))) {
        tracing::warn!(
            token = token.id,
            "no controller has signed cluster-info with the token yet; it is of no use before"
        );
    }
}

/// Asks without knowing whom: nothing of the answer is trusted before it is checked.
async fn ask(server: &str) -> Result<Told> {
    let url: http::Uri = server.parse().with_context(|| {
        format!("{server:?} is no URL of an API server, as https://10.0.0.1:6443")
    })?;
    let mut config = kube::Config::new(url);
    config.accept_invalid_certs = true;
    let client = Client::try_from(config).context("cannot make a client")?;
    let path = format!("/api/v1/namespaces/{PUBLIC}/configmaps/{CLUSTER_INFO}");
    let request = http::Request::get(path).body(kube::client::Body::empty())?;
    let response = client.send(request).await.with_context(|| {
        format!("cannot reach an API server at {server}; is the address right, and does it run?")
    })?;
    let date = response.headers().get(http::header::DATE);
    let at = date
        .and_then(|date| rfc2822::parse(date.to_str().ok()?).ok())
        .map(|at| at.timestamp());
    let status = response.status();
    if !status.is_success() {
        bail!(
            "the API server at {server} does not say what cluster it is (status {status}); let it \
             take anonymous requests (--anonymous-auth), and see that it is a `peapod server`"
        );
    }
    let body = response.into_body().collect_bytes().await;
    let body = body.with_context(|| format!("{server} broke off its answer; try again"))?;
    let info = serde_json::from_slice(&body)
        .with_context(|| format!("{server} answers nonsense; is it an API server?"))?;
    Ok(Told { info, at })
}

fn check_clock(server: &str, theirs: Option<Timestamp>, ours: Timestamp) -> Result<()> {
    let Some(theirs) = theirs else { return Ok(()) };
    let apart = ours.as_second() - theirs.as_second();
    if apart.abs() <= SKEW_MAX_S {
        return Ok(());
    }
    let way = if apart > 0 { "ahead of" } else { "behind" };
    bail!(
        "this machine's clock is {} s {way} that of {server}, and certificates would not hold; set \
         the clock (timedatectl set-ntp true), then join again",
        apart.abs()
    )
}

/// The CA of `cluster-info`, once the token's signature and the pin say that it is the cluster's.
fn check(server: &str, info: &ConfigMap, token: &Token, pin: Option<&str>) -> Result<String> {
    let data = info.data.clone().unwrap_or_default();
    let text = data.get(KUBECONFIG).with_context(|| {
        format!(
            "the API server at {server} does not say what cluster it is; is it a `peapod server`?"
        )
    })?;
    let Some(signature) = data.get(&format!("{SIGNATURE}{}", token.id)) else {
        bail!(
            "the cluster at {server} knows no token {}: it has expired or was deleted; make another \
             there with `peapod token create`",
            token.id
        );
    };
    if *signature != token.sign(text) {
        bail!(
            "the token {} is another at {server}: its secret part is wrong, or this is not the \
             cluster that it was made for",
            token.id
        );
    }
    let ca = ca_of(text).with_context(|| format!("{server} names no CA of its cluster"))?;
    let found = pin_of(&ca)?;
    match pin {
        Some(pin) if pin != found => bail!(
            "the CA of the cluster at {server} has the hash {found}, not {pin}; this is not the \
             cluster that was meant, or somebody is in between"
        ),
        _ => Ok(ca),
    }
}

fn ca_of(kubeconfig: &str) -> Option<String> {
    use base64::Engine as _;
    let config = Kubeconfig::from_yaml(kubeconfig).ok()?;
    let cluster = config.clusters.into_iter().next()?.cluster?;
    let encoded = cluster.certificate_authority_data?;
    let pem = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    String::from_utf8(pem).ok()
}

/// The pin of a CA in PEM.
pub fn pin_of(ca_pem: &str) -> Result<String> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes());
    let der = der.ok().context("the cluster's CA is not PEM")?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).context("the cluster's CA is malformed")?;
    Ok(bootstrap::pin(parsed.public_key().raw))
}

/// The text of `cluster-info` for a server.
pub fn kubeconfig(server: &str, ca_pem: &str) -> String {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    \
         certificate-authority-data: {ca}\n    server: {server}\ncontexts: []\n\
         current-context: \"\"\npreferences: {{}}\nusers: []\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::collections::BTreeMap;

    const SERVER: &str = "https://10.0.0.1:6443";

    fn ca() -> String {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem()
    }

    fn info(text: &str, token: &Token) -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([
                (KUBECONFIG.to_owned(), text.to_owned()),
                (format!("{SIGNATURE}{}", token.id), token.sign(text)),
            ])),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn only_the_cluster_of_the_token_and_the_pin_is_trusted() {
        let ca = ca();
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let told = info(&kubeconfig(SERVER, &ca), &token);
        let with = |token: &str, pin: Option<&str>| {
            check(SERVER, &told, &token.parse().unwrap(), pin).map_err(|e| e.to_string())
        };
        let pin = pin_of(&ca).unwrap();
        assert_eq!(with("abcdef.0123456789abcdef", Some(&pin)), Ok(ca.clone()));
        assert_eq!(with("abcdef.0123456789abcdef", None), Ok(ca));
        let refusal = |token, pin| with(token, pin).unwrap_err();
        assert!(refusal("fedcba.0123456789abcdef", None).contains("has expired or was deleted"));
        assert!(refusal("abcdef.0123456789abcdee", None).contains("secret part is wrong"));
        let other = refusal("abcdef.0123456789abcdef", Some("sha256:00"));
        assert!(other.contains("has the hash sha256:"), "{other}");
    }

    #[test]
    fn clocks_that_are_far_apart_are_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(check_clock(SERVER, Some(at(1000)), at(1200)).is_ok());
        assert!(check_clock(SERVER, None, at(1200)).is_ok());
        let told = check_clock(SERVER, Some(at(1000)), at(5000)).unwrap_err();
        assert!(told.to_string().contains("4000 s ahead of"), "{told}");
        let told = check_clock(SERVER, Some(at(5000)), at(1000)).unwrap_err();
        assert!(told.to_string().contains("4000 s behind"), "{told}");
    }
}
