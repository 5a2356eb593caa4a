//! `cp`: files to and from containers, by `tar` inside the container, as kubectl does.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::session::{Session, server_error};

/// The arguments of `cp`.
#[derive(Debug, clap::Args)]
pub struct CpArgs {
    /// FILE or [NAMESPACE/]POD:FILE
    from: String,
    /// FILE or [NAMESPACE/]POD:FILE
    to: String,
    /// Container
    #[arg(short, long)]
    container: Option<String>,
}

struct Remote {
    namespace: Option<String>,
    pod: String,
    path: String,
}

fn remote(text: &str) -> Option<Remote> {
    let (pod, path) = text.split_once(':')?;
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
        None => (None, pod),
    };
    let names_a_pod = peapod_api::names::dns_subdomain(pod).is_ok();
    names_a_pod.then(|| Remote {
        namespace,
        pod: pod.to_owned(),
        path: path.to_owned(),
    })
}

/// Runs `cp`.
pub async fn run(session: &Session, args: &CpArgs) -> Result<()> {
    match (remote(&args.from), remote(&args.to)) {
        (None, Some(to)) => upload(session, args, Path::new(&args.from), &to).await,
        (Some(from), None) => download(session, args, &from, Path::new(&args.to)).await,
        _ => bail!("one of the two must be [NAMESPACE/]POD:FILE, the other a local file"),
    }
}

fn api(session: &Session, remote: &Remote) -> Api<Pod> {
    let namespace = remote.namespace.as_deref().unwrap_or(session.namespace());
    Api::namespaced(session.client(), namespace)
}

async fn upload(session: &Session, args: &CpArgs, from: &Path, to: &Remote) -> Result<()> {
    let target = Path::new(&to.path);
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("{} names no file", to.path);
    };
    let archive = pack(from, Path::new(name))?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let command = ["tar", "-xmf", "-", "-C", &folder.to_string_lossy()].map(str::to_owned);
    let mut params = AttachParams::default()
        .stdin(true)
        .stdout(true)
        .stderr(true);
    params.container = args.container.clone();
    let mut process = api(session, to)
        .exec(&to.pod, command, &params)
        .await
        .map_err(server_error)?;
    let status = process.take_status();
    if let Some(mut input) = process.stdin() {
        input.write_all(&archive).await?;
        input.shutdown().await?;
    }
    finish(process, status).await
}

fn pack(from: &Path, name: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let added = match from.is_dir() {
        true => archive.append_dir_all(name, from),
        false => archive.append_path_with_name(from, name),
    };
    added.with_context(|| format!("cannot read {}", from.display()))?;
    archive.into_inner().context("cannot pack the files")
}

async fn download(session: &Session, args: &CpArgs, from: &Remote, to: &Path) -> Result<()> {
    let source = from.path.trim_start_matches('/').to_owned();
    let command = ["tar", "-cf", "-", "-C", "/", &source].map(str::to_owned);
    let mut params = AttachParams::default().stdout(true).stderr(true);
    params.container = args.container.clone();
    let mut process = api(session, from)
        .exec(&from.pod, command, &params)
        .await
        .map_err(server_error)?;
    let status = process.take_status();
    let mut archive = Vec::new();
    if let Some(mut output) = process.stdout() {
        output.read_to_end(&mut archive).await?;
    }
    finish(process, status).await?;
    unpack(&archive, Path::new(&source), to)
}

/// Unpacks below the target only: names that climb out, and links, are refused or left out,
/// since the container's word is not to be trusted.
fn unpack(archive: &[u8], source: &Path, to: &Path) -> Result<()> {
    let name = source.file_name().context("the source names no file")?;
    let root: PathBuf = if to.is_dir() {
        to.join(name)
    } else {
        to.to_owned()
    };
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inner = path.strip_prefix(source).unwrap_or(&path).to_owned();
        if inner
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            bail!(
                "the container sent the path {}, which leads outside; refused",
                path.display()
            );
        }
        let kind = entry.header().entry_type();
        let target = if inner.as_os_str().is_empty() {
            root.clone()
        } else {
            root.join(inner)
        };
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
        } else if kind.is_file() {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut file = std::fs::File::create(&target)
                .with_context(|| format!("cannot write {}", target.display()))?;
            std::io::copy(&mut entry, &mut file)?;
        } else {
            eprintln!(
                "warning: {} is no plain file and was left out",
                path.display()
            );
        }
    }
    Ok(())
}

type StatusFuture<F> = Option<F>;

async fn finish<F>(mut process: kube::api::AttachedProcess, status: StatusFuture<F>) -> Result<()>
where
    F: Future<Output = Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>>,
{
    let mut said = String::new();
    if let Some(mut output) = process.stderr() {
        output.read_to_string(&mut said).await?;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    if status.is_some_and(|s| s.status.as_deref() == Some("Success")) {
        return Ok(());
    }
    bail!(
        "tar in the container failed: {}; the container needs a tar",
        said.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/f"), "x").unwrap();
        let archive = pack(&folder.path().join("d"), Path::new("src")).unwrap();
        unpack(&archive, Path::new("src"), &folder.path().join("out")).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join("out/f")).unwrap(),
            "x"
        );
    }

    #[test]
    fn refuses_to_climb_out() {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.extend([0; 1024]);
        let folder = tempfile::tempdir().unwrap();
        let error = unpack(&archive, Path::new("src"), &folder.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn remotes() {
        assert!(remote("web-1:/etc/x").is_some());
        assert_eq!(remote("ns/web-1:/x").unwrap().namespace.unwrap(), "ns");
        assert!(remote("./file").is_none());
    }
}
