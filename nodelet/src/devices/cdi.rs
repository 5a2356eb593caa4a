//! The Container Device Interface: device plugins name devices, files in `/etc/cdi` and `/var/run/cdi` say
//! what a container needs for each.
//!
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::runtime::{ContainerSpec, Device, Hook, HookStage, Mount};

/// Where descriptions are; what stands in a later one counts before what stands in an earlier.
pub const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Largest description.
const FILE_MAX: u64 = 4 << 20;
/// Most descriptions in a directory.
const FILES_MAX: usize = 1024;
/// Options of mounts that say nothing here, or what is so in any case.
const PLAIN_OPTIONS: [&str; 6] = ["rw", "bind", "rbind", "private", "rprivate", "relatime"];

/// A description of devices of one kind. What is not known is left out: newer versions add to it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    devices: Vec<Described>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What is changed of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    device_nodes: Vec<Node>,
    #[serde(default)]
    mounts: Vec<Mounted>,
    #[serde(default)]
    hooks: Vec<Hooked>,
    #[serde(default, rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(default)]
    permissions: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mounted {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooked {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

/// Gives a container these devices (`vendor.com/class=name`), as the files of `dirs` describe them.
pub fn inject(names: &[String], dirs: &[&Path], spec: &mut ContainerSpec) -> Result<(), String> {
    let mut known = BTreeMap::new();
    let mut faults = Vec::new();
    for dir in dirs {
        known.extend(read_dir(dir, &mut faults));
    }
    let mut of_kinds = Vec::new();
    let mut all = Vec::new();
    for name in names {
        let Some((kind, of_kind, own)) = known.get(name) else {
            let faults = match faults.is_empty() {
                true => String::new(),
                false => format!(" ({})", faults.join("; ")),
            };
            return Err(format!("unresolvable CDI device {name}{faults}"));
        };
        if !of_kinds.contains(kind) {
            of_kinds.push(kind.clone());
            all.push(of_kind.clone());
        }
        all.push(own.clone());
    }
    all.into_iter().try_for_each(|edits| apply(edits, spec))
}

/// The devices of a kind, the edits for all of it, and those for one.
type Known = BTreeMap<String, (String, Edits, Edits)>;

/// The devices that the files of a directory describe. One that two files describe is none's.
fn read_dir(dir: &Path, faults: &mut Vec<String>) -> Known {
    let mut known = Known::new();
    let mut twice = Vec::new();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let end = path.extension().and_then(|end| end.to_str());
        matches!(end, Some("json" | "yaml" | "yml"))
    });
    paths.sort();
    for path in paths.iter().take(FILES_MAX) {
        let description = match read(path) {
            Ok(description) => description,
            Err(why) => {
                faults.push(format!("{}: {why}", path.display()));
                continue;
            }
        };
        let of_kind = description.container_edits;
        for device in description.devices {
            let name = format!("{}={}", description.kind, device.name);
            let about = (
                description.kind.clone(),
                of_kind.clone(),
                device.container_edits,
            );
            if known.insert(name.clone(), about).is_some() {
                faults.push(format!("{name} is described twice in {}", dir.display()));
                twice.push(name);
            }
        }
    }
    known.retain(|name, _| !twice.contains(name));
    known
}

