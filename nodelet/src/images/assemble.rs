//! Building an image from files, without a daemon and without a network: an OCI archive with
//! one layer, the same bytes for the same input.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::manifest::{
    Config, Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform,
    Rootfs, RunConfig, digest_of,
};
use super::reference::Reference;

/// Largest file that goes into an image, in bytes; the layer is built in memory.
const FILE_MAX: u64 = 512 << 20;

/// An image to build.
#[derive(Clone, Debug, Default)]
pub struct Assemble {
    /// Its name.
    pub reference: String,
    /// What is in it.
    pub entries: Vec<Entry>,
    /// How it runs.
    pub config: RunConfig,
}

/// Something in the image. Directories on the way are made.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A file with this content.
    File {
        /// Absolute path in the image.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Content.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Absolute path in the image.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// An empty directory.
    Directory {
        /// Absolute path in the image.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
}

// === impl Entry ===

impl Entry {
    /// A file of the host, as an executable.
    pub fn executable(path: &str, source: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", source.display()),
            )
        };
        let file = File::open(source).map_err(named)?;
        let mut content = Vec::new();
        file.take(FILE_MAX + 1)
            .read_to_end(&mut content)
            .map_err(named)?;
        if content.len() as u64 > FILE_MAX {
            let source = source.display();
            return Err(io::Error::other(format!(
                "{source} is larger than {FILE_MAX} bytes"
            )));
        }
        Ok(Self::File {
            path: path.into(),
            mode: 0o755,
            content,
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } | Self::Directory { path, .. } => {
                path
            }
        }
    }
}

// === impl Assemble ===

impl Assemble {
    /// An image around one static binary: it is the entrypoint, and there are the few files that
    /// programs expect (`/etc/passwd`, `/etc/group`, `/tmp`).
    pub fn from_binary(reference: &str, binary: &Path, args: &[String]) -> io::Result<Self> {
        let name = binary
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("app");
        let path = format!("/bin/{name}");
        let mut entries = base_files();
        entries.push(Entry::executable(&path, binary)?);
        let entrypoint = std::iter::once(path).chain(args.iter().cloned()).collect();
        let config = RunConfig {
            entrypoint: Some(entrypoint),
            env: Some(vec!["PATH=/usr/local/bin:/usr/bin:/bin".into()]),
            ..RunConfig::default()
        };
        Ok(Self {
            reference: reference.into(),
            entries,
            config,
        })
    }

    /// An image of a static busybox with a link for each applet that it names.
    pub fn from_busybox(reference: &str, busybox: &Path, applets: &[&str]) -> io::Result<Self> {
        let mut entries = base_files();
        entries.push(Entry::executable("/bin/busybox", busybox)?);
        entries.extend(applets.iter().map(|applet| Entry::Link {
            path: format!("/bin/{applet}").into(),
            target: "busybox".into(),
        }));
        let config = RunConfig {
            cmd: Some(vec!["sh".into()]),
            env: Some(vec!["PATH=/bin".into()]),
            ..RunConfig::default()
        };
        Ok(Self {
            reference: reference.into(),
            entries,
            config,
        })
    }

