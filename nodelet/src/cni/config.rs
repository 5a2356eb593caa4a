//! A network configuration, and what each of its plugins is told. Pure but for reading the folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use peapod_api::attach::HostPort;
use peapod_api::cni::{self, PortMapping, VERSIONS};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The capability of plugins that lead ports of the node to a container.
const PORT_MAPPINGS: &str = "portMappings";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is none.
    #[error(
        "no CNI configuration (*.conflist, *.conf, *.json) is in {0}; put one there, or do without --cni-conf-dir"
    )]
    None(PathBuf),
    /// It makes no sense.
    #[error("the CNI configuration {path} is wrong: {detail}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// A network configuration: its plugins, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Version of the specification that plugins are asked in.
    pub version: String,
    /// The network's name.
    pub name: String,
    /// Whether CHECK is not to be asked.
    pub disable_check: bool,
    /// Each plugin's part.
    pub plugins: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    cni_versions: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    disable_check: bool,
    plugins: Option<Vec<Map<String, Value>>>,
}

// === impl Network ===

impl Network {
    /// The first configuration of a folder, by name, as other runtimes choose.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Unreadable { path, source }
        };
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::None(dir.to_owned()));
            }
            entries => entries.map_err(unreadable(dir))?,
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| {
            let extension = path.extension().and_then(|e| e.to_str());
            matches!(extension, Some("conflist" | "conf" | "json"))
        });
        let first = files.into_iter().min();
        let path = first.ok_or_else(|| Error::None(dir.to_owned()))?;
        let text = std::fs::read(&path).map_err(unreadable(&path))?;
        Self::parse(&text).map_err(|detail| Error::Wrong { path, detail })
    }

    /// Reads a list of plugins, or the configuration of a single one.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let malformed = |error: serde_json::Error| error.to_string();
        let list: List = serde_json::from_slice(text).map_err(malformed)?;
        let plugins = match list.plugins {
            Some(plugins) => plugins,
            None => vec![serde_json::from_slice(text).map_err(malformed)?],
        };
        if plugins.is_empty() {
            return Err("it lists no plugins".to_owned());
        }
        for plugin in &plugins {
            let kind = plugin_type(plugin);
            if kind.is_empty() || kind.contains('/') {
                return Err(format!("{kind:?} is no type of a plugin"));
            }
        }
        if !cni::is_identifier(&list.name) {
            return Err(format!("{:?} cannot name a network", list.name));
        }
        let mut offered = list.cni_versions;
        offered.push(list.cni_version);
        let spoken = VERSIONS.iter().rev();
        let version = spoken
            .copied()
            .find(|known| offered.iter().any(|v| v == known));
        let Some(version) = version else {
            return Err(format!(
                "none of its versions {offered:?} is spoken; use one of {}",
                VERSIONS.join(", ")
            ));
        };
        Ok(Self {
            version: version.to_owned(),
            name: list.name,
            disable_check: list.disable_check,
            plugins,
        })
    }

    /// The loopback of a pod, by the plugin of this name.
    pub fn loopback() -> Self {
        let plugin = json!({"type": "loopback"});
        Self {
            version: VERSIONS[0].to_owned(),
            name: "cni-loopback".to_owned(),
            disable_check: true,
            plugins: plugin.as_object().cloned().into_iter().collect(),
        }
    }

    /// Whether the specification's version has something that came with another.
    pub fn at_least(&self, version: &str) -> bool {
        cni::at_least(&self.version, version)
    }

    /// Whether a plugin can lead ports of the node to a container.
    pub fn maps_ports(&self) -> bool {
        self.plugins.iter().any(|plugin| has(plugin, PORT_MAPPINGS))
    }

    /// What a plugin is told on its standard input.
    pub fn input(
        &self,
        plugin: &Map<String, Value>,
        ports: &[HostPort],
        previous: Option<&Value>,
        more: &BTreeMap<String, Value>,
    ) -> Value {
        let mut input = plugin.clone();
        input.insert("cniVersion".to_owned(), json!(self.version));
        input.insert("name".to_owned(), json!(self.name));
        if has(plugin, PORT_MAPPINGS) && !ports.is_empty() {
            let mappings: Vec<PortMapping> = ports.iter().map(PortMapping::from).collect();
            input.insert("runtimeConfig".to_owned(), json!({PORT_MAPPINGS: mappings}));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        input.extend(more.clone());
        Value::Object(input)
    }
}

/// Name of a plugin's program.
pub fn plugin_type(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn has(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin
        .get("capabilities")
        .and_then(|all| all.get(capability))
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::attach::Protocol;

    fn parse(value: Value) -> Result<Network, String> {
        Network::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_newest_version_that_both_speak_is_used() {
        let with = |version: &str, versions: Value| {
            parse(
                json!({"cniVersion": version, "cniVersions": versions, "name": "n",
                "plugins": [{"type": "ptp"}]}),
            )
            .map(|network| network.version)
        };
        assert_eq!(with("0.4.0", json!([])), Ok("0.4.0".into()));
        assert_eq!(
            with("0.4.0", json!(["0.4.0", "1.0.0", "9.0.0"])),
            Ok("1.0.0".into())
        );
        assert!(
            with("9.0.0", json!([]))
                .unwrap_err()
                .contains("none of its versions")
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (value, reason) in [
            (
                json!({"cniVersion": "1.0.0", "name": "n", "plugins": []}),
                "no plugins",
            ),
            (
                json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{}]}),
                "no type",
            ),
            (
                json!({"cniVersion": "1.0.0", "name": "n", "type": "../x"}),
                "no type",
            ),
            (
                json!({"cniVersion": "1.0.0", "name": "a b", "type": "ptp"}),
                "cannot name",
            ),
            (json!("text"), "invalid type"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn plugins_are_told_what_they_are_able_to_do() {
        let network = parse(json!({"cniVersion": "1.0.0", "name": "n", "plugins": [
            {"type": "ptp", "mtu": 1400},
            {"type": "portmap", "capabilities": {"portMappings": true}}]}))
        .unwrap();
        let ports = [HostPort {
            host_ip: None,
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
        }];
        let none = BTreeMap::new();
        let first = network.input(&network.plugins[0], &ports, None, &none);
        let expected = json!({"cniVersion": "1.0.0", "name": "n", "type": "ptp", "mtu": 1400});
        assert_eq!(first, expected);
        let previous = json!({"ips": []});
        let second = network.input(&network.plugins[1], &ports, Some(&previous), &none);
        assert_eq!(second["prevResult"], previous);
        let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
        assert_eq!(second["runtimeConfig"]["portMappings"], json!([mapping]));
        assert!(network.maps_ports() && !Network::loopback().maps_ports());
    }

    #[test]
    fn the_first_file_of_a_folder_counts() {
        let dir = tempfile::tempdir().unwrap();
        let none = Network::load(dir.path()).unwrap_err().to_string();
        assert!(none.contains("no CNI configuration"), "{none}");
        let write = |file: &str, name: &str| {
            let text = json!({"cniVersion": "1.0.0", "name": name, "type": "ptp"});
            std::fs::write(dir.path().join(file), text.to_string()).unwrap();
        };
        write("20-later.conflist", "later");
        write("05-no.txt", "no");
        write("10-first.conf", "first");
        assert_eq!(Network::load(dir.path()).unwrap().name, "first");
        std::fs::write(dir.path().join("01-broken.conf"), "{").unwrap();
        let wrong = Network::load(dir.path()).unwrap_err().to_string();
        assert!(wrong.contains("01-broken.conf is wrong"), "{wrong}");
    }
}