fn read(path: &Path) -> Result<Description, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    // JSON is YAML, too.
    let description: Description =
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let version = &description.cdi_version;
    if !version.starts_with("0.") && !version.starts_with("1.") {
        return Err(format!("its version {version:?} is not known"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let parts = description.kind.split_once('/');
    let named = parts.is_some_and(|(vendor, class)| {
        [vendor, class]
            .iter()
            .all(|part| !part.is_empty() && part.chars().all(plain))
    });
    let mut devices = description.devices.iter();
    if !named || !devices.all(|device| !device.name.is_empty() && device.name.chars().all(plain)) {
        return Err("its kind must be VENDOR/CLASS, and its devices must have plain names".into());
    }
    Ok(description)
}

fn apply(edits: Edits, spec: &mut ContainerSpec) -> Result<(), String> {
    for pair in edits.env {
        let split = pair.split_once('=');
        let (name, value) = split.ok_or_else(|| format!("{pair:?} is no variable"))?;
        spec.env.push((name.to_owned(), value.to_owned()));
    }
    for node in edits.device_nodes {
        spec.devices.push(Device {
            host_path: node.host_path.unwrap_or_else(|| node.path.clone()),
            container_path: node.path,
            permissions: match node.permissions.is_empty() {
                true => "rwm".to_owned(),
                false => node.permissions,
            },
        });
    }
    for mounted in edits.mounts {
        spec.mounts.push(mount(mounted)?);
    }
    // A mount below another comes after it.
    let depth = |mount: &Mount| mount.destination.components().count();
    spec.mounts.sort_by_key(depth);
    for hook in edits.hooks {
        let stage = stage(&hook.hook_name)?;
        spec.hooks.push(Hook {
            stage,
            path: hook.path,
            args: hook.args,
            env: hook.env,
            timeout_s: hook.timeout,
        });
    }
    spec.user.additional_gids.extend(edits.additional_gids);
    Ok(())
}

fn mount(mounted: Mounted) -> Result<Mount, String> {
    let path = mounted.container_path.display().to_string();
    if !matches!(mounted.kind.as_str(), "" | "none" | "bind") {
        return Err(format!(
            "the mount {path} is of type {}, not bind",
            mounted.kind
        ));
    }
    let mut mount = Mount {
        destination: mounted.container_path,
        source: mounted.host_path,
        ..Mount::default()
    };
    for option in mounted.options {
        match option.as_str() {
            "ro" => mount.read_only = true,
            "nosuid" | "nodev" | "noexec" => mount.flags.push(option),
            plain if PLAIN_OPTIONS.contains(&plain) => {}
            other => {
                return Err(format!(
                    "the mount {path} has the option {other}, which is not known"
                ));
            }
        }
    }
    Ok(mount)
}

fn stage(name: &str) -> Result<HookStage, String> {
    Ok(match name {
        "prestart" => HookStage::Prestart,
        "createRuntime" => HookStage::CreateRuntime,
        "createContainer" => HookStage::CreateContainer,
        "startContainer" => HookStage::StartContainer,
        "poststart" => HookStage::Poststart,
        "poststop" => HookStage::Poststop,
        other => {
            return Err(format!(
                "{other:?} is no hook of the OCI runtime specification"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = r#"{
        "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "annotations": {"a": "b"},
        "containerEdits": {"env": ["DRIVER=1"], "mounts": [
            {"hostPath": "/usr/lib/gpu.so", "containerPath": "/usr/lib/gpu.so", "options": ["ro", "nosuid", "rbind"]}]},
        "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}]}},
            {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/zero", "type": "c"}], "additionalGids": [44],
                "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "timeout": 5}]}}
        ]}"#;

    fn inject_from(files: &[(&str, &str)], names: &[&str]) -> Result<ContainerSpec, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (early, late) = (dir.path().join("etc"), dir.path().join("run"));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut spec = ContainerSpec::default();
        inject(&names, &[&early, &late], &mut spec).map(|()| spec)
    }

    #[test]
    fn what_a_device_needs() {
        let both = ["vendor.com/gpu=0", "vendor.com/gpu=1"];
        let spec = inject_from(&[("etc/gpu.json", GPU)], &both).unwrap();
        assert_eq!(
            spec.env,
            [("DRIVER".into(), "1".into())],
            "once for the kind"
        );
        assert_eq!(spec.devices[0].host_path, Path::new("/dev/null"));
        assert_eq!(spec.devices[0].permissions, "rw");
        assert_eq!(spec.devices[1].container_path, Path::new("/dev/zero"));
        assert_eq!(spec.devices[1].permissions, "rwm");
        assert_eq!(
            (spec.mounts[0].read_only, spec.mounts[0].flags[0].as_str()),
            (true, "nosuid")
        );
        assert_eq!(spec.hooks[0].stage, HookStage::CreateContainer);
        assert_eq!(spec.user.additional_gids, [44]);
    }

    #[test]
    fn later_directories_count_first_and_yaml_does_as_well() {
        let yaml = "cdiVersion: 1.0.0\nkind: vendor.com/gpu\ndevices:\n- name: '0'\n  containerEdits: {env: [LATE=1]}\n";
        let files = [("etc/gpu.json", GPU), ("run/gpu.yaml", yaml)];
        let spec = inject_from(&files, &["vendor.com/gpu=0"]).unwrap();
        assert_eq!(spec.env, [("LATE".into(), "1".into())]);
        assert!(spec.devices.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let absent = "unresolvable CDI device vendor.com/gpu=7";
        let odd = GPU.replace("\"rbind\"", "\"remap\"");
        let hook = GPU.replace("createContainer", "whenever");
        let kind = GPU.replace("vendor.com/gpu", "gpu");
        let version = GPU.replace("0.6.0", "9");
        for (files, name, said) in [
            (vec![], "vendor.com/gpu=7", absent),
            (vec![("etc/gpu.json", GPU)], "vendor.com/gpu=7", absent),
            (vec![("etc/gpu.json", "{")], "vendor.com/gpu=7", "gpu.json"),
            (
                vec![("etc/a.json", GPU), ("etc/b.json", GPU)],
                "vendor.com/gpu=0",
                "described twice",
            ),
            (
                vec![("etc/gpu.json", odd.as_str())],
                "vendor.com/gpu=0",
                "option remap",
            ),
            (
                vec![("etc/gpu.json", hook.as_str())],
                "vendor.com/gpu=1",
                "no hook",
            ),
            (
                vec![("etc/gpu.json", kind.as_str())],
                "gpu=0",
                "VENDOR/CLASS",
            ),
            (
                vec![("etc/gpu.json", version.as_str())],
                "vendor.com/gpu=0",
                "is not known",
            ),
        ] {
            let error = inject_from(&files, &[name]).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
