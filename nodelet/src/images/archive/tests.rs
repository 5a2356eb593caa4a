use proptest::prelude::*;

use super::*;
use crate::images::assemble::{Assemble, Entry};
use crate::images::manifest::OCI_LAYER;

/// A small sound archive.
fn sound() -> Vec<u8> {
    let entry = Entry::File {
        path: "/app".into(),
        mode: 0o755,
        content: b"x".to_vec(),
    };
    let image = Assemble {
        reference: "app:v1".into(),
        entries: vec![entry],
        ..Assemble::default()
    };
    let mut bytes = Vec::new();
    image.write(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<ArchiveImage>, ImageError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, bytes).unwrap();
    Archive::open(&path)?.images(&Platform::host())
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn dockers_older_form_is_converted() {
    let layer = tar_of(&[("app", b"x")]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/app"]}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&layer)
    );
    let manifest =
        r#"[{"Config":"abc.json","RepoTags":["app:v1","app:v2"],"Layers":["abc/layer.tar"]}]"#;
    let images = read(&tar_of(&[
        ("abc/layer.tar", &layer),
        ("abc.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ]))
    .unwrap();
    let names: Vec<String> = images[0]
        .references
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        ["docker.io/library/app:v1", "docker.io/library/app:v2"]
    );
    assert_eq!(images[0].manifest.layers[0].digest, digest_of(&layer));
    assert_eq!(images[0].manifest.layers[0].media_type, OCI_LAYER);
}

#[test]
fn bombs_are_refused() {
    let digest = |text: &str| digest_of(text.as_bytes());
    // An index that leads to itself cannot have a right digest; a deep one can.
    let mut files: Vec<(String, String)> = Vec::new();
    let mut inner = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
    for _ in 0..10 {
        let path = format!("blobs/{}", digest(&inner).replacen(':', "/", 1));
        let entry = format!(
            r#"{{"digest":"{}","size":{}}}"#,
            digest(&inner),
            inner.len()
        );
        files.push((path, inner));
        inner = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
    }
    files.push(("index.json".to_owned(), inner));
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_bytes()))
        .collect();
    let error = read(&tar_of(&borrowed)).unwrap_err().to_string();
    assert!(error.contains("nested deeper"), "{error}");

    let huge = vec![b' '; DOCUMENT_MAX as usize + 1];
    let error = read(&tar_of(&[("index.json", &huge)]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("at most"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_archive_is_an_error_or_an_image_never_a_panic(
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 1..64),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sound();
        let at = at.index(bytes.len());
        for (byte, new) in bytes[at..].iter_mut().zip(with) {
            *byte = new;
        }
        let _ = read(&bytes);
        bytes.truncate(end.index(bytes.len()));
        let _ = read(&bytes);
    }
}
