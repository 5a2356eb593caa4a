//! Parameters of classes: those that are for these controllers (`csi.storage.k8s.io/*`), and those
//! that go to the driver. Pure.
//!
//! <https://kubernetes-csi.github.io/docs/secrets-and-credentials-storage-class.html>

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::SecretReference;

/// What reserved parameters begin with.
const PREFIX: &str = "csi.storage.k8s.io/";
/// The filesystem's type.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// Whose secrets a class can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Of making and deleting volumes.
    Provisioner,
    /// Of attaching.
    ControllerPublish,
    /// Of growing.
    ControllerExpand,
    /// Of staging on the node.
    NodeStage,
    /// Of publishing on the node.
    NodePublish,
    /// Of growing on the node.
    NodeExpand,
    /// Of taking and deleting snapshots.
    Snapshotter,
    /// Of listing snapshots.
    SnapshotterList,
}

/// What the variables of secrets' names stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// `pv.name`, or `volumesnapshotcontent.name`.
    pub volume: &'a str,
    /// Namespace and name of the claim, or of the VolumeSnapshot.
    pub claim: (&'a str, &'a str),
    /// The claim's annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

type Parameters = BTreeMap<String, String>;

// === impl Secrets ===

impl Secrets {
    const ALL: [Self; 8] = [
        Self::Provisioner,
        Self::ControllerPublish,
        Self::ControllerExpand,
        Self::NodeStage,
        Self::NodePublish,
        Self::NodeExpand,
        Self::Snapshotter,
        Self::SnapshotterList,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::ControllerPublish => "controller-publish",
            Self::ControllerExpand => "controller-expand",
            Self::NodeStage => "node-stage",
            Self::NodePublish => "node-publish",
            Self::NodeExpand => "node-expand",
            Self::Snapshotter => "snapshotter",
            Self::SnapshotterList => "snapshotter-list",
        }
    }

    fn keys(self) -> [String; 2] {
        ["name", "namespace"].map(|part| format!("{PREFIX}{}-secret-{part}", self.word()))
    }

    /// Where the secret is, if the class names one or a default one.
    pub fn of(
        self,
        parameters: &Parameters,
        names: Names<'_>,
    ) -> Result<Option<SecretReference>, String> {
        let default = ["name", "namespace"].map(|part| format!("{PREFIX}secret-{part}"));
        let snapshots = matches!(self, Self::Snapshotter | Self::SnapshotterList);
        let own = self.keys();
        let given = |keys: &[String; 2]| keys.iter().any(|key| parameters.contains_key(key));
        let keys = match given(&own) {
            true => own,
            false if given(&default) && !snapshots => default,
            false => return Ok(None),
        };
        let [name, namespace] = keys.each_ref().map(|key| parameters.get(key));
        let (Some(name), Some(namespace)) = (name, namespace) else {
            return Err(format!(
                "either name and namespace for {} secrets specified, both must be specified",
                self.word()
            ));
        };
        // A namespace may not depend on what the claim's author writes.
        let namespace = resolve(namespace, names, false)?;
        let name = resolve(name, names, self != Self::Provisioner)?;
        Ok(Some(SecretReference {
            name: Some(name),
            namespace: Some(namespace),
        }))
    }
}

/// A template with its variables put in; `free`: of the claim's annotations, too.
fn resolve(template: &str, names: Names<'_>, free: bool) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        let Some(end) = from.find('}') else {
            return Err(format!("{template:?}: a variable has no end"));
        };
        text.push_str(before);
        text.push_str(variable(&from[2..end], names, free).ok_or_else(|| {
            format!(
                "{template:?}: {:?} is no variable that can be used here",
                &from[..=end]
            )
        })?);
        rest = &from[end + 1..];
    }
    text.push_str(rest);
    Ok(text)
}

fn variable<'a>(name: &str, names: Names<'a>, free: bool) -> Option<&'a str> {
    match name {
        "pv.name" | "volumesnapshotcontent.name" => Some(names.volume),
        "pvc.namespace" | "volumesnapshot.namespace" => Some(names.claim.0),
        "pvc.name" | "volumesnapshot.name" => Some(names.claim.1),
        _ if free => {
            let key = name.strip_prefix("pvc.annotations['")?.strip_suffix("']")?;
            names.annotations?.get(key).map(String::as_str)
        }
        _ => None,
    }
}

