//! Reading image archives: OCI layouts in a tar (`skopeo`, `buildah`, `docker save` since
//! 25) and Docker's older form.
//!
//! An archive is an untrusted file. First its table of contents is read, with every limit
//! checked, then documents and layers are read in place. Nothing is extracted by name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::manifest::{
    Config, DOCUMENT_MAX, Descriptor, Document, LAYERS_MAX, Manifest, OCI_CONFIG, OCI_INDEX,
    OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST, Platform, digest_of,
};
use super::reference::Reference;
use crate::runtime::{ImageError, hex};

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

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
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

    // --- OCI ---

    fn oci_images(
        &self,
        index: Extent,
        platform: &Platform,
    ) -> Result<Vec<ArchiveImage>, ImageError> {
        let Document::Index(index) = self.document(&self.read(index)?, "index.json")? else {
            return Err(self.corrupt(&"its index.json is no index"));
        };
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let references = self.annotated_names(descriptor)?;
            if let Some(mut image) = self.resolve(descriptor, platform, 0)? {
                image.references = references;
                images.push(image);
            }
        }
        Ok(images)
    }

    /// Follows a descriptor to the manifest for this platform.
    fn resolve(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Option<ArchiveImage>, ImageError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(self.corrupt(&format!("indexes nested deeper than {INDEX_DEPTH_MAX}")));
        }
        if !descriptor.fits(platform) {
            return Ok(None);
        }
        let bytes = self.verified_blob(&descriptor.digest)?;
        match self.document(&bytes, &descriptor.digest)? {
            Document::Manifest(manifest) => {
                self.locate(descriptor.clone(), bytes, manifest).map(Some)
            }
            Document::Index(index) => match index.select(platform) {
                Some(inner) => self.resolve(inner, platform, depth + 1),
                None => Ok(None),
            },
        }
    }

    fn locate(
        &self,
        mut descriptor: Descriptor,
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
    ) -> Result<ArchiveImage, ImageError> {
        let config_bytes = self.verified_blob(&manifest.config.digest)?;
        let config = self.config(&config_bytes)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| self.blob(&layer.digest))
            .collect::<Result<_, _>>()?;
        if descriptor.media_type.is_empty() || descriptor.media_type == OCI_INDEX {
            descriptor.media_type = OCI_MANIFEST.into();
        }
        descriptor.annotations.clear();
        let references = Vec::new();
        Ok(ArchiveImage {
            references,
            descriptor,
            manifest_bytes,
            manifest,
            config_bytes,
            config,
            layers,
        })
    }

    /// containerd and Docker write the full name, others a name or a mere tag.
    fn annotated_names(&self, descriptor: &Descriptor) -> Result<Vec<Reference>, ImageError> {
        let annotations = &descriptor.annotations;
        let full = annotations.get("io.containerd.image.name");
        let short = annotations.get("org.opencontainers.image.ref.name");
        match (full, short) {
            (Some(full), _) => Ok(vec![full.parse()?]),
            (None, Some(name)) if name.contains(['/', ':']) => Ok(vec![name.parse()?]),
            _ => Ok(Vec::new()),
        }
    }

    // --- Docker ---

    fn docker_images(&self) -> Result<Vec<DockerImage>, ImageError> {
        match self.find(Path::new("manifest.json")) {
            None => Ok(Vec::new()),
            Some(extent) => serde_json::from_slice(&self.read(extent)?)
                .map_err(|error| self.corrupt(&format!("manifest.json: {error}"))),
        }
    }

    /// Writes the OCI manifest that Docker's form does not have.
    fn convert(&self, image: &DockerImage) -> Result<ArchiveImage, ImageError> {
        let config_bytes = self.read(self.file(&image.config)?)?;
        let config = self.config(&config_bytes)?;
        if image.layers.len() > LAYERS_MAX {
            let n = image.layers.len();
            return Err(self.corrupt(&format!("{n} layers; at most {LAYERS_MAX} can be stacked")));
        }
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for path in &image.layers {
            let extent = self.file(path)?;
            descriptors.push(self.layer_descriptor(extent)?);
            layers.push(extent);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            config: Descriptor {
                media_type: OCI_CONFIG.into(),
                digest: digest_of(&config_bytes),
                size: config_bytes.len() as u64,
                ..Descriptor::default()
            },
            layers: descriptors,
        };
        let manifest_bytes = serde_json::to_vec(&manifest).map_err(|error| self.corrupt(&error))?;
        let descriptor = Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: digest_of(&manifest_bytes),
            size: manifest_bytes.len() as u64,
            ..Descriptor::default()
        };
        let references = docker_names(image)?;
        Ok(ArchiveImage {
            references,
            descriptor,
            manifest_bytes,
            manifest,
            config_bytes,
            config,
            layers,
        })
    }

    fn layer_descriptor(&self, extent: Extent) -> Result<Descriptor, ImageError> {
        let mut file = self.open_at(extent).map_err(|error| self.corrupt(&error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut magic = Vec::new();
        loop {
            let n = file
                .read(&mut buffer)
                .map_err(|error| self.corrupt(&error))?;
            if n == 0 {
                break;
            }
            if magic.is_empty() {
                magic.extend_from_slice(&buffer[..n.min(4)]);
            }
            hasher.update(&buffer[..n]);
        }
        let media_type = match compression(&magic) {
            Some("gzip") => OCI_LAYER_GZIP,
            Some("zstd") => OCI_LAYER_ZSTD,
            _ => OCI_LAYER,
        };
        Ok(Descriptor {
            media_type: media_type.into(),
            digest: format!("sha256:{}", hex(&hasher.finalize())),
            size: extent.size,
            ..Descriptor::default()
        })
    }

    /// An OCI layout by Docker has the tags in `manifest.json` as well, and more of them.
    fn add_docker_names(
        &self,
        image: &mut ArchiveImage,
        docker: &[DockerImage],
    ) -> Result<(), ImageError> {
        let config = blob_path(&image.manifest.config.digest);
        for entry in docker.iter().filter(|entry| entry.config == config) {
            for name in docker_names(entry)? {
                if !image.references.contains(&name) {
                    image.references.push(name);
                }
            }
        }
        Ok(())
    }

    // --- bytes ---

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

fn docker_names(image: &DockerImage) -> Result<Vec<Reference>, ImageError> {
    image
        .repo_tags
        .iter()
        .flatten()
        .map(|tag| tag.parse())
        .collect()
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
