//! Images that reach for the host: what they bring stays in the container's own file system.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use peapod_nodelet::runtime::{Quiet, Runtime};
use sha2::{Digest, Sha256};

use crate::support::Node;

/// A tar archive, names and links just as they are given.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(&mut self, kind: tar::EntryType, name: &str, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        if kind == tar::EntryType::Char {
            // The kernel's memory of messages.
            header.set_device_major(1).unwrap();
            header.set_device_minor(11).unwrap();
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        self.add(tar::EntryType::Regular, name, "", content);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// An archive, in Docker's older form, of an image with these layers.
fn archive(path: &Path, name: &str, layers: &[Vec<u8>]) {
    let digest = |layer: &Vec<u8>| {
        let bytes = Sha256::digest(layer);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"sha256:{text}\"")
    };
    let ids: Vec<String> = layers.iter().map(digest).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/bin/busybox","sh"]}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    );
    let files = (0..layers.len()).map(|n| format!("\"{n}/layer.tar\""));
    let files: Vec<String> = files.collect();
    let manifest = format!(
        r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":[{}]}}]"#,
        files.join(",")
    );
    let mut tar = Tar::default();
    for (n, layer) in layers.iter().enumerate() {
        tar.file(&format!("{n}/layer.tar"), layer);
    }
    tar.file("c.json", config.as_bytes());
    tar.file("manifest.json", manifest.as_bytes());
    File::create(path).unwrap().write_all(&tar.end()).unwrap();
}

fn base() -> Vec<u8> {
    let mut tar = Tar::default();
    tar.add(tar::EntryType::Directory, "bin/", "", b"");
    tar.file("bin/busybox", &fs::read("/bin/busybox").unwrap());
    for name in ["bin/sh", "bin/ls", "bin/cat"] {
        tar.add(tar::EntryType::Symlink, name, "busybox", b"");
    }
    tar.end()
}

async fn load(node: &Node, name: &str, layer: Tar) -> Result<(), String> {
    let path = node.dir.path().join("hostile.tar");
    archive(&path, name, &[base(), layer.end()]);
    let images = node.runtime().images();
    let loaded = images.load(&path, &Quiet).await;
    loaded.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_writes_nowhere_else_and_its_devices_are_dead() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let outside: PathBuf = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let at = outside.display().to_string();
    let up = "../".repeat(12);
    let mut layer = Tar::default();
    layer.file(&format!("{up}{}/climbed", at.trim_start_matches('/')), b"x");
    layer.file(&format!("{at}/absolute"), b"x");
    // A link to the outside, and a file behind it.
    layer.add(tar::EntryType::Symlink, "door", &at, b"");
    layer.file("door/through", b"x");
    layer.add(tar::EntryType::Char, "kmsg", "", b"");
    load(&node, "hostile:v1", layer).await.unwrap();
    let mut spec = node.container("web", "app", "");
    spec.image = "hostile:v1".into();
    let script = format!("cat /kmsg 2>&1; cat {at}/secret 2>&1; ls {at}; echo done");
    spec.command = vec!["/bin/sh".into(), "-c".into(), script];
    let (exit, log) = node.run_to_end(&spec).await;
    assert_eq!(exit.code, 0, "{log}");
    assert!(
        log.contains("Operation not permitted"),
        "the device can be read: {log}"
    );
    assert!(!log.contains("secret\n"), "{log}");
    assert!(log.contains("done"), "{log}");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "something was written outside: {left:?}");
    node.runtime().remove_sandbox("web").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_link_out_of_a_layer_is_refused_or_stays_inside() {
    let node = Node::start().await;
    let secret = node.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    for (n, link) in ["../".repeat(12), String::new()].iter().enumerate() {
        let target = format!("{link}{}", secret.display());
        let mut layer = Tar::default();
        layer.add(tar::EntryType::Link, "stolen", &target, b"");
        let loaded = load(&node, &format!("stolen:v{n}"), layer).await;
        let error = loaded.expect_err("there is no such file in the image");
        assert!(!error.is_empty());
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1, "{target}");
        let images = node.runtime().images().list().await.unwrap();
        let known = images.iter().flat_map(|image| &image.references);
        let mut stolen = known.filter(|name| name.contains("stolen"));
        assert_eq!(
            stolen.next(),
            None,
            "what could not be unpacked is no image"
        );
    }
}
