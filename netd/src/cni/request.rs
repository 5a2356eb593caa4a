//! What the environment and the standard input ask for. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use peapod_api::attach::{HostPort, PodRef};
use peapod_api::cni::{
    self, Attachment, Error, PortMapping, Success, VALID_ATTACHMENTS, VERSIONS, code,
};
use serde::Deserialize;
use serde_json::Value;

use super::identity;

/// Where the network agent of `peapod up` answers.
pub const DEFAULT_SOCKET: &str = "/var/lib/peapod/run/netd.sock";
/// Namespace of what is no pod of Kubernetes, in names that are shown.
const NO_NAMESPACE: &str = "cni";

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Version of the configuration.
    pub version: String,
    /// What is to be done.
    pub command: Command,
    /// The network agent's socket.
    pub socket: PathBuf,
    /// What the configuration says of resolving names.
    pub dns: Value,
    /// What the plugins before this one answered.
    pub previous: Option<Success>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// ADD
    Add(Target),
    /// DEL
    Del(PodRef),
    /// CHECK
    Check(Target),
    /// GC: the attachments of the network with this prefix that are to stay.
    Collect {
        /// How the UIDs of the network's attachments begin.
        prefix: String,
        /// The UIDs to keep.
        keep: Vec<String>,
    },
    /// STATUS
    Status,
    /// VERSION
    Version,
}

/// A container to attach.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// It, as the network agent knows it.
    pub pod: PodRef,
    /// Where its network namespace is pinned.
    pub netns: PathBuf,
    /// Name of the link in it.
    pub interface: String,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    cni_version: String,
    name: String,
    socket: Option<PathBuf>,
    dns: Value,
    prev_result: Option<Success>,
    runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<PortMapping>,
}

/// An error of the newest version.
pub fn error(code: u32, msg: impl Into<String>) -> Error {
    Error {
        cni_version: VERSIONS[VERSIONS.len() - 1].to_owned(),
        code,
        msg: msg.into(),
        details: String::new(),
    }
}

/// Reads a request from the environment's `CNI_*` and the standard input.
///
/// # Errors
/// With the specification's code, and the version of the configuration where that is known.
pub fn read(env: &BTreeMap<String, String>, input: &[u8]) -> Result<Request, Error> {
    let config: Config = serde_json::from_slice(input).map_err(|fault| {
        let msg = "the configuration on standard input cannot be read";
        Error {
            details: fault.to_string(),
            ..error(code::UNDECODABLE, msg)
        }
    })?;
    let command = variable(env, "CNI_COMMAND")?;
    let version = match config.cni_version.as_str() {
        known if VERSIONS.contains(&known) => known.to_owned(),
        other if command == "VERSION" => other.to_owned(),
        other => {
            let spoken = VERSIONS.join(", ");
            return Err(error(
                code::INCOMPATIBLE_VERSION,
                format!("cniVersion {other:?} is not spoken; use one of {spoken}"),
            ));
        }
    };
    let read = || {
        Ok(Request {
            version: version.clone(),
            command: command_of(command, env, &version, &config)?,
            socket: config.socket.clone().unwrap_or(DEFAULT_SOCKET.into()),
            dns: config.dns.clone(),
            previous: config.prev_result.clone(),
        })
    };
    read().map_err(|fault: Error| Error {
        cni_version: version.clone(),
        ..fault
    })
}

