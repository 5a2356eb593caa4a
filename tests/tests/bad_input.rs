//! What bad input gets: a sentence with the field, flag or file and the remedy, and nothing lost.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peapod_tests::{Cluster, command};
use serde_json::Value;

#[test]
fn malformed_manifests_are_refused_and_named() -> Result<()> {
    let cluster = Cluster::up()?;
    for (manifest, expected) in [
        ("{\"apiVersion\": \"v1\", \"kind\":", "error parsing"),
        (
            "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n",
            "no matches for kind \"Nonsense\" in version \"v1\"",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\nmore: 1\n",
            "more",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: UPPER}\n",
            "metadata.name: Invalid value: \"UPPER\"",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n",
            "spec.containers[0].image: Required value",
        ),
    ] {
        let refusal = cluster
            .kubectl_with(&["apply", "-f", "-"], Some(manifest))?
            .refused()?;
        assert!(
            refusal.to_lowercase().starts_with("error") || refusal.contains("is invalid"),
            "{refusal}"
        );
        let mut own = Command::new(command::peapod()?);
        own.args(["apply", "-f", "-"])
            .env("KUBECONFIG", cluster.kubeconfig());
        let refusal = command::finish(own, Some(manifest))?.refused()?;
        assert!(refusal.starts_with("error: "), "{refusal}");
        assert!(refusal.contains(expected), "{expected:?} in {refusal}");
    }
    let long = "x".repeat(254);
    let refusal = cluster
        .kubectl(&format!("create configmap {long}"))?
        .refused()?;
    assert!(refusal.contains("must be no more than 253"), "{refusal}");
    Ok(())
}

#[test]
fn up_refuses_what_cannot_work() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let data = cluster.data_dir().to_string_lossy().into_owned();
    let run = command::run(
        command::peapod()?,
        ["up", "--data-dir", &data, "--listen", &address],
    )?;
    let refusal = run.refused()?;
    let holder = format!("(pid {}); stop it, or pass --listen", std::process::id());
    assert!(
        refusal.contains(&format!("{address} is taken by ")) && refusal.contains(&holder),
        "{refusal}"
    );

    let kubelet = std::net::TcpListener::bind("0.0.0.0:10250")?;
    let refusal = cluster.try_start::<&str>(&[])?.refused()?;
    assert!(
        refusal.contains(":10250 is taken by ") && refusal.contains("the node agent needs it"),
        "{refusal}"
    );
    drop(kubelet);

    for (words, expected) in [
        (&["up", "--nonsense"][..], "--nonsense"),
        (&["up", "--listen", "nowhere"], "--listen"),
        (&["up", "--pod-cidr", "10.244.0.0/99"], "--pod-cidr"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let run = command::run(command::peapod()?, words)?;
        assert_eq!(run.status, 2, "{words:?}");
        assert!(run.refused()?.contains(expected), "{words:?}");
    }

    let run = command::run(
        command::peapod()?,
        ["up", "--data-dir", &data, "--containerd", "/nowhere.sock"],
    )?;
    let refusal = run.refused()?;
    assert!(refusal.contains("/nowhere.sock"), "{refusal}");

    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid=65534", "--clear-groups"])
        .arg(command::peapod()?)
        .args(["up", "--data-dir", &data]);
    let refusal = command::finish(nobody, None)?.refused()?;
    assert!(
        refusal.contains("sudo") || refusal.contains("Permission denied"),
        "{refusal}"
    );
    Ok(())
}

/// Speaks HTTP to the API server as the administrator, in ways that no client library would.
struct Raw<'c> {
    cluster: &'c Cluster,
    /// CA, certificate and key, in files.
    files: [PathBuf; 3],
}

struct Answer {
    code: String,
    uploaded_bytes: u64,
    body: String,
}

impl<'c> Raw<'c> {
    fn new(cluster: &'c Cluster) -> Result<Self> {
        let text = std::fs::read_to_string(cluster.kubeconfig())?;
        let kubeconfig: Value = serde_saphyr::from_str(&text)?;
        let file = |pointer: &str, name: &str| -> Result<PathBuf> {
            let data = kubeconfig.pointer(pointer).and_then(Value::as_str);
            let path = cluster.data_dir().join(name);
            std::fs::write(&path, STANDARD.decode(data.context(pointer.to_owned())?)?)?;
            Ok(path)
        };
        let files = [
            file("/clusters/0/cluster/certificate-authority-data", "ca.pem")?,
            file("/users/0/user/client-certificate-data", "admin.pem")?,
            file("/users/0/user/client-key-data", "admin.key")?,
        ];
        Ok(Self { cluster, files })
    }

    /// POST to the ConfigMaps, with further arguments of curl.
    fn post(&self, arguments: &[&str]) -> Result<Answer> {
        let url = format!(
            "https://{}/api/v1/namespaces/default/configmaps",
            self.cluster.listen()
        );
        let mut curl = Command::new("curl");
        for (flag, file) in ["--cacert", "--cert", "--key"].iter().zip(&self.files) {
            curl.arg(flag).arg(file);
        }
        curl.args(["-s", "-X", "POST", "--max-time", "60"]);
        curl.args(["-w", "\n%{http_code} %{size_upload}"]);
        curl.args(arguments).arg(url);
        let said = command::finish(curl, None)?.stdout;
        let (body, last) = said.rsplit_once('\n').context("curl says nothing")?;
        let (code, uploaded) = last.split_once(' ').context("curl says little")?;
        Ok(Answer {
            code: code.to_owned(),
            uploaded_bytes: uploaded.parse()?,
            body: body.to_owned(),
        })
    }