    /// Writes the OCI archive.
    pub fn write(&self, output: impl Write) -> io::Result<()> {
        let reference: Reference = self.reference.parse().map_err(io::Error::other)?;
        let layer = self.layer()?;
        let layer_digest = digest_of(&layer);
        let platform = Platform::host();
        let config = Config {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            config: Some(self.config.clone()),
            rootfs: Rootfs {
                kind: "layers".into(),
                diff_ids: vec![layer_digest.clone()],
            },
        };
        let config = serde_json::to_vec(&config)?;
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            config: descriptor(OCI_CONFIG, &config),
            layers: vec![descriptor(OCI_LAYER, &layer)],
        })?;
        let mut entry = descriptor(OCI_MANIFEST, &manifest);
        entry.platform = Some(platform);
        entry.annotations = [
            ("io.containerd.image.name".to_owned(), reference.to_string()),
            (
                "org.opencontainers.image.ref.name".to_owned(),
                reference.tag.clone().unwrap_or_default(),
            ),
        ]
        .into();
        let index = serde_json::to_vec(&Index {
            schema_version: 2,
            media_type: Some(OCI_INDEX.into()),
            manifests: vec![entry],
        })?;
        let layout = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?;

        let mut tar = Builder::new(output);
        append_file(&mut tar, Path::new("oci-layout"), 0o644, &layout)?;
        for blob in [&layer, &config, &manifest] {
            let path = format!("blobs/{}", digest_of(blob).replacen(':', "/", 1));
            append_file(&mut tar, Path::new(&path), 0o644, blob)?;
        }
        append_file(&mut tar, Path::new("index.json"), 0o644, &index)?;
        tar.into_inner()?.flush()
    }

    /// The layer as an uncompressed tar.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        let mut made = BTreeSet::new();
        for entry in &self.entries {
            let path = relative(entry.path())?;
            for parent in path
                .ancestors()
                .skip(1)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
            {
                if !parent.as_os_str().is_empty() && made.insert(parent.to_path_buf()) {
                    append_directory(&mut tar, parent, 0o755)?;
                }
            }
            made.insert(path.clone());
            match entry {
                Entry::File { mode, content, .. } => append_file(&mut tar, &path, *mode, content)?,
                Entry::Directory { mode, .. } => append_directory(&mut tar, &path, *mode)?,
                Entry::Link { target, .. } => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    tar.append_link(&mut header, &path, target)?;
                }
            }
        }
        tar.into_inner()
    }
}

/// What programs expect of a root file system.
fn base_files() -> Vec<Entry> {
    let file = |path: &str, content: &str| Entry::File {
        path: path.into(),
        mode: 0o644,
        content: content.into(),
    };
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    vec![
        file("/etc/passwd", passwd),
        file("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        Entry::Directory {
            path: "/tmp".into(),
            mode: 0o1777,
        },
        Entry::Directory {
            path: "/root".into(),
            mode: 0o700,
        },
    ]
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: digest_of(bytes),
        size: bytes.len() as u64,
        ..Descriptor::default()
    }
}

/// An absolute path of the image as it stands in a layer.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    match plain && !relative.as_os_str().is_empty() {
        true => Ok(relative.to_path_buf()),
        false => Err(io::Error::other(format!(
            "{} is no path for a file",
            path.display()
        ))),
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn append_file<W: Write>(
    tar: &mut Builder<W>,
    path: &Path,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn append_directory<W: Write>(tar: &mut Builder<W>, path: &Path, mode: u32) -> io::Result<()> {
    let mut header = header(EntryType::Directory, mode, 0);
    tar.append_data(&mut header, path, io::empty())
}

#[cfg(test)]
mod tests {
    use super::super::archive::Archive;
    use super::*;

    fn archive_of(image: &Assemble) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write(&mut bytes).unwrap();
        bytes
    }

    fn sample() -> Assemble {
        let binary = Entry::File {
            path: "/bin/app".into(),
            mode: 0o755,
            content: b"ELF".to_vec(),
        };
        let mut entries = base_files();
        entries.push(binary);
        let entrypoint = Some(vec!["/bin/app".to_owned()]);
        let config = RunConfig {
            entrypoint,
            ..RunConfig::default()
        };
        Assemble {
            reference: "hello:v1".into(),
            entries,
            config,
        }
    }

    #[test]
    fn what_is_assembled_can_be_read_as_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello.tar");
        std::fs::write(&path, archive_of(&sample())).unwrap();
        let images = Archive::open(&path)
            .unwrap()
            .images(&Platform::host())
            .unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(
            images[0].references[0].to_string(),
            "docker.io/library/hello:v1"
        );
        assert_eq!(images[0].config.image_config().entrypoint, ["/bin/app"]);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(archive_of(&sample()), archive_of(&sample()));
    }

    #[test]
    fn paths_that_leave_the_image_are_refused() {
        for bad in ["/", "../etc/passwd", "/a/../../b"] {
            let mut image = sample();
            image.entries.push(Entry::Directory {
                path: bad.into(),
                mode: 0o755,
            });
            assert!(image.write(Vec::new()).is_err(), "{bad}");
        }
    }
}
