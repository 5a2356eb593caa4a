//! A registry on loopback: Debian's docker-registry, with its files in a temporary directory.

use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oci_client::Reference;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use peapod_nodelet::images::archive::Archive;
use peapod_nodelet::images::manifest::{OCI_MANIFEST, Platform};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The user of a registry that wants a login, with the password [`PASSWORD`].
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "secret";
/// The two as the registry wants them.
const HTPASSWD: &str = "tester:$2b$04$iWJ6UzarKCmpzGeZy5xFteNPrIi8fPxMJWCoPClCGy6hrMhMO2y5u\n";

/// A running registry, ended with the test.
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub host: String,
    login: bool,
    child: Child,
    _dir: TempDir,
}

// === impl Registry ===

impl Registry {
    /// One that anybody may read and write.
    pub async fn open() -> Self {
        Self::start(false).await
    }

    /// One that wants a login.
    pub async fn with_login() -> Self {
        Self::start(true).await
    }

    async fn start(login: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = free_address();
        let config = dir.path().join("config.yml");
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        std::fs::write(&config, config_yml(dir.path(), &host, login)).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self {
            host,
            login,
            child,
            _dir: dir,
        };
        registry.wait().await;
        registry
    }

    async fn wait(&self) {
        let answers = async {
            while tokio::net::TcpStream::connect(&self.host).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(super::LIMIT, answers)
            .await
            .expect("the registry answers");
    }

    /// Pushes the image of an archive; gives its digest.
    pub async fn push(&self, archive: &Path, repository: &str, tag: &str) -> String {
        let image = Archive::open(archive)
            .unwrap()
            .images(&Platform::host())
            .unwrap()
            .remove(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = ClientProtocol::Http;
        let client = oci_client::Client::try_from(ClientConfig {
            protocol,
            ..Default::default()
        })
        .unwrap();
        let reference = Reference::with_tag(self.host.clone(), repository.into(), tag.into());
        let auth = match self.login {
            true => RegistryAuth::Basic(USER.into(), PASSWORD.into()),
            false => RegistryAuth::Anonymous,
        };
        client
            .auth(&reference, &auth, oci_client::RegistryOperation::Push)
            .await
            .unwrap();
        let mut file = std::fs::File::open(archive).unwrap();
        for (layer, extent) in image.manifest.layers.iter().zip(&image.layers) {
            let mut bytes = vec![0; extent.size as usize];
            file.seek(SeekFrom::Start(extent.offset)).unwrap();
            file.read_exact(&mut bytes).unwrap();
            client
                .push_blob(&reference, bytes, &layer.digest)
                .await
                .unwrap();
        }
        let config = &image.manifest.config.digest;
        client
            .push_blob(&reference, image.config_bytes, config)
            .await
            .unwrap();
        let media_type = OCI_MANIFEST.parse().unwrap();
        client
            .push_manifest_raw(&reference, image.manifest_bytes, media_type)
            .await
            .unwrap();
        image.descriptor.digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on now.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn config_yml(dir: &Path, host: &str, login: bool) -> String {
    let storage: PathBuf = dir.join("storage");
    let auth = match login {
        true => format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            dir.join("htpasswd").display()
        ),
        false => String::new(),
    };
    format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
         http:\n  addr: {host}\n{auth}",
        storage.display()
    )
}

/// Passes connections on to a registry, and breaks some of them off in the middle of an answer.
pub struct BreakingProxy {
    /// `127.0.0.1:PORT`
    pub host: String,
    left: Arc<AtomicUsize>,
    planned: usize,
    _tasks: JoinSet<()>,
}

// === impl BreakingProxy ===

impl BreakingProxy {
    /// Breaks off `times` connections, each after `bytes` of answers.
    pub async fn start(registry: &str, times: usize, bytes: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let left = Arc::new(AtomicUsize::new(times));
        let (registry, counter) = (registry.to_owned(), Arc::clone(&left));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&registry).await.unwrap();
                connections.spawn(pass_on(client, server, Arc::clone(&counter), bytes));
            }
        });
        Self {
            host,
            left,
            planned: times,
            _tasks: tasks,
        }
    }

    /// How many connections were broken off.
    pub fn broken(&self) -> usize {
        self.planned - self.left.load(Ordering::SeqCst)
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, left: Arc<AtomicUsize>, bytes: u64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut first = (&mut from_server).take(bytes);
        let passed = tokio::io::copy(&mut first, &mut to_client)
            .await
            .unwrap_or(0);
        let break_off = |n: usize| n.checked_sub(1);
        let order = Ordering::SeqCst;
        if passed == bytes && left.fetch_update(order, order, break_off).is_ok() {
            return;
        }
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    tokio::select! {
        () = answers => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}