    /// The resident memory of the instance, in bytes.
    fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.cluster.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? << 10)
    }
}

#[test]
fn a_hundred_megabytes_are_refused_at_once() -> Result<()> {
    const MIB: u64 = 1 << 20;
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let raw = Raw::new(&cluster)?;
    let path = cluster.data_dir().join("large");
    File::create(&path)?.set_len(100 * MIB)?;
    let upload = path.to_string_lossy().into_owned();
    let before = raw.memory()?;
    let ways: [&[&str]; 3] = [
        &["--http1.1"],
        &["--http1.1", "-H", "Expect:"],
        &[
            "--http1.1",
            "-H",
            "Expect:",
            "-H",
            "Transfer-Encoding: chunked",
        ],
    ];
    for way in ways {
        for _ in 0..3 {
            let mut arguments = vec!["-T", &upload, "-H", "Content-Type: application/json"];
            arguments.extend(way);
            let answer = raw.post(&arguments)?;
            assert_eq!(answer.code, "413", "{way:?}: {}", answer.body);
            // Whoever asks before it sends is spared all of it.
            if way == ["--http1.1"] {
                assert_eq!(answer.uploaded_bytes, 0);
            }
        }
    }
    // Over HTTP/2, as Go's clients do.
    let raw_create = "create --raw /api/v1/namespaces/default/configmaps -f";
    for _ in 0..3 {
        let refusal = cluster
            .kubectl(&format!("{raw_create} {upload}"))?
            .refused()?;
        assert!(
            refusal.contains("Request entity too large: limit is 3145728"),
            "{refusal}"
        );
    }
    let grown = raw.memory()?.saturating_sub(before);
    assert!(grown < 64 * MIB, "memory has grown by {grown} bytes");
    assert_eq!(cluster.kubectl("get --raw /readyz")?.ok()?, "ok");
    Ok(())
}

#[test]
fn bodies_that_are_malformed_or_cut_short_are_refused_and_named() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let raw = Raw::new(&cluster)?;
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    let file = cluster.data_dir().join("body");
    for (kind, body) in [
        ("application/json", &b""[..]),
        ("application/json", b"{"),
        (
            "application/json",
            b"{\"apiVersion\":\"v1\",\"kind\":\"Conf",
        ),
        ("application/json", b"[]"),
        ("application/json", b"\0"),
        ("application/json", deep.as_bytes()),
        ("application/yaml", b"apiVersion: v1\nkind: ["),
        ("application/yaml", b"a: &a [*a, *a]\n"),
        ("application/vnd.kubernetes.protobuf", b"k8s"),
        (
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\x0a\xff\xff\xff\xff\x0f",
        ),
    ] {
        let header = format!("Content-Type: {kind}");
        std::fs::write(&file, body)?;
        let upload = format!("@{}", file.display());
        let answer = raw.post(&["-H", &header, "--data-binary", &upload])?;
        let what = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(answer.code, "400", "{kind} {what:?}: {}", answer.body);
        let status: Value = serde_json::from_str(&answer.body)?;
        assert_eq!(status["kind"], "Status");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.len() > 10 && message.len() < 1000, "{message}");
    }
    // A client that promises more than it sends, and goes away.
    let short = ["-H", "Content-Length: 1000", "--max-time", "1", "-d", "{}"];
    assert_eq!(raw.post(&short)?.code, "000");
    let names = cluster.kubectl("get configmaps -o name")?.ok()?;
    assert_eq!(names, "configmap/kube-root-ca.crt\n");
    assert!(!cluster.log().contains("panicked"), "{}", cluster.log());
    Ok(())
}

#[test]
fn names_that_are_too_long_and_updates_that_conflict_are_refused() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let long = "x".repeat(64);
    for (line, expected) in [
        (
            format!("create namespace {long}"),
            "must be no more than 63",
        ),
        (
            format!("create service clusterip {long} --tcp=80"),
            "must be no more than 63",
        ),
        (
            format!("label namespace default a={long}"),
            "must be no more than 63",
        ),
    ] {
        let refusal = cluster.kubectl(&line)?.refused()?;
        assert!(refusal.contains(expected), "{line}: {refusal}");
    }
    let manifest = |value: &str, version: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\ndata: {{a: {value}}}\nmetadata: {{name: c, resourceVersion: '{version}'}}\n"
        )
    };
    cluster.kubectl("create configmap c")?.ok()?;
    let first = cluster.field("configmap/c", "{.metadata.resourceVersion}")?;
    let replace = |value: &str| {
        let text = manifest(value, &first);
        cluster.kubectl_with(&["replace", "-f", "-"], Some(&text))
    };
    replace("one")?.ok()?;
    let refusal = replace("two")?.refused()?;
    assert!(
        refusal.contains("the object has been modified; please apply your changes to the latest"),
        "{refusal}"
    );
    assert_eq!(cluster.field("configmap/c", "{.data.a}")?, "one");
    Ok(())
}
