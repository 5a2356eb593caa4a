//! Access modes and volume modes as CSI says them. Pure.

use k8s_openapi::api::core::v1::PersistentVolume;
use peapod_csi::v1::VolumeCapability;
use peapod_csi::v1::volume_capability::access_mode::Mode;
use peapod_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

/// What a volume is used as.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use<'a> {
    /// A block device; else a filesystem.
    pub block: bool,
    /// The filesystem's type; empty for the driver's default.
    pub fs_type: &'a str,
    /// Options of its mount.
    pub mount_options: &'a [String],
}

impl Use<'_> {
    /// The capability of one access mode.
    fn with(self, mode: Mode) -> VolumeCapability {
        let access_type = match self.block {
            true => AccessType::Block(BlockVolume {}),
            false => AccessType::Mount(MountVolume {
                fs_type: self.fs_type.to_owned(),
                mount_flags: self.mount_options.to_vec(),
                volume_mount_group: String::new(),
            }),
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }
    }

    /// A capability for each access mode of a claim. `finer`: the driver tells one writer on a
    /// node from several (`SINGLE_NODE_MULTI_WRITER`).
    pub fn each(self, modes: &[String], finer: bool) -> Result<Vec<VolumeCapability>, String> {
        let each = modes
            .iter()
            .map(|mode| Ok(self.with(one(std::slice::from_ref(mode), finer)?)));
        each.collect()
    }
}

/// The one CSI mode that stands for all of a volume's.
fn one(modes: &[String], finer: bool) -> Result<Mode, String> {
    let has = |mode: &str| modes.iter().any(|one| one == mode);
    let (write_once, read_many) = (has("ReadWriteOnce"), has("ReadOnlyMany"));
    if has("ReadWriteMany") {
        Ok(Mode::MultiNodeMultiWriter)
    } else if has("ReadWriteOncePod") {
        match modes.len() {
            1 if finer => Ok(Mode::SingleNodeSingleWriter),
            1 => Ok(Mode::SingleNodeWriter),
            _ => Err("ReadWriteOncePod goes with no other access mode".to_owned()),
        }
    } else if write_once && read_many {
        Err("CSI has no mode for ReadWriteOnce together with ReadOnlyMany".to_owned())
    } else if read_many {
        Ok(Mode::MultiNodeReaderOnly)
    } else if write_once && finer {
        Ok(Mode::SingleNodeMultiWriter)
    } else if write_once {
        Ok(Mode::SingleNodeWriter)
    } else {
        Err(format!("unsupported access modes: {modes:?}"))
    }
}

/// The capability of a volume, for calls about it.
pub fn of_volume(volume: &PersistentVolume, finer: bool) -> Result<VolumeCapability, String> {
    let spec = volume.spec.as_ref();
    let source = spec.and_then(|spec| spec.csi.as_ref());
    let kind = Use {
        block: spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block"),
        fs_type: source
            .and_then(|source| source.fs_type.as_deref())
            .unwrap_or_default(),
        mount_options: spec
            .and_then(|spec| spec.mount_options.as_deref())
            .unwrap_or_default(),
    };
    let modes = spec.and_then(|spec| spec.access_modes.as_deref());
    Ok(kind.with(one(modes.unwrap_or_default(), finer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_csi_says_them() {
        for (modes, finer, expected) in [
            (&["ReadWriteOnce"][..], false, Ok(Mode::SingleNodeWriter)),
            (&["ReadWriteOnce"], true, Ok(Mode::SingleNodeMultiWriter)),
            (&["ReadWriteOncePod"], false, Ok(Mode::SingleNodeWriter)),
            (
                &["ReadWriteOncePod"],
                true,
                Ok(Mode::SingleNodeSingleWriter),
            ),
            (&["ReadOnlyMany"], true, Ok(Mode::MultiNodeReaderOnly)),
            (
                &["ReadWriteOnce", "ReadWriteMany"],
                false,
                Ok(Mode::MultiNodeMultiWriter),
            ),
            (&["ReadWriteOnce", "ReadOnlyMany"], false, Err(())),
            (&[], false, Err(())),
        ] {
            let owned: Vec<String> = modes.iter().map(|&mode| mode.to_owned()).collect();
            assert_eq!(
                one(&owned, finer).map_err(drop),
                expected,
                "{modes:?} {finer}"
            );
        }
    }
}
