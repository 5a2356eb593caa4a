//! Paths that are no resources: health, version, metrics, discovery, OpenAPI, the keys of
//! tokens.

use std::net::SocketAddr;

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::Api;
use crate::discovery;
use crate::exposition;
use crate::openapi;
use crate::rest::call::Reply;
use crate::rest::negotiate::{Accept, Offer, is_for_people};
use crate::rest::query::Query;
use crate::snapshot;
use crate::status::{Result, Status};

/// The Kubernetes version whose API this is.
const MINOR: &str = "37";
/// The oldest version that servers beside this one may be of, as upstream counts it.
const MIN_COMPATIBLE: &str = "36";

/// Answers a path that is no resource.
pub async fn serve(api: &Api, parts: &Parts, path: &str, query: &Query) -> Result<Reply> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "" => return Ok(json_reply(&json!({ "paths": root_paths(api) }))),
        "/version" => return Ok(json_reply(&version(&api.config.git_commit))),
        "/metrics" => {
            let (kind, text) = exposition::negotiated(&parts.headers, api.metrics.text());
            return Ok(Reply::of(StatusCode::OK, kind, text));
        }
        snapshot::PATH if parts.method == Method::GET => return snapshot::serve(api).await,
        "/.well-known/openid-configuration" => return Ok(json_reply(&issuer(api))),
        "/openid/v1/jwks" => {
            let keys = api.tokens.jwks().to_string();
            return Ok(Reply::of(StatusCode::OK, "application/jwk-set+json", keys));
        }
        _ => {}
    }
    for (probe, _) in PROBES {
        if let Some(rest) = trimmed.strip_prefix(probe)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return health(api, probe, rest.trim_start_matches('/'), query).await;
        }
    }
    if let Some(document) = trimmed.strip_prefix("/openapi/") {
        return openapi::serve(
            &api.registry,
            &api.aggregation.all(),
            document,
            &parts.headers,
            (query.get("hash"), api.now()),
        )
        .await;
    }
    let offer = match trimmed {
        "/api" | "/apis" => Offer::Discovery,
        _ => Offer::Plain,
    };
    let mut accept = Accept::of(&parts.headers, offer)?;
    accept.pretty |= is_for_people(query.get("pretty"), &parts.headers);
    let served = discovery::Served {
        registry: &api.registry,
        remotes: &api.aggregation.all(),
        config: &api.config,
    };
    served
        .answer(trimmed, accept, &parts.headers)
        .unwrap_or_else(|| Err(Status::no_such_path()))
}

fn json_reply(document: &Value) -> Reply {
    Reply::json(StatusCode::OK, document.to_string())
}

/// How others check service account tokens, as OpenID Connect Discovery 1.0 says it.
fn issuer(api: &Api) -> Value {
    let config = &api.config;
    let address = SocketAddr::new(config.advertise_address, config.secure_port);
    json!({
        "issuer": config.issuer,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn version(git_commit: &str) -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "emulationMajor": "1",
        "emulationMinor": MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": MIN_COMPATIBLE,
        "gitVersion": git_version(),
        "gitCommit": git_commit,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

/// The version, as `v1.37.0+peapod-0.1.0`.
pub fn git_version() -> String {
    format!("v1.{MINOR}.0+peapod-{}", env!("CARGO_PKG_VERSION"))
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn root_paths(api: &Api) -> Vec<String> {
    let mut paths = Vec::new();
    for (group, version) in api.registry.versions() {
        match group.as_str() {
            "" => paths.push(format!("/api/{version}")),
            group => {
                paths.push(format!("/apis/{group}"));
                paths.push(format!("/apis/{group}/{version}"));
            }
        }
    }
    for (probe, checks) in PROBES {
        paths.extend(checks.iter().map(|check| format!("{probe}/{check}")));
    }
    for path in [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The probes, and what each checks.
const PROBES: [(&str, &[&str]); 3] = [
    ("/healthz", &["ping", "etcd"]),
    ("/livez", &["ping", "etcd"]),
    ("/readyz", &["ping", "etcd", "shutdown"]),
];

/// The checks of a probe, each with its outcome.
async fn checks(api: &Api, probe: &str) -> Vec<(&'static str, Result<(), String>)> {
    let store = api.store.fence().await;
    let mut all = vec![
        ("ping", Ok(())),
        ("etcd", store.map(drop).map_err(|fault| fault.to_string())),
    ];
    if probe == "/readyz" {
        let stopping = api.draining.is_cancelled();
        let outcome = if stopping {
            Err("process is shutting down".to_owned())
        } else {
            Ok(())
        };
        all.push(("shutdown", outcome));
    }
    all
}

async fn health(api: &Api, probe: &str, one: &str, query: &Query) -> Result<Reply> {
    let mut checks = checks(api, probe).await;
    if !one.is_empty() {
        checks.retain(|(name, _)| *name == one);
        if checks.is_empty() {
            return Err(Status::no_such_path());
        }
    }
    let mut unknown: Vec<&str> = query.all("exclude").collect();
    unknown.retain(|one| !checks.iter().any(|(name, _)| name == one));
    checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == *name));
    let failed = checks.iter().any(|(_, outcome)| outcome.is_err());
    let name = probe.trim_start_matches('/');
    let mut text = String::new();
    for (check, outcome) in &checks {
        match outcome {
            Ok(()) => text += &format!("[+]{check} ok\n"),
            Err(why) => text += &format!("[-]{check} failed: {why}\n"),
        }
    }
    if !unknown.is_empty() {
        let unknown = unknown.join("\",\"");
        text +=
            &format!("warn: some health checks cannot be excluded: no matches for \"{unknown}\"\n");
    }
    let verbose = !query.get("verbose").is_empty() || query.flag("verbose")?;
    let (code, text) = match (failed, verbose) {
        (true, _) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{text}{name} check failed\n"),
        ),
        (false, true) => (StatusCode::OK, format!("{text}{name} check passed\n")),
        (false, false) => (StatusCode::OK, "ok".to_owned()),
    };
    Ok(Reply::of(code, "text/plain; charset=utf-8", text))
}
