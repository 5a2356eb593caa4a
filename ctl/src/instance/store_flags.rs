//! The flags that say where objects are kept, those of etcd under kube-apiserver's names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use peapod_apiserver::{Config, Engine, EtcdConfig, EtcdTls};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::api_flags::file;

/// Where objects are kept, and who proves what to whom there.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreFlags {
    /// Where objects are kept: sled, in the data directory; or etcd=URL,..., for several servers over one state
    #[arg(long, value_name = "ENGINE", default_value = "sled", value_parser = parse)]
    pub store: Place,
    /// What all keys in etcd begin with
    #[arg(long, value_name = "PREFIX", default_value = EtcdConfig::PREFIX, value_parser = prefix)]
    pub etcd_prefix: String,
    /// Who signs the certificates of etcd's members (PEM)
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd (PEM)
    #[arg(long, value_name = "FILE", value_parser = file, requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", value_parser = file, requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

/// A place for objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the data directory.
    Sled,
    /// In etcd, whose members' URLs these are.
    Etcd(Vec<String>),
}

// === impl StoreFlags ===

impl StoreFlags {
    /// Puts them into the API server's configuration.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        config.engine = match self.etcd()? {
            Some(etcd) => Engine::Etcd(etcd),
            None => Engine::Sled,
        };
        Ok(())
    }

    /// Whether other servers may work on the same objects.
    pub fn is_shared(&self) -> bool {
        self.store != Place::Sled
    }

    /// The place in words, to be kept: a cluster's objects do not move by themselves.
    pub fn describe(&self) -> String {
        match &self.store {
            Place::Sled => "sled".to_owned(),
            // Members come and go, and a cluster of etcd is known by none of them.
            Place::Etcd(_) => format!("etcd {}", self.etcd_prefix),
        }
    }

    /// Refuses another place than the one that an earlier start of this data directory used.
    pub fn check_kept(&self, kept: Option<&str>) -> Result<()> {
        let (was, is) = (kept.unwrap_or("sled"), self.describe());
        if was != is {
            bail!(
                "this data directory's cluster has its objects in {was}, and --store says {is}: \
                 pass what was passed before, or take another data directory \
                 (`peapod snapshot` moves objects)"
            );
        }
        Ok(())
    }

    /// How to reach etcd; `None` for sled.
    pub fn etcd(&self) -> Result<Option<EtcdConfig>> {
        let tls_files = self.etcd_cafile.is_some() || self.etcd_certfile.is_some();
        let Place::Etcd(urls) = &self.store else {
            if tls_files {
                bail!("--etcd-cafile and --etcd-certfile are for --store etcd=URL,...");
            }
            return Ok(None);
        };
        let secure = urls[0].starts_with("https://");
        let tls = match (&self.etcd_cafile, secure) {
            (Some(ca), true) => Some(EtcdTls {
                ca_pem: certificate(ca, "--etcd-cafile")?,
                identity_pem: self.identity()?,
            }),
            (None, true) => bail!(
                "etcd's URLs begin with https: pass --etcd-cafile, the certificate of who signs its members'"
            ),
            (_, false) if tls_files => bail!(
                "--etcd-cafile and --etcd-certfile are for URLs that begin with https, and --store has {}",
                urls[0]
            ),
            (_, false) => None,
        };
        Ok(Some(EtcdConfig {
            prefix: self.etcd_prefix.clone(),
            tls,
            ..EtcdConfig::new(urls.clone())
        }))
    }

    fn identity(&self) -> Result<Option<(String, String)>> {
        let Some((shown, key)) = self.etcd_certfile.as_ref().zip(self.etcd_keyfile.as_ref()) else {
            return Ok(None);
        };
        let shown = certificate(shown, "--etcd-certfile")?;
        let pem = read(key, "--etcd-keyfile")?;
        if PrivateKeyDer::from_pem_slice(pem.as_bytes()).is_err() {
            bail!(
                "--etcd-keyfile {} holds no private key in PEM",
                key.display()
            );
        }
        Ok(Some((shown, pem)))
    }
}

/// The PEM of a file with at least one certificate.
fn certificate(path: &Path, flag: &str) -> Result<String> {
    let pem = read(path, flag)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    if !found.is_ok_and(|found| !found.is_empty()) {
        bail!("{flag} {} holds no certificate in PEM", path.display());
    }
    Ok(pem)
}

fn read(path: &Path, flag: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {flag} {}", path.display()))
}

fn parse(text: &str) -> Result<Place, String> {
    let urls = match text.split_once('=') {
        None if text == "sled" => return Ok(Place::Sled),
        Some(("etcd", urls)) => urls,
        _ => return Err("it must be sled, or etcd=URL,...".to_owned()),
    };
    let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
    for url in &urls {
        let parsed: Option<http::Uri> = url.parse().ok();
        let named = parsed
            .as_ref()
            .and_then(|uri| Some((uri.scheme_str()?, uri.host()?)));
        if !named
            .is_some_and(|(scheme, host)| matches!(scheme, "http" | "https") && !host.is_empty())
        {
            return Err(format!(
                "{url:?} is no URL of an etcd member, as https://10.0.0.1:2379"
            ));
        }
    }
    let secure = |url: &&String| url.starts_with("https://");
    match urls.iter().filter(secure).count() {
        some if some == urls.len() || some == 0 => Ok(Place::Etcd(urls)),
        _ => Err("all members' URLs must begin with https, or none's".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.trim_end_matches('/').len() > 1 {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("it must begin with a slash, as /registry/peapod".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(parse("sled"), Ok(Place::Sled));
        let two = Place::Etcd(vec!["http://a:1".to_owned(), "http://[::1]:2".to_owned()]);
        assert_eq!(parse("etcd=http://a:1,http://[::1]:2"), Ok(two));
        for bad in [
            "",
            "etcd",
            "etcd=",
            "etcd=a:2379",
            "etcd=10.0.0.1:2379",
            "etcd=http://a:1,",
            "etcd=http://a:1,https://b:1",
            "sled=x",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(prefix("/a/b/").as_deref(), Ok("/a/b"));
        assert!(prefix("a").is_err() && prefix("/").is_err());
    }
}
