//! Who may do what, with the controllers at work: roles made of others, and certificates that are
//! asked for, approved by stock kubectl, signed, and then shown.

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use peapod_apiserver::{ApiServer, Config, Engine};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server that listens, and the controllers; dropping it ends them.
struct Cluster {
    server: Arc<ApiServer>,
    url: String,
    kubeconfig: PathBuf,
    _tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            engine: Engine::Memory,
            ..Config::new(dir.path())
        };
        let server = Arc::new(ApiServer::start(config).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.admin_kubeconfig(&url).unwrap()).unwrap();
        let controllers = peapod_controllers::Config {
            root_ca_pem: server.pki().ca_certificate().to_owned(),
            signing_key_pem: server.pki().ca_key().to_owned(),
            ..peapod_controllers::Config::default()
        };
        let own = server.client("system:kube-controller-manager", &[]);
        let mut tasks = JoinSet::new();
        let serving = server.clone();
        tasks.spawn(async move {
            let ended = serving
                .serve(vec![listener], CancellationToken::new())
                .await;
            panic!("serving ended: {ended:?}");
        });
        tasks.spawn(async move {
            let ended = peapod_controllers::run(own, controllers, CancellationToken::new()).await;
            panic!("the controllers ended: {ended:?}");
        });
        Self {
            server,
            url,
            kubeconfig,
            _tasks: tasks,
            _dir: dir,
        }
    }

    fn admin(&self) -> Client {
        self.server.client("kubernetes-admin", &["system:masters"])
    }

    fn requests(&self, user: &str, groups: &[&str]) -> Api<CertificateSigningRequest> {
        Api::all(self.server.client(user, groups))
    }

    /// Runs stock kubectl as the administrator.
    async fn kubectl(&self, args: &str) -> Result<String, String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_extension("cache"));
        command.args(args.split_whitespace());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().expect("kubectl must be on PATH");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// The certificate of a request, when it is signed.
    async fn certificate(&self, name: &str) -> String {
        let requests = self.requests("kubernetes-admin", &["system:masters"]);
        let signed = wait(async || {
            let request = requests.get(name).await.unwrap();
            let certificate = request.status?.certificate?;
            Some(String::from_utf8(certificate.0).unwrap())
        });
        signed.await
    }

    /// Whom the server takes the holder of a certificate for.
    async fn who(&self, certificate: &str, key: &KeyPair) -> Value {
        let ca = self.server.pki().ca_certificate();
        let encode = |text: &str| STANDARD.encode(text);
        let config = json!({
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority-data": encode(ca)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {
                "client-certificate-data": encode(certificate),
                "client-key-data": encode(&key.serialize_pem()),
            }}],
        });
        let config: kube::config::Kubeconfig = serde_json::from_value(config).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        let reviews: Api<SelfSubjectReview> = Api::all(client);
        let me = reviews
            .create(&PostParams::default(), &Default::default())
            .await
            .unwrap();
        serde_json::to_value(me.status.unwrap().user_info.unwrap()).unwrap()
    }
}

/// Waits until there is something.
async fn wait<T, F: Future<Output = Option<T>>>(mut check: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.expect("it did not come true in time")
}

