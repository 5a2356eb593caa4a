//! Where things of CSI are on the node, and what a driver calls those places.
//!
//! Drivers' manifests mount `/var/lib/kubelet/...` of the host. A Peapod node has its own folder in
//! its place (of several nodes on one machine each its own): a `hostPath` at or below
//! `/var/lib/kubelet` is the same path in that folder. A driver that registers under
//! `/var/lib/kubelet` sees these names, and is spoken to in them; one that registers under the
//! folder's own name (a process of the host) is spoken to in that.
//!
//! Below the folder everything lies where upstream's kubelet has it:
//!
//! | path | what |
//! | --- | --- |
//! | `plugins_registry/*.sock` | drivers register |
//! | `plugins/DRIVER/csi.sock` | and are asked (where each says) |
//! | `plugins/kubernetes.io/csi/DRIVER/HASH/globalmount` | a staged file system |
//! | `plugins/kubernetes.io/csi/volumeDevices/staging/VOLUME` | a staged block device |
//! | `plugins/kubernetes.io/csi/volumeDevices/publish/VOLUME/POD` | a block device for a pod |
//! | `pods/POD/volumes/kubernetes.io~csi/VOLUME/mount` | a file system for a pod |

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The folder that drivers' manifests name.
pub const KUBELET: &str = "/var/lib/kubelet";

/// The folder of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// How a driver calls the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// `/var/lib/kubelet`, which its container has in the folder's place.
    Kubelet,
    /// By its own name.
    Host,
}

// === impl Layout ===

impl Layout {
    /// The folder `root`, an absolute path.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folders that drivers' manifests expect to be there.
    pub fn prepare(&self) -> std::io::Result<()> {
        let folders = ["plugins", "plugins_registry", "pods"];
        folders
            .iter()
            .try_for_each(|folder| std::fs::create_dir_all(self.root.join(folder)))
    }

    /// Where drivers register.
    pub fn registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    /// What a path of the host is on this node.
    pub fn real(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(KUBELET) {
            Ok(rest) if rest.as_os_str().is_empty() => self.root.clone(),
            Ok(rest) => self.root.join(rest),
            Err(_) => path.to_owned(),
        }
    }

    /// How a driver that says it serves at `endpoint` calls the folder.
    pub fn view(&self, endpoint: &Path) -> View {
        match endpoint.starts_with(KUBELET) {
            true => View::Kubelet,
            false => View::Host,
        }
    }

    /// What a driver calls a path of this node.
    pub fn shown(&self, view: View, path: &Path) -> String {
        let shown = match (view, path.strip_prefix(&self.root)) {
            (View::Kubelet, Ok(rest)) => Path::new(KUBELET).join(rest),
            _ => path.to_owned(),
        };
        shown.display().to_string()
    }

    /// Where a volume's file system is staged, for all pods of the node.
    pub fn staged(&self, driver: &str, handle: &str) -> PathBuf {
        let hash = hex(&Sha256::digest(handle.as_bytes()));
        let of_driver = self.plugins().join(driver);
        of_driver.join(hash).join("globalmount")
    }

    /// Where a volume's block device is staged.
    pub fn staged_block(&self, volume: &str) -> PathBuf {
        self.devices().join("staging").join(volume)
    }

    /// Where a volume's file system is for a pod.
    pub fn published(&self, pod_uid: &str, volume: &str) -> PathBuf {
        let pod = self.root.join("pods").join(pod_uid);
        let volumes = pod.join("volumes").join("kubernetes.io~csi");
        volumes.join(volume).join("mount")
    }

    /// Where a volume's block device is for a pod.
    pub fn published_block(&self, pod_uid: &str, volume: &str) -> PathBuf {
        self.devices().join("publish").join(volume).join(pod_uid)
    }

    fn plugins(&self) -> PathBuf {
        self.root.join("plugins").join("kubernetes.io").join("csi")
    }

    fn devices(&self) -> PathBuf {
        self.plugins().join("volumeDevices")
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_stands_for_the_kubelets() {
        let layout = Layout::new(PathBuf::from("/data/node"));
        let real = |path: &str| layout.real(Path::new(path)).display().to_string();
        assert_eq!(real("/var/lib/kubelet"), "/data/node");
        assert_eq!(real("/var/lib/kubelet/plugins/d"), "/data/node/plugins/d");
        assert_eq!(real("/var/lib/kubelet2"), "/var/lib/kubelet2");
        assert_eq!(real("/dev"), "/dev");
        let published = layout.published("uid", "pv");
        assert_eq!(
            layout.shown(View::Kubelet, &published),
            "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/pv/mount"
        );
        assert_eq!(
            layout.shown(View::Host, &published),
            published.display().to_string()
        );
    }

    #[test]
    fn volumes_are_staged_where_upstream_has_them() {
        let layout = Layout::new(PathBuf::from("/var/lib/kubelet"));
        assert_eq!(
            layout
                .staged("d.example.com", "vol-1")
                .display()
                .to_string(),
            "/var/lib/kubelet/plugins/kubernetes.io/csi/d.example.com/\
             d2e8363faaac7ae76def3b14091d8eb5755f6b92e9531627aeec833a8731cc49/globalmount"
        );
    }
}
