//! A large image pulled from a registry on this machine, beside `ctr images pull` through a containerd
//! as it is delivered: the one that `peapod up` starts decompresses layers by a program of ours.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command, wait};
use serde_json::json;

use crate::ctr::Ctr;
use crate::report::{Report, alternate, ms, percentile};
use crate::stock::Stock;

/// Pulls of each.
const ROUNDS: usize = 3;
const LAYERS: usize = 8;
/// Of a layer before it is compressed; hexadecimal digits of noise, so that gzip halves it.
const LAYER_BYTES: usize = 50_000_000;
const NAME: &str = "bench/large";

/// Alternates the two; each finds nothing of the image.
pub fn measure(report: &mut Report) -> Result<()> {
    let cluster = Cluster::up()?;
    let stock = Stock::start()?;
    let ctr = Ctr::at(stock.socket());
    let dir = tempfile::tempdir()?;
    let registry = Registry::start(dir.path())?;
    let (id, bytes) = registry.push_large_image(dir.path())?;
    let image = format!("{}/{NAME}:v1", registry.host);
    let pull = |_| {
        let took = timed(|| cluster.peapod(["image", "pull", &image])?.ok().map(drop))?;
        cluster.peapod(["image", "remove", &id])?.ok()?;
        Ok(took)
    };
    let reference = |_| {
        let took = timed(|| ctr.pull(&image))?;
        ctr.forget(&image)?;
        Ok(took)
    };
    let (mut ours, mut theirs) = alternate(ROUNDS, pull, reference)?;
    let (fastest, reference) = (percentile(&mut ours, 0), percentile(&mut theirs, 0));
    let (median, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    report.add(
        &format!("pull of {} MB in {LAYERS} layers", bytes / 1_000_000),
        format!(
            "{} p50, {} fastest, {:.2} x and {:.2} x",
            ms(median),
            ms(fastest),
            ratio(median, theirs),
            ratio(fastest, reference)
        ),
        "0.8 x",
        format!(
            "ctr images pull: {} p50, {} fastest",
            ms(theirs),
            ms(reference)
        ),
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// Debian's docker-registry on loopback, ended with this.
struct Registry {
    host: String,
    child: Child,
}

// === impl Registry ===

impl Registry {
    fn start(dir: &Path) -> Result<Self> {
        let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = dir.join("config.yml");
        let root = dir.join("blobs");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{host}'}}\n",
            root.display()
        );
        fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry is not installed; `make bench` installs it")?;
        let registry = Self { host, child };
        wait::until("the registry", || {
            Ok(TcpStream::connect(&registry.host).is_ok())
        })?;
        Ok(registry)
    }

    /// Gives its ID and the size of its layers.
    fn push_large_image(&self, dir: &Path) -> Result<(String, u64)> {
        let (mut layers, mut diff_ids, mut total) = (Vec::new(), Vec::new(), 0);
        for n in 0..LAYERS {
            let tar = layer(dir, n)?;
            diff_ids.push(digest(&tar)?);
            let zipped = zip(&tar)?;
            let (size, digest) = (fs::metadata(&zipped)?.len(), digest(&zipped)?);
            self.push_blob(&zipped, &digest)?;
            fs::remove_file(&zipped)?;
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest,
                "size": size,
            }));
            total += size;
        }
        let config = dir.join("config.json");
        let document = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        fs::write(&config, document.to_string())?;
        let config_digest = digest(&config)?;
        self.push_blob(&config, &config_digest)?;
        let manifest = dir.join("manifest.json");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": fs::metadata(&config)?.len(),
            },
            "layers": layers,
        });
        fs::write(&manifest, document.to_string())?;
        let to = format!("http://{}/v2/{NAME}/manifests/v1", self.host);
        put(&manifest, &to, media_type)?;
        Ok((config_digest, total))
    }

    fn push_blob(&self, file: &Path, digest: &str) -> Result<()> {
        let begin = format!("http://{}/v2/{NAME}/blobs/uploads/", self.host);
        let format = ["-sS", "--fail", "-X", "POST", "-o", "/dev/null", "-w"];
        let words = format.iter().copied();
        let words = words.chain(["%header{location}", begin.as_str()]);
        let location = command::run("curl", words)?.ok()?;
        let to = format!("{location}&digest={digest}");
        put(file, &to, "application/octet-stream")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the registry could not be ended: {error}");
        }
    }
}

/// As images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer with one file of noise.
fn layer(dir: &Path, n: usize) -> Result<PathBuf> {
    let name = format!("file-{n}");
    let mut noise = vec![0; LAYER_BYTES / 2];
    File::open("/dev/urandom")?.read_exact(&mut noise)?;
    let digits: Vec<u8> = noise
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| b"0123456789abcdef"[usize::from(digit)])
        .collect();
    File::create(dir.join(&name))?.write_all(&digits)?;
    let tar = dir.join(format!("layer-{n}.tar"));
    let (dir_text, tar_text) = (dir.to_string_lossy(), tar.to_string_lossy());
    command::run("tar", ["-C", &*dir_text, "-cf", &*tar_text, &name])?.ok()?;
    fs::remove_file(dir.join(name))?;
    Ok(tar)
}

/// Compresses a file, and gives the new one.
fn zip(tar: &Path) -> Result<PathBuf> {
    command::run("gzip", ["-1", &*tar.to_string_lossy()])?.ok()?;
    Ok(tar.with_extension("tar.gz"))
}

fn digest(file: &Path) -> Result<String> {
    let said = command::run("sha256sum", [file])?.ok()?;
    let digits = said.split(' ').next().context("sha256sum says nothing")?;
    Ok(format!("sha256:{digits}"))
}

fn put(file: &Path, to: &str, media_type: &str) -> Result<()> {
    let kind = format!("Content-Type: {media_type}");
    let file = file.to_string_lossy();
    let words = ["-sS", "--fail", "-X", "PUT", "-H", &kind, "-T", &*file, to];
    command::run("curl", words)?.ok().map(drop)
}
