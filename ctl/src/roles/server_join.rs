//! `peapod server --join`: a further server of a cluster over etcd. The first puts what it must
//! have, [sealed](super::sealed), into a Secret that only the holder of a token may read, and that
//! goes with the token; the further one learns the CA as nodes do, fetches and opens it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use peapod_api::bootstrap::{SYSTEM, Token};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sealed::{Bundle, SealKey};
use super::{discovery, identity};
use crate::client::server_error;
use crate::instance::Layout;
use crate::instance::settings::{Settings, read_json, write_json, write_private};
use crate::instance::store_flags::{Place, StoreFlags};

/// Files of the PKI directory that all servers have alike.
const KEYS: [&str; 4] = ["ca.crt", "ca.key", "sa.key", "sa.pub"];
const SEALED: &str = "sealed";

/// The flags of a server that joins others.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "A further server of a cluster")]
pub struct ServerJoinFlags {
    /// Be a further server of the cluster of the one at this URL, over its etcd; once joined,
    /// later starts need none of these flags
    #[arg(
        long,
        value_name = "URL",
        requires_all = ["token", "certificate_key"],
        conflicts_with_all = ["store", "pki_dir", "pod_cidr", "service_cidr", "vxlan_port"]
    )]
    pub join: Option<String>,
    /// The token that `peapod token create --server` printed
    #[arg(long, value_name = "TOKEN", requires = "join")]
    pub token: Option<Token>,
    /// What the cluster's CA must be: sha256:... of its public key
    #[arg(long, value_name = "HASH", requires = "join")]
    pub ca_cert_hash: Option<String>,
    /// The key that was printed with the token
    #[arg(long, value_name = "KEY", requires = "join")]
    pub certificate_key: Option<SealKey>,
}

/// Where a server's keys and objects are: kept for [`admit`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reach {
    pki_dir: PathBuf,
    etcd_urls: Vec<String>,
    etcd_prefix: String,
    /// The CA of etcd, the certificate to show to it, its key.
    etcd_files: BTreeMap<String, PathBuf>,
}

/// What a server that has joined knows for its next start.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    etcd_urls: Vec<String>,
    etcd_prefix: String,
    /// Names of the files in [`Layout::etcd`].
    etcd_files: Vec<String>,
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// UDP port of VXLAN between nodes.
    pub vxlan_port: u16,
}

const ETCD_CA: &str = "ca.crt";
const ETCD_CERTIFICATE: &str = "client.crt";
const ETCD_KEY: &str = "client.key";

// === impl Joined ===

impl Joined {
    /// Where its objects are.
    pub fn store(&self, layout: &Layout) -> StoreFlags {
        let file = |name: &str| {
            let has = self.etcd_files.iter().any(|known| known == name);
            has.then(|| layout.etcd().join(name))
        };
        StoreFlags {
            store: Place::Etcd(self.etcd_urls.clone()),
            etcd_prefix: self.etcd_prefix.clone(),
            etcd_cafile: file(ETCD_CA),
            etcd_certfile: file(ETCD_CERTIFICATE),
            etcd_keyfile: file(ETCD_KEY),
        }
    }
}

/// What this server has joined, now or at an earlier start; `None` for one that is a first.
pub async fn settle(flags: &ServerJoinFlags, layout: &Layout) -> Result<Option<Joined>> {
    if let Some(joined) = read_json(&layout.joined())? {
        return Ok(Some(joined));
    }
    let (Some(server), Some(token), Some(key)) =
        (&flags.join, &flags.token, &flags.certificate_key)
    else {
        return Ok(None);
    };
    if layout.settings().exists() {
        bail!(
            "{} is of a cluster of its own already; pass another --data-dir, or make it forget \
             that with `peapod down --purge`",
            layout.root().display()
        );
    }
    let server = server.trim_end_matches('/');
    let ca = discovery::discover(server, token, flags.ca_cert_hash.as_deref()).await?;
    let mut config = identity::base(server, &ca)?;
    config.auth_info.token = Some(token.to_string().into());
    let client = Client::try_from(config).context("cannot make a client")?;
    let secrets: Api<Secret> = Api::namespaced(client, SYSTEM);
    let found = secrets.get(&name_of(token)).await.map_err(refused)?;
    let sealed = found.data.and_then(|mut data| data.remove(SEALED));
    let bundle = key.open(&sealed.unwrap_or_default().0)?;
    ensure!(
        bundle.keys.get("ca.crt").map(String::as_str) == Some(ca.as_str()),
        "{server} has another CA than its cluster; make another token there"
    );
    write(layout, &bundle).map(Some)
}

fn refused(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if [401, 403, 404].contains(&status.code) => anyhow::anyhow!(
            "the cluster has nothing for a server with this token: it is one for nodes, or it has \
             just expired; make another there with `peapod token create --server`"
        ),
        _ => server_error(error),
    }
}

/// Writes what was fetched; last that the server has joined.
fn write(layout: &Layout, bundle: &Bundle) -> Result<Joined> {
    let folders = [
        (layout.pki(), &bundle.keys, &KEYS[..]),
        (
            layout.etcd(),
            &bundle.etcd_files,
            &[ETCD_CA, ETCD_CERTIFICATE, ETCD_KEY][..],
        ),
    ];
    for (folder, files, known) in folders {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        for name in known {
            if let Some(text) = files.get(*name) {
                write_private(&folder.join(name), text.as_bytes())?;
            }
        }
    }
    let joined = Joined {
        etcd_urls: bundle.etcd_urls.clone(),
        etcd_prefix: bundle.etcd_prefix.clone(),
        etcd_files: bundle.etcd_files.keys().cloned().collect(),
        pod_cidrs: bundle.pod_cidrs.clone(),
        service_cidrs: bundle.service_cidrs.clone(),
        vxlan_port: bundle.vxlan_port,
    };
    write_json(&layout.joined(), &joined)?;
    Ok(joined)
}