fn command_of(
    command: &str,
    env: &BTreeMap<String, String>,
    version: &str,
    config: &Config,
) -> Result<Command, Error> {
    let since = |first: &str| match cni::at_least(version, first) {
        true => Ok(()),
        false => Err(error(
            code::INCOMPATIBLE_VERSION,
            format!("{command} needs cniVersion {first}; the configuration has {version}"),
        )),
    };
    if !matches!(command, "VERSION" | "STATUS") && !cni::is_identifier(&config.name) {
        let msg = format!(
            "the configuration's name {:?} cannot name a network",
            config.name
        );
        return Err(error(code::INVALID_CONFIG, msg));
    }
    match command {
        "ADD" => Ok(Command::Add(target(env, config)?)),
        "DEL" => Ok(Command::Del(pod(env, config)?)),
        "CHECK" => {
            since("0.4.0")?;
            if config.prev_result.is_none() {
                let msg = "CHECK needs the prevResult that ADD gave";
                return Err(error(code::INVALID_CONFIG, msg));
            }
            Ok(Command::Check(target(env, config)?))
        }
        "GC" => {
            since("1.1.0")?;
            let Some(valid) = &config.valid_attachments else {
                // No list is not an empty list: that would detach everything.
                let msg = format!("GC needs the list {VALID_ATTACHMENTS}");
                return Err(error(code::INVALID_CONFIG, msg));
            };
            let uid =
                |a: &Attachment| identity::attachment(&config.name, &a.container_id, &a.ifname);
            Ok(Command::Collect {
                prefix: identity::network(&config.name),
                keep: valid.iter().map(uid).collect(),
            })
        }
        "STATUS" => since("1.1.0").map(|()| Command::Status),
        "VERSION" => Ok(Command::Version),
        other => {
            let msg = format!("CNI_COMMAND {other:?} is not known");
            Err(error(code::INVALID_ENVIRONMENT, msg))
        }
    }
}

fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, Error> {
    match env.get(name) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(error(
            code::INVALID_ENVIRONMENT,
            format!("{name} is not set; a CNI plugin is run by a container runtime"),
        )),
    }
}

fn wrong(name: &str, value: &str) -> Error {
    error(
        code::INVALID_ENVIRONMENT,
        format!("{name} is malformed: {value:?}"),
    )
}

fn target(env: &BTreeMap<String, String>, config: &Config) -> Result<Target, Error> {
    let netns = variable(env, "CNI_NETNS")?;
    if !netns.starts_with('/') {
        return Err(wrong("CNI_NETNS", netns));
    }
    let mappings = &config.runtime_config.port_mappings;
    let host_ports: Result<Vec<HostPort>, String> =
        mappings.iter().map(HostPort::try_from).collect();
    Ok(Target {
        pod: pod(env, config)?,
        netns: netns.into(),
        interface: variable(env, "CNI_IFNAME")?.to_owned(),
        host_ports: host_ports
            .map_err(|fault| error(code::INVALID_CONFIG, format!("portMappings: {fault}")))?,
    })
}

fn pod(env: &BTreeMap<String, String>, config: &Config) -> Result<PodRef, Error> {
    let container = variable(env, "CNI_CONTAINERID")?;
    if !cni::is_identifier(container) {
        return Err(wrong("CNI_CONTAINERID", container));
    }
    let interface = variable(env, "CNI_IFNAME")?;
    if !cni::is_interface_name(interface) {
        return Err(wrong("CNI_IFNAME", interface));
    }
    let args = args(env)?;
    let named = |key: &str| args.get(key).copied().filter(|name| !name.is_empty());
    for name in [named("K8S_POD_NAMESPACE"), named("K8S_POD_NAME")] {
        if let Some(name) = name.filter(|name| !cni::is_identifier(name)) {
            return Err(wrong("CNI_ARGS", name));
        }
    }
    Ok(PodRef {
        namespace: named("K8S_POD_NAMESPACE")
            .unwrap_or(NO_NAMESPACE)
            .to_owned(),
        name: named("K8S_POD_NAME").unwrap_or(container).to_owned(),
        uid: identity::attachment(&config.name, container, interface),
    })
}

