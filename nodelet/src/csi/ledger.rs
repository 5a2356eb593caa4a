//! What is staged on the node and published for whom: a pure record, kept on disk, by which a
//! restarted agent knows what drivers were asked to do.
//!
//! A thing is recorded before a driver is asked to make it, and forgotten after the driver has
//! undone it. So whatever is there is recorded, and what is recorded may be undone at any time: by
//! the specification, undoing what was never done succeeds.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{Spec, unique_name};

/// A volume of a driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Volume {
    /// Name of the driver.
    pub driver: String,
    /// What the driver calls the volume.
    pub handle: String,
}

/// A volume that is staged on the node, for all its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Which.
    pub volume: Volume,
    /// Where.
    pub path: PathBuf,
    /// Whether it had to be attached.
    pub attached: bool,
}

/// A volume that is published for a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Which.
    pub volume: Volume,
    /// UID of the pod.
    pub pod: String,
    /// The volume's name on the node, see [`Spec::name`].
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// Whether it is a device.
    pub block: bool,
    /// Whether it had to be attached: then the node says that it is in use.
    pub attached: bool,
    /// Whether the driver has said that it is done.
    pub done: bool,
}

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    staged: Vec<Staged>,
    published: Vec<Published>,
}

// === impl Volume ===

impl Volume {
    /// The volume of a declaration.
    pub fn of(spec: &Spec) -> Self {
        Self {
            driver: spec.driver.clone(),
            handle: spec.handle.clone(),
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Notes that a volume is about to be published for a pod, and staged if it is staged at all.
    ///
    /// # Errors
    /// When another pod has it, and it is for one pod only: upstream's sentence.
    pub fn intend(
        &mut self,
        spec: &Spec,
        published: Published,
        staged: Option<PathBuf>,
    ) -> Result<(), String> {
        let volume = &published.volume;
        let others = |one: &&Published| one.volume == *volume && one.pod != published.pod;
        if spec.is_for_one_pod() && self.published.iter().any(|one| others(&one)) {
            return Err(
                "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
                    .to_owned(),
            );
        }
        if let Some(path) = staged
            && !self.staged.iter().any(|one| one.volume == *volume)
        {
            let (volume, attached) = (volume.clone(), published.attached);
            self.staged.push(Staged {
                volume,
                path,
                attached,
            });
        }
        if self.of(&published.pod, &published.name).is_none() {
            self.published.push(published);
        }
        Ok(())
    }

    /// Notes that the driver has published a volume.
    pub fn done(&mut self, pod: &str, name: &str) {
        let found = self.published.iter_mut();
        if let Some(one) = found
            .into_iter()
            .find(|one| one.pod == pod && one.name == name)
        {
            one.done = true;
        }
    }

    /// Notes that a volume is not published for a pod any more.
    pub fn unpublished(&mut self, pod: &str, name: &str) {
        self.published
            .retain(|one| one.pod != pod || one.name != name);
    }

    /// Notes that a volume is not staged any more.
    pub fn unstaged(&mut self, volume: &Volume) {
        self.staged.retain(|one| one.volume != *volume);
    }

    /// A pod's volume of a name.
    pub fn of(&self, pod: &str, name: &str) -> Option<&Published> {
        let mut all = self.published.iter();
        all.find(|one| one.pod == pod && one.name == name)
    }

    /// Whether a volume is published, and so staged, for another pod.
    pub fn is_done_for_others(&self, volume: &Volume, pod: &str) -> bool {
        let mut all = self.published.iter();
        all.any(|one| one.volume == *volume && one.pod != pod && one.done)
    }

    /// A pod's volumes.
    pub fn of_pod(&self, pod: &str) -> Vec<Published> {
        let all = self.published.iter().filter(|one| one.pod == pod);
        all.cloned().collect()
    }

    /// All that is published.
    pub fn published(&self) -> Vec<Published> {
        self.published.clone()
    }

    /// All that is staged.
    pub fn staged(&self) -> Vec<Staged> {
        self.staged.clone()
    }

    /// The pods that volumes are published for and that are not among these.
    pub fn orphans(&self, pods: &HashSet<String>) -> BTreeSet<String> {
        let all = self.published.iter().map(|one| &one.pod);
        all.filter(|pod| !pods.contains(*pod)).cloned().collect()
    }

    /// The volumes that are staged for no pod.
    pub fn idle(&self) -> Vec<Staged> {
        let used = |one: &&Staged| self.published.iter().any(|p| p.volume == one.volume);
        self.staged
            .iter()
            .filter(|one| !used(one))
            .cloned()
            .collect()
    }

    /// Whether a volume is staged for no pod.
    pub fn is_idle(&self, volume: &Volume) -> bool {
        self.idle().iter().any(|one| one.volume == *volume)
    }

    /// The attached volumes that something of the node uses, as a Node's status names them. Those
    /// that are still staged are in use: they must not be detached.
    pub fn in_use(&self) -> BTreeSet<String> {
        let published = self.published.iter().map(|one| (&one.volume, one.attached));
        let staged = self.staged.iter().map(|one| (&one.volume, one.attached));
        let all = published.chain(staged).filter(|(_, attached)| *attached);
        all.map(|(one, _)| unique_name(&one.driver, &one.handle))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `publish POD VOLUME [once] [attached]`, `done POD VOLUME`, `unpublish POD VOLUME`,
    /// `unstage VOLUME`; every volume is staged.
    fn step(ledger: &mut Ledger, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let volume = |name: &str| Volume {
            driver: "d".to_owned(),
            handle: name.to_owned(),
        };
        match words[..] {
            ["publish", pod, name, ref how @ ..] => {
                let once = how.contains(&"once").then(|| "ReadWriteOncePod".to_owned());
                let spec = Spec {
                    access_modes: once.into_iter().collect(),
                    ..Spec::default()
                };
                let published = Published {
                    volume: volume(name),
                    pod: pod.to_owned(),
                    name: name.to_owned(),
                    path: PathBuf::new(),
                    block: false,
                    attached: how.contains(&"attached"),
                    done: false,
                };
                return ledger.intend(&spec, published, Some(PathBuf::from("/staged")));
            }
            ["done", pod, name] => ledger.done(pod, name),
            ["unpublish", pod, name] => ledger.unpublished(pod, name),
            ["unstage", name] => ledger.unstaged(&volume(name)),
            _ => panic!("what is {line:?}?"),
        }
        Ok(())
    }

    /// What comes of some steps: who has what (`!` once it is done), what is idle, what is in use.
    fn after(lines: &[&str]) -> String {
        let mut ledger = Ledger::default();
        for line in lines {
            if let Err(refusal) = step(&mut ledger, line) {
                return refusal;
            }
        }
        // What is read back after a restart is the same.
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        let held = ledger.published.iter().map(|one| {
            let done = if one.done { "!" } else { "" };
            format!("{}:{}{done}", one.pod, one.name)
        });
        let idle = ledger.idle().into_iter().map(|one| one.volume.handle);
        let join = |words: Vec<String>| words.join(" ");
        format!(
            "{} | {} | {}",
            join(held.collect()),
            join(idle.collect()),
            join(ledger.in_use().into_iter().collect())
        )
    }

    #[test]
    fn a_volume_is_staged_for_as_long_as_some_pod_has_it() {
        let mut steps = vec!["publish p v attached", "done p v", "publish q v attached"];
        assert_eq!(after(&steps), "p:v! q:v |  | kubernetes.io/csi/d^v");
        steps.push("unpublish p v");
        assert_eq!(after(&steps), "q:v |  | kubernetes.io/csi/d^v");
        steps.push("unpublish q v");
        assert_eq!(after(&steps), " | v | kubernetes.io/csi/d^v");
        steps.push("publish p v attached");
        assert_eq!(after(&steps), "p:v |  | kubernetes.io/csi/d^v");
        steps.extend(["unpublish p v", "unstage v"]);
        assert_eq!(after(&steps), " |  | ");
    }

    #[test]
    fn what_is_asked_again_is_recorded_once() {
        let steps = ["publish p v", "done p v", "publish p v", "publish p w"];
        assert_eq!(after(&steps), "p:v! p:w |  | ");
    }

    #[test]
    fn one_pod_only() {
        let mut steps = vec!["publish p v once", "publish p v once"];
        assert_eq!(after(&steps), "p:v |  | ");
        steps.push("publish q v once");
        assert!(after(&steps).contains("in use by another pod"));
        steps.insert(2, "unpublish p v");
        assert_eq!(after(&steps), "q:v |  | ");
    }

    #[test]
    fn pods_that_are_gone() {
        let mut ledger = Ledger::default();
        for line in ["publish p v", "publish q v", "publish q w"] {
            step(&mut ledger, line).unwrap();
        }
        let known = HashSet::from(["p".to_owned()]);
        assert_eq!(ledger.orphans(&known), BTreeSet::from(["q".to_owned()]));
        assert_eq!(ledger.of_pod("q").len(), 2);
    }
}
