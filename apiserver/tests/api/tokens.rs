//! Who shows what: tokens of every kind, and nothing at all.

use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::authz::{create, of, refused};
use crate::common::{self, Listening, admin};
use crate::kubectl::kubectl;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

/// Who the server takes the bearer of a token for; the code of its refusal otherwise.
async fn who(to: &Listening, token: Option<&str>) -> Result<String, u16> {
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("Content-Type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    match to.bearer(token).request::<Value>(request).await {
        Ok(me) => Ok(me["status"]["userInfo"]["username"]
            .as_str()
            .unwrap()
            .to_owned()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(other) => panic!("{other}"),
    }
}

async fn get(to: &Listening, path: &str) -> Result<Value, u16> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match to.bearer(None).request::<Value>(request).await {
        Ok(found) => Ok(found),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn who_shows_nothing_reads_what_is_public() {
    let to = common::listening().await;
    assert_eq!(get(&to, "/version").await.unwrap()["major"], "1");
    for path in ["/api", "/openapi/v3", "/openid/v1/jwks", "/api/v1/pods"] {
        assert_eq!(get(&to, path).await, Err(403), "{path}");
    }
    assert_eq!(who(&to, None).await, Err(403));
    assert_eq!(who(&to, Some("garbage")).await, Err(401));
    to.stop.cancel();
    let to = common::listening_with(|config| config.anonymous = false).await;
    assert_eq!(get(&to, "/version").await, Err(401));
    to.stop.cancel();
}

#[tokio::test]
async fn static_and_bootstrap_tokens() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("tokens");
    std::fs::write(&file, "s3cret,jane,7,\"system:masters,team\"\n").unwrap();
    let to = common::listening_with(|config| config.token_file = Some(file)).await;
    assert_eq!(who(&to, Some("s3cret")).await.as_deref(), Ok("jane"));
    assert_eq!(who(&to, Some("s3cret2")).await, Err(401));
    let secrets: Api<Secret> = Api::namespaced(admin(&to.server), "kube-system");
    let token = "abcdef.0123456789abcdef";
    assert_eq!(who(&to, Some(token)).await, Err(401));
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        },
    });
    create(secrets.clone(), secret).await;
    assert_eq!(
        who(&to, Some(token)).await.as_deref(),
        Ok("system:bootstrap:abcdef")
    );
    secrets
        .delete("bootstrap-token-abcdef", &Default::default())
        .await
        .unwrap();
    assert_eq!(who(&to, Some(token)).await, Err(401));
    to.stop.cancel();
}

async fn account(to: &Listening) -> Api<ServiceAccount> {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin(&to.server), "default");
    create(accounts.clone(), json!({"metadata": {"name": "robot"}})).await;
    accounts
}