fn request(
    name: &str,
    subject: (&str, &str),
    signer: &str,
    key: &KeyPair,
) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.0);
    params
        .distinguished_name
        .push(DnType::OrganizationName, subject.1);
    let pem = params.serialize_request(key).unwrap().pem().unwrap();
    let request = json!({
        "metadata": {"name": name},
        "spec": {
            "request": STANDARD.encode(pem),
            "signerName": format!("kubernetes.io/{signer}"),
            "usages": ["client auth", "digital signature"],
            "username": "somebody else",
        },
    });
    serde_json::from_value(request).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_becomes_a_node_by_a_bootstrap_token() {
    let cluster = Cluster::start().await;
    let key = KeyPair::generate().unwrap();
    let asked = request(
        "n1",
        ("system:node:n1", "system:nodes"),
        "kube-apiserver-client-kubelet",
        &key,
    );
    let machine = cluster.requests("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let made = machine
        .create(&PostParams::default(), &asked)
        .await
        .unwrap();
    assert_eq!(
        made.spec.username.as_deref(),
        Some("system:bootstrap:abcdef")
    );
    let certificate = cluster.certificate("n1").await;
    let me = cluster.who(&certificate, &key).await;
    assert_eq!(me["username"], "system:node:n1");
    assert_eq!(
        me["groups"],
        json!(["system:nodes", "system:authenticated"])
    );
    // Renewed by the node itself, and not by others.
    let other = cluster.requests("system:node:n2", &["system:nodes"]);
    let told = other
        .create(&PostParams::default(), &asked)
        .await
        .unwrap_err();
    assert!(told.to_string().contains("CN=system:node:n2"), "{told}");
    let mut again = asked.clone();
    again.metadata.name = Some("n1-again".to_owned());
    let node = cluster.requests("system:node:n1", &["system:nodes"]);
    node.create(&PostParams::default(), &again).await.unwrap();
    cluster.certificate("n1-again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_approves_and_denies() {
    let cluster = Cluster::start().await;
    let key = KeyPair::generate().unwrap();
    let requests = cluster.requests("kubernetes-admin", &["system:masters"]);
    for name in ["jane", "joe"] {
        let asked = request(name, (name, "team"), "kube-apiserver-client", &key);
        requests
            .create(&PostParams::default(), &asked)
            .await
            .unwrap();
    }
    let table = cluster.kubectl("get csr").await.unwrap();
    assert!(table.starts_with("NAME"), "{table}");
    for word in [
        "SIGNERNAME",
        "REQUESTOR",
        "REQUESTEDDURATION",
        "kubernetes-admin",
        "Pending",
    ] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    cluster.kubectl("certificate approve jane").await.unwrap();
    cluster.kubectl("certificate deny joe").await.unwrap();
    let certificate = cluster.certificate("jane").await;
    let me = cluster.who(&certificate, &key).await;
    assert_eq!(me["username"], "jane");
    let table = cluster.kubectl("get csr").await.unwrap();
    assert!(
        table.contains("Approved,Issued") && table.contains("Denied"),
        "{table}"
    );
    let told = cluster
        .kubectl("certificate approve joe")
        .await
        .unwrap_err();
    assert!(told.contains("already Denied"), "{told}");
    let masters = request(
        "root",
        ("root", "system:masters"),
        "kube-apiserver-client",
        &key,
    );
    let told = requests
        .create(&PostParams::default(), &masters)
        .await
        .unwrap_err();
    assert!(
        told.to_string()
            .contains("with system:masters group is not allowed"),
        "{told}"
    );
    let told = cluster
        .kubectl("certificate approve jane --as=eve --as-group=g")
        .await;
    assert!(told.unwrap_err().contains("forbidden"));
}

/// `view` is put together of its parts, also of those that come later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_gathered() {
    let cluster = Cluster::start().await;
    let bindings: Api<RoleBinding> = Api::namespaced(cluster.admin(), "default");
    let binding = json!({
        "metadata": {"name": "vera"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "vera"}],
    });
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    bindings
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
    let vera = cluster.server.client("vera", &[]);
    let pods: Api<Pod> = Api::namespaced(vera.clone(), "default");
    wait(async || pods.list(&ListParams::default()).await.ok()).await;
    let secrets: Api<Secret> = Api::namespaced(vera, "default");
    assert!(secrets.list(&ListParams::default()).await.is_err());
    let roles: Api<ClusterRole> = Api::all(cluster.admin());
    let part = json!({
        "metadata": {"name": "part", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["secrets"]}],
    });
    let part: ClusterRole = serde_json::from_value(part).unwrap();
    roles.create(&PostParams::default(), &part).await.unwrap();
    wait(async || secrets.list(&ListParams::default()).await.ok()).await;
}