/// What the driver is given: everything that is not reserved. A reserved key that means nothing is
/// a mistake of the class's author.
pub fn for_driver(parameters: &Parameters) -> Result<HashMap<String, String>, String> {
    let secrets = Secrets::ALL.iter().flat_map(|secrets| secrets.keys());
    let default = ["name", "namespace"].map(|part| format!("{PREFIX}secret-{part}"));
    let known: Vec<String> = secrets.chain(default).chain([FS_TYPE.to_owned()]).collect();
    let unknown = |key: &&String| key.starts_with(PREFIX) && !known.contains(key);
    if let Some(key) = parameters.keys().find(unknown) {
        return Err(format!(
            "found unknown parameter key \"{key}\" with reserved namespace {PREFIX}"
        ));
    }
    let free = parameters
        .iter()
        .filter(|(key, _)| !key.starts_with(PREFIX));
    Ok(free
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect())
}

/// Names that drivers may put on what they make.
pub fn with_names(
    mut parameters: HashMap<String, String>,
    names: Names<'_>,
) -> HashMap<String, String> {
    let (namespace, name) = names.claim;
    for (key, value) in [
        ("pv/name", names.volume),
        ("pvc/name", name),
        ("pvc/namespace", namespace),
    ] {
        parameters.insert(format!("{PREFIX}{key}"), value.to_owned());
    }
    parameters
}

/// The filesystem that a class asks for, by either key.
pub fn fs_type(parameters: &Parameters) -> Result<&str, String> {
    let mut found = parameters
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("fstype") || *key == FS_TYPE);
    let first = found.next().map_or("", |(_, value)| value.as_str());
    match found.next() {
        None => Ok(first),
        Some(_) => Err(format!(
            "fstype specified in parameters with both \"fstype\" and \"{FS_TYPE}\" keys"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let pairs = pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        pairs.collect()
    }

    fn names(annotations: &BTreeMap<String, String>) -> Names<'_> {
        Names {
            volume: "pvc-1",
            claim: ("shop", "data"),
            annotations: Some(annotations),
        }
    }

    #[test]
    fn secrets_are_named_by_templates() {
        let annotations = parameters(&[("team.example.com/key", "blue")]);
        let key = |of: &str, part: &str| format!("csi.storage.k8s.io/{of}secret-{part}");
        let given = |of: &str, name: &str, namespace: &str| {
            parameters(&[(&key(of, "name"), name), (&key(of, "namespace"), namespace)])
        };
        let found =
            |class: Parameters, of: Secrets| {
                let found = of.of(&class, names(&annotations))?;
                Ok::<_, String>(found.map(|secret| {
                    format!("{}/{}", secret.namespace.unwrap(), secret.name.unwrap())
                }))
            };
        let stage = given(
            "node-stage-",
            "${pvc.name}-${pvc.annotations['team.example.com/key']}",
            "${pvc.namespace}",
        );
        assert_eq!(
            found(stage.clone(), Secrets::NodeStage),
            Ok(Some("shop/data-blue".into()))
        );
        assert_eq!(found(stage, Secrets::NodePublish), Ok(None));
        let default = given("", "all-${pv.name}", "kube-system");
        assert_eq!(
            found(default.clone(), Secrets::Provisioner),
            Ok(Some("kube-system/all-pvc-1".into()))
        );
        assert_eq!(found(default, Secrets::Snapshotter), Ok(None));
        let half = parameters(&[(&key("provisioner-", "name"), "x")]);
        assert!(found(half, Secrets::Provisioner).is_err());
        let by_author = given(
            "provisioner-",
            "x",
            "${pvc.annotations['team.example.com/key']}",
        );
        assert!(found(by_author, Secrets::Provisioner).is_err());
        let endless = given("provisioner-", "${pvc.name", "n");
        assert!(found(endless, Secrets::Provisioner).is_err());
    }

    #[test]
    fn the_driver_sees_what_is_not_reserved() {
        let class = parameters(&[("type", "ssd"), ("csi.storage.k8s.io/fstype", "xfs")]);
        assert_eq!(fs_type(&class), Ok("xfs"));
        assert_eq!(
            for_driver(&class),
            Ok([("type".to_owned(), "ssd".to_owned())].into())
        );
        let twice = parameters(&[("FsType", "ext4"), ("csi.storage.k8s.io/fstype", "xfs")]);
        assert!(fs_type(&twice).is_err());
        let typo = parameters(&[("csi.storage.k8s.io/fstyp", "xfs")]);
        assert!(for_driver(&typo).unwrap_err().contains("fstyp"));
        let named = with_names(HashMap::new(), names(&BTreeMap::new()));
        assert_eq!(named["csi.storage.k8s.io/pvc/namespace"], "shop");
        assert_eq!(named.len(), 3);
    }
}
