//! How long a container takes from nothing to running, beside `ctr run -d` of the same image on
//! the same containerd, in turns. Needs root, containerd, ctr and a static `/bin/busybox`.
//!
//! ```text
//! cargo run -p peapod-nodelet --example container_timing -- 20 crun
//! cargo run -p peapod-nodelet --example container_timing -- 20 runc containerd
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use peapod_api::attach::PodRef;
use peapod_nodelet::images::assemble::Assemble;
use peapod_nodelet::runtime::containerd::{Config, Containerd, launch, purge};
use peapod_nodelet::runtime::{
    ContainerSpec, NamespaceMode, QosClass, Quiet, Resources, Runtime, SandboxSpec,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const IMAGE: &str = "docker.io/library/busybox:timing";

/// The steps of one container.
#[derive(Default)]
struct Samples {
    sandbox: Vec<Duration>,
    create: Vec<Duration>,
    start: Vec<Duration>,
    second: Vec<Duration>,
    total: Vec<Duration>,
    ctr: Vec<Duration>,
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "log-writer") {
        return peapod_nodelet::logs::writer_main(&words[1..]).map_err(Into::into);
    }
    if words.first().is_some_and(|word| word == "shim") {
        return peapod_nodelet::shim_main(&words[1..]).map_err(Into::into);
    }
    let rounds = words.first().map_or(Ok(20), |word| word.parse())?;
    let oci_runtime = words.get(1).map_or("runc", String::as_str);
    let own_shim = words.get(2).is_none_or(|word| word != "containerd");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(rounds, oci_runtime, own_shim))
}

async fn measure(rounds: usize, oci_runtime: &str, own_shim: bool) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("peapod-timing-")
        .tempdir()?;
    let containerd = dir.path().join("containerd");
    let address = launch::find_or_start(&launch::Choice::Private, &containerd, None).await?;
    let mut config = Config::new(address.clone(), "peapod-timing", dir.path().join("run"));
    config.oci_runtime = oci_runtime.to_owned();
    if !own_shim {
        config.shim = None;
    }
    let runtime = Containerd::start(config.clone()).await?;
    let archive = dir.path().join("busybox.tar");
    Assemble::from_busybox(IMAGE, Path::new("/bin/busybox"), &["sh", "sleep"])?
        .write(File::create(&archive)?)?;
    runtime.images().load(&archive, &Quiet).await?;

    let mut samples = Samples::default();
    for round in 0..rounds {
        one_of_ours(&runtime, dir.path(), round, &mut samples).await?;
        samples.ctr.push(one_of_ctr(&address, round)?);
    }
    print(&mut samples, oci_runtime);
    drop(runtime);
    purge::purge(&config).await?;
    launch::stop(&containerd).await?;
    Ok(())
}

async fn one_of_ours(
    runtime: &Containerd,
    dir: &Path,
    round: usize,
    samples: &mut Samples,
) -> Result<()> {
    let uid = format!("pod-{round}");
    let begin = Instant::now();
    runtime.create_sandbox(&sandbox(&uid)).await?;
    samples.sandbox.push(begin.elapsed());
    let mut spec = ContainerSpec {
        pod_uid: uid.clone(),
        name: "app".into(),
        image: IMAGE.into(),
        command: ["sleep", "1000"].map(str::to_owned).into(),
        log_path: Some(dir.join("logs").join(&uid).join("0.log")),
        ..ContainerSpec::default()
    };
    let step = Instant::now();
    let id = runtime.create_container(&spec).await?;
    samples.create.push(step.elapsed());
    let step = Instant::now();
    runtime.start_container(&id).await?;
    samples.start.push(step.elapsed());
    samples.total.push(begin.elapsed());

    spec.name = "second".into();
    let step = Instant::now();
    let id = runtime.create_container(&spec).await?;
    runtime.start_container(&id).await?;
    samples.second.push(step.elapsed());
    runtime.remove_sandbox(&uid).await?;
    Ok(())
}

fn one_of_ctr(address: &Path, round: usize) -> Result<Duration> {
    let id = format!("ctr-{round}");
    let ctr = |words: &[&str]| {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(address)
            .args(["--namespace", "peapod-timing"])
            .args(words);
        command
    };
    let begin = Instant::now();
    let output = ctr(&["run", "--detach", "--null-io", IMAGE, &id, "sleep", "1000"]).output()?;
    let elapsed = begin.elapsed();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    ctr(&["task", "delete", "--force", &id]).output()?;
    ctr(&["container", "delete", &id]).output()?;
    Ok(elapsed)
}

fn print(samples: &mut Samples, oci_runtime: &str) {
    println!("{oci_runtime:<36} {:>9} {:>9}", "p50 ms", "max ms");
    for (what, samples) in [
        ("sandbox (namespaces, cgroup)", &mut samples.sandbox),
        ("create (snapshot, record)", &mut samples.create),
        ("start (shim, OCI runtime)", &mut samples.start),
        ("pod: nothing to running", &mut samples.total),
        ("second container of the pod", &mut samples.second),
        ("ctr run -d", &mut samples.ctr),
    ] {
        samples.sort();
        let ms = |sample: Option<&Duration>| sample.map_or(0.0, |s| s.as_secs_f64() * 1e3);
        let (p50, max) = (ms(samples.get(samples.len() / 2)), ms(samples.last()));
        println!("{what:<36} {p50:>9.1} {max:>9.1}");
    }
}

fn sandbox(uid: &str) -> SandboxSpec {
    SandboxSpec {
        pod: PodRef {
            namespace: "default".into(),
            name: uid.into(),
            uid: uid.into(),
        },
        hostname: uid.into(),
        network: NamespaceMode::Pod,
        own_hostname: false,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        own_users: false,
        sysctls: BTreeMap::new(),
        qos: QosClass::BestEffort,
        resources: Resources::default(),
        runtime_handler: None,
        labels: BTreeMap::new(),
    }
}