/// Keeps where this server's keys and objects are, if others can join it.
pub fn keep(layout: &Layout, pki_dir: Option<&Path>, store: &StoreFlags) -> Result<()> {
    let Place::Etcd(urls) = &store.store else {
        return Ok(());
    };
    let files = [
        (ETCD_CA, &store.etcd_cafile),
        (ETCD_CERTIFICATE, &store.etcd_certfile),
        (ETCD_KEY, &store.etcd_keyfile),
    ];
    let named = |(name, path): (&str, &Option<PathBuf>)| Some((name.to_owned(), path.clone()?));
    let reach = Reach {
        pki_dir: pki_dir.map_or_else(|| layout.pki(), Path::to_owned),
        etcd_urls: urls.clone(),
        etcd_prefix: store.etcd_prefix.clone(),
        etcd_files: files.into_iter().filter_map(named).collect(),
    };
    write_json(&layout.reach(), &reach)
}

/// Lets the holder of a token become a further server: the key that it needs beside the token.
pub async fn admit(layout: &Layout, client: &Client, token: &Token) -> Result<SealKey> {
    let key = SealKey::random()?;
    let sealed = key.seal(&gather(layout)?)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let of_token = format!("bootstrap-token-{}", token.id);
    let made = secrets.get(&of_token).await.map_err(server_error)?;
    // What the holder may read goes with the token.
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: of_token,
        uid: made.uid().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let name = name_of(token);
    let metadata = json!({"name": name, "namespace": SYSTEM, "ownerReferences": [owner]});
    let role: Role = serde_json::from_value(json!({
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get"]}],
    }))?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "User",
            "name": format!("system:bootstrap:{}", token.id),
        }],
    }))?;
    let mut secret: Secret = serde_json::from_value(json!({"metadata": metadata}))?;
    secret.data = Some([(SEALED.to_owned(), ByteString(sealed))].into());
    let params = PostParams::default();
    let failed = |error| server_error(error).context("cannot let a server join");
    secrets.create(&params, &secret).await.map_err(failed)?;
    let roles: Api<Role> = Api::namespaced(client.clone(), SYSTEM);
    roles.create(&params, &role).await.map_err(failed)?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), SYSTEM);
    bindings.create(&params, &binding).await.map_err(failed)?;
    Ok(key)
}

/// Name of what a token's holder finds.
fn name_of(token: &Token) -> String {
    format!("peapod-server-{}", token.id)
}

/// Reads what a further server must have.
fn gather(layout: &Layout) -> Result<Bundle> {
    let (Some(reach), Some(settings)) = (
        read_json::<Reach>(&layout.reach())?,
        read_json::<Settings>(&layout.settings())?,
    ) else {
        bail!(
            "the server of {} keeps its objects for itself; further ones can join a server over \
             etcd (peapod server --store etcd=URL,...)",
            layout.root().display()
        );
    };
    let text = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut keys = BTreeMap::new();
    for name in KEYS {
        let path = reach.pki_dir.join(name);
        // The public half can be had from the other.
        if name != "sa.pub" || path.exists() {
            keys.insert(name.to_owned(), text(&path)?);
        }
    }
    let mut etcd_files = BTreeMap::new();
    for (name, path) in &reach.etcd_files {
        etcd_files.insert(name.clone(), text(path)?);
    }
    Ok(Bundle {
        keys,
        etcd_urls: reach.etcd_urls,
        etcd_prefix: reach.etcd_prefix,
        etcd_files,
        pod_cidrs: settings.pod_cidrs,
        service_cidrs: settings.service_cidrs,
        vxlan_port: settings.vxlan_port,
    })
}

/// The command for the machine that becomes a further server.
pub fn command(server: &str, token: &Token, ca_pem: &str, key: &SealKey) -> Result<String> {
    let pin = discovery::pin_of(ca_pem)?;
    Ok(format!(
        "peapod server --join {server} --token {token} --ca-cert-hash {pin} --certificate-key {key}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_another_gets() {
        let (first, further) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, further) = (
            Layout::new(first.path()).unwrap(),
            Layout::new(further.path()).unwrap(),
        );
        assert!(
            gather(&first)
                .err()
                .unwrap()
                .to_string()
                .contains("for itself")
        );
        std::fs::create_dir_all(further.root()).unwrap();
        let bundle = Bundle {
            keys: [
                ("ca.crt", "c"),
                ("ca.key", "k"),
                ("sa.key", "s"),
                ("../x", "no"),
            ]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into(),
            etcd_urls: vec!["https://10.0.0.1:2379".to_owned()],
            etcd_prefix: "/p".to_owned(),
            etcd_files: [(ETCD_CA.to_owned(), "e".to_owned())].into(),
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            vxlan_port: 4790,
        };
        let joined = write(&further, &bundle).unwrap();
        let store = joined.store(&further);
        assert_eq!(store.store, Place::Etcd(bundle.etcd_urls.clone()));
        assert_eq!(store.etcd_cafile, Some(further.etcd().join("ca.crt")));
        assert_eq!(store.etcd_keyfile, None);
        let kept: Joined = read_json(&further.joined()).unwrap().unwrap();
        assert_eq!((kept.vxlan_port, kept.etcd_prefix), (4790, "/p".to_owned()));
        // Only files that are known are written.
        assert!(!further.root().join("x").exists());
        let files = std::fs::read_dir(further.pki()).unwrap().count();
        assert_eq!(files, 3);
    }
}
