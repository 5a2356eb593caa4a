//! Follows the directory of manifests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use peapod_api::k8s_openapi;
use tokio::sync::mpsc;

use super::manifest;
use crate::dir_watch::Watch;

/// Longest manifest, bytes; the API server takes none that is longer.
const MANIFEST_MAX: u64 = 1 << 20;
/// Most manifests; more than pods fit on a node.
const MANIFESTS_MAX: usize = 1024;
/// Until a directory that is not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);
/// After a change, for what is being written to be complete.
const SETTLE: Duration = Duration::from_millis(100);

/// The static pods by UID.
pub type Pods = BTreeMap<String, Pod>;

/// Sends the complete set of static pods at first and after each change, until nobody listens.
pub async fn follow(path: PathBuf, node: String, sets: mpsc::Sender<Pods>) {
    let dir = match path.is_file() {
        true => path
            .parent()
            .map_or_else(|| path.clone(), Path::to_path_buf),
        false => path.clone(),
    };
    loop {
        // Watched before it is read, so that no change is missed.
        let watch = Watch::new(&dir);
        let (from, name) = (path.clone(), node.clone());
        let read = tokio::task::spawn_blocking(move || read(&from, &name)).await;
        if sets.send(read.unwrap_or_default()).await.is_err() {
            return;
        }
        match watch {
            Ok(mut watch) => {
                if let Err(error) = watch.changed().await {
                    tracing::warn!(path = %dir.display(), %error, "cannot follow the static pods");
                }
                tokio::time::sleep(SETTLE).await;
            }
            Err(error) => {
                let path = dir.display();
                tracing::warn!(%path, %error, "no static pods; does the directory exist?");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// The pods of a directory's files, or of one file. What is no pod is told of and left out.
fn read(path: &Path, node: &str) -> Pods {
    let mut files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.to_path_buf()],
    };
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && file.is_file()
    });
    files.sort();
    files.truncate(MANIFESTS_MAX);
    let mut pods = Pods::new();
    for file in files {
        let pod = text(&file)
            .map_err(|error| error.to_string())
            .and_then(|text| manifest::parse(&text, node));
        match pod {
            Ok(pod) => {
                pods.insert(pod.metadata.uid.clone().unwrap_or_default(), pod);
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), error, "no static pod, left out");
            }
        }
    }
    pods
}

fn text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(file)?;
    file.take(MANIFEST_MAX + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()).is_ok_and(|length| length <= MANIFEST_MAX) {
        true => Ok(text),
        false => Err(io::Error::other(format!(
            "it is longer than {MANIFEST_MAX} bytes"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!("{{metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: i}}]}}}}")
    }

    fn names(pods: &Pods) -> Vec<&str> {
        let mut names: Vec<_> = pods
            .values()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), manifest("a")).unwrap();
        fs::write(dir.path().join(".hidden"), manifest("hidden")).unwrap();
        fs::write(dir.path().join("broken.yaml"), "{").unwrap();
        let (sender, mut sets) = mpsc::channel(1);
        let task = tokio::spawn(follow(dir.path().into(), "n".into(), sender));
        assert_eq!(names(&sets.recv().await.unwrap()), ["a-n"]);
        fs::write(dir.path().join("b.yaml"), manifest("b")).unwrap();
        while names(&sets.recv().await.unwrap()) != ["a-n", "b-n"] {}
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        while names(&sets.recv().await.unwrap()) != ["b-n"] {}
        drop(sets);
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        task.await.unwrap();
    }
}
