//! Reading image archives: OCI layouts in a tar (`skopeo`, `buildah`, `docker save` since
//! 25) and Docker's older form.
//!
//! An archive is an untrusted file. First its table of contents is read, with every limit
//! checked, then documents and layers are read in place. Nothing is extracted by name.

mod docker;
mod oci;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::manifest::{Config, DOCUMENT_MAX, Descriptor, Document, Manifest, Platform, digest_of};
use super::reference::Reference;
use crate::runtime::ImageError;

/// Most files in an archive: an image has at most 127 layers, and an archive some hundred images.
const ENTRIES_MAX: usize = 100_000;
/// Deepest index within an index.
const INDEX_DEPTH_MAX: usize = 4;
/// Most links from link to link inside an archive.
const LINKS_MAX: usize = 8;

/// An archive whose table of contents has been read.
pub struct Archive {
    path: PathBuf,
    entries: HashMap<PathBuf, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    File(Extent),
    Link(PathBuf),
}

/// Where in the archive a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes, from the start of the archive.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// An image in an archive, with every blob located.
#[derive(Clone, Debug)]
pub struct ArchiveImage {
    /// Its names; without any it is known by its digest only.
    pub references: Vec<Reference>,
    /// The manifest's name.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: Config,
    /// The layers, in the manifest's order.
    pub layers: Vec<Extent>,
}

// === impl Archive ===

impl Archive {
    /// Reads the table of contents. Blocks.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let mut archive = Self {
            path: path.to_path_buf(),
            entries: HashMap::new(),
        };
        let mut file = File::open(path).map_err(|error| archive.corrupt(&error))?;
        let mut magic = [0; 4];
        let known = file
            .read(&mut magic)
            .map_err(|error| archive.corrupt(&error))?;
        if let Some(tool) = compression(&magic[..known]) {
            return Err(archive.corrupt(&format!(
                "it is compressed by {tool}; decompress it first ({tool} -d)"
            )));
        }
        file.rewind().map_err(|error| archive.corrupt(&error))?;
        let length = file
            .metadata()
            .map_err(|error| archive.corrupt(&error))?
            .len();
        archive.read_contents(file, length)?;
        Ok(archive)
    }

    fn read_contents(&mut self, file: File, length: u64) -> Result<(), ImageError> {
        let mut tar = tar::Archive::new(file);
        let truncated = |error| format!("it is no tar archive, or a truncated one: {error}");
        let entries = tar
            .entries_with_seek()
            .map_err(|e| self.corrupt(&truncated(e)))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.corrupt(&truncated(e)))?;
            let kind = entry.header().entry_type();
            let path = entry.path().map_err(|e| self.corrupt(&e))?.into_owned();
            let path = self.inner_path(Path::new(""), &path)?;
            let extent = Extent {
                offset: entry.raw_file_position(),
                size: entry.size(),
            };
            let item = if kind.is_symlink() || kind.is_hard_link() {
                let target = entry
                    .link_name()
                    .map_err(|e| self.corrupt(&e))?
                    .unwrap_or_default();
                let from = path
                    .parent()
                    .filter(|_| kind.is_symlink())
                    .unwrap_or(Path::new(""));
                Entry::Link(self.inner_path(from, &target)?)
            } else if kind.is_file() {
                if extent
                    .offset
                    .checked_add(extent.size)
                    .is_none_or(|end| end > length)
                {
                    let path = path.display();
                    return Err(self.corrupt(&format!("it is truncated within {path}")));
                }
                Entry::File(extent)
            } else {
                continue;
            };
            self.entries.insert(path, item);
            if self.entries.len() > ENTRIES_MAX {
                return Err(self.corrupt(&format!("it has more than {ENTRIES_MAX} entries")));
            }
        }
        Ok(())
    }

    /// A path within the archive, cleaned; one that leads out of it is an attack.
    fn inner_path(&self, from: &Path, path: &Path) -> Result<PathBuf, ImageError> {
        let mut clean = from.to_path_buf();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir if clean.pop() => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    let path = path.display();
                    return Err(self.corrupt(&format!("the path {path} leads out of it")));
                }
            }
        }
        Ok(clean)
    }

    /// The images for this platform.
    pub fn images(&self, platform: &Platform) -> Result<Vec<ArchiveImage>, ImageError> {
        let docker = self.docker_images()?;
        let mut images = match self.find(Path::new("index.json")) {
            Some(extent) => self.oci_images(extent, platform)?,
            None => Vec::new(),
        };
        if images.is_empty() {
            images = docker
                .iter()
                .map(|image| self.convert(image))
                .collect::<Result<_, _>>()?;
        } else {
            for image in &mut images {
                self.add_docker_names(image, &docker)?;
            }
        }
        if images.is_empty() {
            return Err(self.corrupt(&format!(
                "it has neither an index.json (OCI) nor a manifest.json (Docker) with an image \
                 for {platform}"
            )));
        }
        Ok(images)
    }

    fn find(&self, path: &Path) -> Option<Extent> {
        let mut path = path;
        for _ in 0..LINKS_MAX {
            match self.entries.get(path)? {
                Entry::File(extent) => return Some(*extent),
                Entry::Link(target) => path = target,
            }
        }
        None
    }

    fn file(&self, path: &Path) -> Result<Extent, ImageError> {
        let path = self.inner_path(Path::new(""), path)?;
        self.find(&path)
            .ok_or_else(|| self.corrupt(&format!("it names {} and lacks it", path.display())))
    }

    fn blob(&self, digest: &str) -> Result<Extent, ImageError> {
        if !super::reference::is_digest(digest) {
            return Err(self.corrupt(&format!("{digest:?} is not a sha256 digest")));
        }
        self.file(&blob_path(digest))
    }

    fn verified_blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = self.read(self.blob(digest)?)?;
        if digest_of(&bytes) != digest {
            return Err(self.corrupt(&format!("the content of {digest} has another digest")));
        }
        Ok(bytes)
    }

    fn read(&self, extent: Extent) -> Result<Vec<u8>, ImageError> {
        if extent.size > DOCUMENT_MAX {
            let size = extent.size;
            return Err(self.corrupt(&format!(
                "a document of {size} bytes; at most {DOCUMENT_MAX} are read"
            )));
        }
        let mut bytes = Vec::with_capacity(extent.size as usize);
        let read = self
            .open_at(extent)
            .and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Ok(n) if n as u64 == extent.size => Ok(bytes),
            Ok(_) => Err(self.corrupt(&"it is truncated")),
            Err(error) => Err(self.corrupt(&error)),
        }
    }

    fn open_at(&self, extent: Extent) -> std::io::Result<std::io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(extent.offset))?;
        Ok(file.take(extent.size))
    }

    fn document(&self, bytes: &[u8], name: &str) -> Result<Document, ImageError> {
        Document::parse(bytes).map_err(|reason| self.corrupt(&format!("{name}: {reason}")))
    }

    fn config(&self, bytes: &[u8]) -> Result<Config, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| self.corrupt(&format!("its config: {error}")))
    }

    fn corrupt(&self, reason: &dyn std::fmt::Display) -> ImageError {
        ImageError::Corrupt {
            subject: format!("archive {}", self.path.display()),
            reason: reason.to_string(),
        }
    }
}

fn blob_path(digest: &str) -> PathBuf {
    Path::new("blobs").join(digest.replacen(':', "/", 1))
}

/// The tool that undoes a compression, by its magic number.
fn compression(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X'] => Some("xz"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