fn args(env: &BTreeMap<String, String>) -> Result<BTreeMap<&str, &str>, Error> {
    let text = env.get("CNI_ARGS").map(String::as_str).unwrap_or_default();
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').ok_or_else(|| wrong("CNI_ARGS", text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let all = [
            ("CNI_CONTAINERID", "abc"),
            ("CNI_NETNS", "/run/netns/abc"),
            ("CNI_IFNAME", "eth0"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
            ),
        ];
        let all = all.iter().chain(pairs);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn ask(pairs: &[(&str, &str)], config: Value) -> Result<Request, Error> {
        read(&env(pairs), config.to_string().as_bytes())
    }

    fn config() -> Value {
        json!({"cniVersion": "1.1.0", "name": "pods", "type": "peapod-cni"})
    }

    #[test]
    fn a_pod_is_named_by_its_runtime_and_known_by_its_container() {
        let mut asked = config();
        asked["runtimeConfig"] = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let request = ask(&[("CNI_COMMAND", "ADD")], asked).unwrap();
        let Command::Add(target) = request.command else {
            panic!("{request:?}");
        };
        assert_eq!(
            (&*target.pod.namespace, &*target.pod.name),
            ("shop", "web-0")
        );
        assert_eq!(target.host_ports[0].host_port, 8080);
        assert_eq!(request.socket, PathBuf::from(DEFAULT_SOCKET));
        let anonymous = ask(
            &[("CNI_COMMAND", "DEL"), ("CNI_ARGS", ""), ("CNI_NETNS", "")],
            config(),
        );
        let Command::Del(pod) = anonymous.unwrap().command else {
            panic!("no DEL");
        };
        assert_eq!((&*pod.namespace, &*pod.name), ("cni", "abc"));
        assert_eq!(pod.uid, target.pod.uid);
    }

    #[test]
    fn a_collection_keeps_what_is_listed_and_needs_a_list() {
        let mut asked = config();
        let command = [("CNI_COMMAND", "GC"), ("CNI_CONTAINERID", "")];
        assert_eq!(
            ask(&command, asked.clone()).unwrap_err().code,
            code::INVALID_CONFIG
        );
        asked[VALID_ATTACHMENTS] = json!([{"containerID": "abc", "ifname": "eth0"}]);
        let Command::Collect { prefix, keep } = ask(&command, asked).unwrap().command else {
            panic!("no GC");
        };
        assert_eq!(keep, [identity::attachment("pods", "abc", "eth0")]);
        assert!(keep[0].starts_with(&prefix));
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        let with = |key: &str, value: Value| {
            let mut config = config();
            config[key] = value;
            config
        };
        let add = ("CNI_COMMAND", "ADD");
        for (pairs, config, expected) in [
            (vec![add], with("cniVersion", json!("0.1.0")), 1),
            (vec![add], with("cniVersion", json!("2.0.0")), 1),
            (
                vec![("CNI_COMMAND", "GC")],
                with("cniVersion", json!("1.0.0")),
                1,
            ),
            (
                vec![("CNI_COMMAND", "CHECK")],
                with("cniVersion", json!("0.3.1")),
                1,
            ),
            (vec![("CNI_COMMAND", "")], config(), 4),
            (vec![("CNI_COMMAND", "FLY")], config(), 4),
            (vec![add, ("CNI_CONTAINERID", "")], config(), 4),
            (vec![add, ("CNI_CONTAINERID", "a b")], config(), 4),
            (vec![add, ("CNI_NETNS", "abc")], config(), 4),
            (vec![add, ("CNI_IFNAME", "a/b")], config(), 4),
            (vec![add, ("CNI_ARGS", "nonsense")], config(), 4),
            (vec![add, ("CNI_ARGS", "K8S_POD_NAME=a b")], config(), 4),
            (vec![add], with("prevResult", json!("text")), 6),
            (vec![add], json!("text"), 6),
            (vec![add], with("name", json!("")), 7),
            (vec![("CNI_COMMAND", "CHECK")], config(), 7),
            (
                vec![add],
                with(
                    "runtimeConfig",
                    json!({"portMappings": [{"hostPort": 0, "containerPort": 1}]}),
                ),
                7,
            ),
        ] {
            let error = ask(&pairs, config.clone()).unwrap_err();
            assert_eq!(error.code, expected, "{pairs:?} {config}: {error}");
        }
        assert_eq!(
            read(&env(&[add]), b"garbage").unwrap_err().code,
            code::UNDECODABLE
        );
    }
}