async fn request(accounts: &Api<ServiceAccount>, spec: Value) -> kube::Result<String> {
    let request: TokenRequest = of(json!({"spec": spec}));
    let made = accounts
        .create_token_request("robot", &PostParams::default(), &request)
        .await?;
    Ok(made.status.unwrap().token.unwrap())
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let to = common::listening().await;
    let accounts = account(&to).await;
    let secrets: Api<Secret> = Api::namespaced(admin(&to.server), "default");
    create(secrets.clone(), json!({"metadata": {"name": "s"}})).await;
    let pods: Api<Pod> = Api::namespaced(admin(&to.server), "default");
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    });
    create(pods.clone(), pod).await;
    let bound = |kind: &str, name: &str| json!({"audiences": [], "boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let plain = request(&accounts, json!({"audiences": []})).await.unwrap();
    let to_pod = request(&accounts, bound("Pod", "p")).await.unwrap();
    let to_secret = request(&accounts, bound("Secret", "s")).await.unwrap();
    let name = "system:serviceaccount:default:robot";
    for token in [&plain, &to_pod, &to_secret] {
        assert_eq!(who(&to, Some(token)).await.as_deref(), Ok(name));
    }
    pods.delete("p", &Default::default()).await.unwrap();
    assert_eq!(who(&to, Some(&to_pod)).await, Err(401));
    secrets.delete("s", &Default::default()).await.unwrap();
    assert_eq!(who(&to, Some(&to_secret)).await, Err(401));
    accounts.delete("robot", &Default::default()).await.unwrap();
    assert_eq!(who(&to, Some(&plain)).await, Err(401));
    assert_eq!(
        refused(request(&accounts, bound("Pod", "p")).await).code,
        404
    );
    to.stop.cancel();
}

#[tokio::test]
async fn audiences_and_the_issuer_s_documents() {
    let to = common::listening().await;
    let accounts = account(&to).await;
    let vault = request(&accounts, json!({"audiences": ["vault", "x"]}))
        .await
        .unwrap();
    assert_eq!(who(&to, Some(&vault)).await, Err(401));
    let reviews: Api<TokenReview> = Api::all(admin(&to.server));
    let review = async |token: &str, audiences: Value| {
        let review = of(json!({"spec": {"token": token, "audiences": audiences}}));
        let made = reviews
            .create(&PostParams::default(), &review)
            .await
            .unwrap();
        made.status.unwrap()
    };
    let status = review(&vault, json!(["vault", "y"])).await;
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.audiences.unwrap(), ["vault"]);
    assert_ne!(review(&vault, json!([])).await.authenticated, Some(true));
    let token = request(&accounts, json!({"audiences": []})).await.unwrap();
    let client = to.bearer(Some(&token));
    let read = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let document = read("/.well-known/openid-configuration").await;
    assert_eq!(
        document["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
    assert!(
        document["jwks_uri"]
            .as_str()
            .unwrap()
            .ends_with("/openid/v1/jwks")
    );
    assert_eq!(read("/openid/v1/jwks").await["keys"][0]["alg"], "ES256");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_makes_tokens() {
    let to = common::listening().await;
    account(&to).await;
    let args = "create token robot --duration=20m --audience=vault";
    let token = kubectl(&to, args, "").await.unwrap();
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let told = kubectl(&to, "create token robot --duration=1m", "")
        .await
        .unwrap_err();
    assert!(
        told.contains("may not specify a duration less than 10 minutes"),
        "{told}"
    );
    let namespaces: Api<Namespace> = Api::all(admin(&to.server));
    namespaces.get("default").await.unwrap();
    to.stop.cancel();
}

/// Another cluster is an OIDC issuer like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_oidc_issuer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("https://{address}");
    let issuer_url = url.clone();
    let (issuer, _dir) = common::server_with(|config| {
        config.issuer = issuer_url;
        config.secure_port = address.port();
    })
    .await;
    let bindings: Api<ClusterRoleBinding> = Api::all(admin(&issuer));
    let public = json!({
        "metadata": {"name": "public"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
        "subjects": [{"kind": "Group", "name": "system:unauthenticated"}],
    });
    create(bindings, public).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin(&issuer), "default");
    create(accounts.clone(), json!({"metadata": {"name": "robot"}})).await;
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {
                "url": url,
                "certificateAuthority": issuer.pki().ca_certificate(),
                "audiences": ["cluster-b"],
            },
            "claimMappings": {"username": {"claim": "sub", "prefix": "a/"}},
        }],
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let token = request(&accounts, json!({"audiences": ["cluster-b"]}))
        .await
        .unwrap();
    let other = request(&accounts, json!({"audiences": ["cluster-c"]}))
        .await
        .unwrap();
    let stopped = stop.clone();
    let served = tokio::spawn(async move { issuer.serve(vec![listener], stopped).await });
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("authentication.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let to = common::listening_with(|config| config.authentication_file = Some(file)).await;
    let name = who(&to, Some(&token)).await;
    assert_eq!(name.as_deref(), Ok("a/system:serviceaccount:default:robot"));
    assert_eq!(who(&to, Some(&other)).await, Err(401));
    stop.cancel();
    served.await.unwrap().unwrap();
    assert_eq!(who(&to, Some(&token)).await, name, "its keys are known");
    to.stop.cancel();
}
