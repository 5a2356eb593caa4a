//! The files that a ConfigMap, a Secret or the pod itself turns into.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};
use peapod_api::k8s_openapi;

use crate::core::find_container;
use crate::make::Missing;
use crate::make::fields::{self, Place};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What is in it.
    pub data: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Owner; root when `None`.
    pub user: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, File>;

/// Longest token that is read back, bytes.
const TOKEN_MAX: u64 = 64 * 1024;
/// Modes are this when nothing else is said.
const DEFAULT_MODE: i32 = 0o644;

/// A path that stays in the volume.
fn checked(path: &str) -> Result<String, Missing> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(Missing(format!(
            "path {path:?} does not stay in the volume"
        )));
    }
    Ok(path.to_owned())
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    let mode = own.or(default).unwrap_or(DEFAULT_MODE);
    u32::try_from(mode).unwrap_or(0) & 0o7777
}

/// Chooses keys: all of them, or the ones that are listed.
fn select(
    what: &str,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, Missing> {
    let file = |data: &[u8], own: Option<i32>, user: Option<i64>| File {
        data: data.to_vec(),
        mode: mode(own, default_mode),
        user: user.and_then(|user| u32::try_from(user).ok()),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = data.iter();
        return all
            .map(|(key, data)| Ok((checked(key)?, file(data, None, None))))
            .collect();
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                payload.insert(checked(&item.path)?, file(data, item.mode, item.user));
            }
            None if optional => {}
            None => {
                return Err(Missing(format!(
                    "{what} references non-existent key: {}",
                    item.key
                )));
            }
        }
    }
    Ok(payload)
}

fn bytes(data: Option<&BTreeMap<String, ByteString>>) -> BTreeMap<String, Vec<u8>> {
    data.into_iter()
        .flatten()
        .map(|(key, ByteString(data))| (key.clone(), data.clone()))
        .collect()
}

/// How keys become files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The keys to take, with their paths; all of them when there are none.
    pub items: Option<&'a [KeyToPath]>,
    /// Mode of what has no mode of its own.
    pub default_mode: Option<i32>,
    /// Whether what is missing is left out.
    pub optional: bool,
}

/// The files of a ConfigMap.
pub fn config_map(name: &str, map: Option<&ConfigMap>, choice: Choice) -> Result<Payload, Missing> {
    let Some(map) = map else {
        return absent("configmap", name, choice.optional);
    };
    let mut data = bytes(map.binary_data.as_ref());
    let text = map.data.iter().flatten();
    data.extend(text.map(|(key, text)| (key.clone(), text.clone().into_bytes())));
    select(
        "configmap",
        &data,
        choice.items,
        choice.default_mode,
        choice.optional,
    )
}

/// The files of a Secret.
pub fn secret(name: &str, secret: Option<&Secret>, choice: Choice) -> Result<Payload, Missing> {
    let Some(secret) = secret else {
        return absent("secret", name, choice.optional);
    };
    let data = bytes(secret.data.as_ref());
    select(
        "secret",
        &data,
        choice.items,
        choice.default_mode,
        choice.optional,
    )
}

fn absent(kind: &str, name: &str, optional: bool) -> Result<Payload, Missing> {
    if optional {
        return Ok(Payload::new());
    }
    Err(Missing(format!("{kind} \"{name}\" not found")))
}

/// The files of the downward API.
pub fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    place: &Place,
) -> Result<Payload, Missing> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(pod, &field.field_path, place)?,
            (None, Some(selector)) => {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let container = find_container(pod, name)
                    .ok_or_else(|| Missing(format!("container {name:?} not found in pod")))?;
                fields::resource(&container, selector, place)?
            }
            (None, None) => String::new(),
        };
        let file = File {
            data: text.into_bytes(),
            mode: mode(item.mode, default_mode),
            user: item.user.and_then(|user| u32::try_from(user).ok()),
        };
        payload.insert(checked(&item.path)?, file);
    }
    Ok(payload)
}

/// A token that stands in a volume already. Blocks, but on memory only.
pub fn left(dir: &Path, path: &str) -> Option<String> {
    use std::io::Read;
    let file = std::fs::File::open(dir.join(checked(path).ok()?)).ok()?;
    let mut text = String::new();
    file.take(TOKEN_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A service account token.
pub fn token(
    path: &str,
    token: &str,
    file_mode: u32,
    user: Option<u32>,
) -> Result<Payload, Missing> {
    let file = File {
        data: token.as_bytes().to_vec(),
        mode: file_mode,
        user,
    };
    Ok(Payload::from([(checked(path)?, file)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({
            "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}))
        .unwrap()
    }

    fn paths(items: serde_json::Value, optional: bool) -> Result<Vec<String>, Missing> {
        let items: Vec<KeyToPath> = serde_json::from_value(items).unwrap();
        let choice = Choice {
            items: Some(&items),
            optional,
            default_mode: Some(0o600),
        };
        let payload = config_map("cm", Some(&map()), choice)?;
        Ok(payload
            .iter()
            .map(|(path, file)| format!("{path} {:o}", file.mode))
            .collect())
    }

    #[test]
    fn keys_become_files() {
        assert_eq!(
            paths(json!([]), false).unwrap(),
            ["a 600", "b 600", "c 600"]
        );
        let some = json!([{"key": "b", "path": "x/y", "mode": 0o400}]);
        assert_eq!(paths(some, false).unwrap(), ["x/y 400"]);
        let none = json!([{"key": "z", "path": "z"}]);
        assert!(paths(none.clone(), true).unwrap().is_empty());
        assert_eq!(
            paths(none, false).unwrap_err().to_string(),
            "configmap references non-existent key: z"
        );
        assert_eq!(
            config_map("cm", None, Choice::default())
                .unwrap_err()
                .to_string(),
            "configmap \"cm\" not found"
        );
    }

    #[test]
    fn nothing_leaves_the_volume() {
        for path in ["../x", "/x", "a/../../x", "", "..data"] {
            assert!(
                paths(json!([{"key": "a", "path": path}]), false).is_err(),
                "{path}"
            );
        }
    }
}
