//! The store's bad days, seen by a whole cluster: damaged files, a full disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command, wait};

/// Writes so many ConfigMaps, beginning with the number `from`.
fn write_some(cluster: &Cluster, from: usize, count: usize) -> Result<()> {
    let manifest: String = (from..from + count)
        .map(|n| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kept-{n}}}\n\
                 data: {{number: '{n}'}}\n"
            )
        })
        .collect();
    cluster.apply(&manifest).map(drop)
}

/// All of them are there, with what was written.
fn must_have(cluster: &Cluster, count: usize) -> Result<()> {
    for n in [0, count / 2, count - 1] {
        let written = cluster.field(&format!("configmap/kept-{n}"), "{.data.number}")?;
        assert_eq!(written, n.to_string());
    }
    let names = cluster.kubectl("get configmaps -o name")?.ok()?;
    assert_eq!(names.matches("/kept-").count(), count, "{names}");
    Ok(())
}

fn newest_revision(cluster: &Cluster) -> Result<u64> {
    let list = cluster.kubectl("get --raw /api/v1/namespaces?limit=1")?;
    let list: serde_json::Value = serde_json::from_str(&list.ok()?)?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok(version.context("no resourceVersion")?.parse()?)
}

/// Leaves nothing of a file intact.
fn ruin(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    bytes.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x55);
    Ok(fs::write(file, bytes)?)
}

#[test]
fn a_damaged_store_is_set_aside_restored_and_told_of() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    write_some(&cluster, 0, 40)?;
    let before = newest_revision(&cluster)?;
    cluster.stop()?;
    let store = cluster.data_dir().join("store");
    for file in fs::read_dir(store.join("db"))? {
        let path = file?.path();
        if path.is_file() {
            ruin(&path)?;
        }
    }

    let said = cluster.start()?;
    let warning = said
        .lines()
        .find(|line| line.starts_with("warning: "))
        .with_context(|| format!("no warning in {said}"))?;
    assert!(
        warning.contains(&format!("the store {} was damaged", store.display())),
        "{warning}"
    );
    must_have(&cluster, 40)?;
    assert!(newest_revision(&cluster)? > before, "revisions go on");
    write_some(&cluster, 40, 1)?;

    let told = cluster.warnings()?;
    let (_, aside) = told
        .split_once("was set aside as ")
        .with_context(|| format!("where is the damaged one? {told}"))?;
    let aside = aside.split(". ").next().unwrap_or_default();
    assert!(Path::new(aside).exists(), "{aside}");
    let data = cluster.data_dir().to_string_lossy().into_owned();
    let text = cluster.peapod(["status", "--data-dir", &data])?.ok()?;
    assert!(
        text.contains("was damaged") && text.contains(aside),
        "{text}"
    );

    cluster.stop()?;
    let said = cluster.start()?;
    assert!(!said.contains("was damaged"), "it is sound now: {said}");
    must_have(&cluster, 41)
}

/// Takes all the room that is left.
fn fill_up(ballast: &Path) -> Result<()> {
    let mut file = File::create(ballast)?;
    for size in [1 << 20, 1 << 10] {
        let block = vec![1; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_goes_on() -> Result<()> {
    let cluster = Cluster::prepare_on_disk(192)?;
    cluster.start()?;
    assert_eq!(cluster.warnings()?, "");
    write_some(&cluster, 0, 20)?;
    let ballast = cluster.data_dir().join("ballast");
    fill_up(&ballast)?;

    let refusal = cluster.kubectl("create configmap refused")?.refused()?;
    let disk = format!("the disk of {}", cluster.data_dir().display());
    for part in [&disk, "is full", "free some space"] {
        assert!(refusal.contains(part), "{part} in {refusal}");
    }
    let refusal = cluster
        .peapod(["create", "configmap", "refused"])?
        .refused()?;
    assert!(refusal.contains("is full"), "{refusal}");
    must_have(&cluster, 20)?;
    let warnings = cluster.warnings()?;
    assert!(
        warnings.contains(&disk) && warnings.contains("nearly full"),
        "{warnings}"
    );

    fs::remove_file(&ballast)?;
    wait::until("writes to go on by themselves", || {
        Ok(cluster.kubectl("create configmap taken")?.status == 0)
    })?;
    write_some(&cluster, 20, 20)?;
    assert_eq!(cluster.warnings()?, "");

    // It dies while the disk is full, and cannot come back until there is room.
    fill_up(&ballast)?;
    cluster.crash()?;
    let refusal = cluster.try_start::<&str>(&[])?.refused()?;
    assert!(
        refusal.contains("No space left on device")
            && refusal.contains(&*cluster.data_dir().to_string_lossy()),
        "{refusal}"
    );
    fs::remove_file(&ballast)?;
    cluster.start()?;
    must_have(&cluster, 40)?;
    write_some(&cluster, 40, 1)?;
    let refused = cluster.kubectl("get configmap refused")?;
    assert_ne!(refused.status, 0, "what was refused is not there");
    let ruleset = command::run("nft", ["list", "tables"])?.ok()?;
    assert!(ruleset.contains("table ip peapod"), "{ruleset}");
    Ok(())
}
