//! How far a claim's growth has come, and what follows. Pure.
//!
//! The states are upstream's (`RecoverVolumeExpansionFailure`, general since 1.34):
//! `allocatedResources` is the size under way, `allocatedResourceStatuses` how far it is. A growth
//! that the driver refused for good gives way to the next request, a smaller one too; one whose
//! outcome is not known is tried again until it is.
//!
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#recovering-from-failure-when-expanding-volumes>

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
    PersistentVolumeClaimStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::quantity::Quantity;
use tonic::Code;

use crate::csi::provision::core::bytes;
use crate::volume::matching;

const STORAGE: &str = "storage";
/// The conditions of growth; each state has at most one of them.
const CONDITIONS: [&str; 4] = [
    "Resizing",
    "FileSystemResizePending",
    "ControllerResizeError",
    "NodeResizeError",
];
const PENDING: &str =
    "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";

/// How far a growth has come, as `allocatedResourceStatuses` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The driver was asked, or is about to be.
    ControllerInProgress,
    /// The driver cannot.
    ControllerInfeasible,
    /// The node has yet to grow the filesystem.
    NodePending,
    /// It does.
    NodeInProgress,
    /// It cannot.
    NodeInfeasible,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, or it is the node's turn.
    Nothing,
    /// Have the driver grow it.
    Expand {
        /// To so many bytes.
        size: i64,
        /// It could not before: seldom.
        slow: bool,
    },
}

/// What came of asking the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so large now.
    Done {
        /// In bytes.
        size: i64,
        /// Whether the node has to do its part.
        node: bool,
    },
    /// The driver refused.
    Failed {
        /// Its words.
        fault: String,
        /// Whether the same will never do.
        infeasible: bool,
    },
}

// === impl State ===

impl State {
    const ALL: [(Self, &'static str); 5] = [
        (Self::ControllerInProgress, "ControllerResizeInProgress"),
        (Self::ControllerInfeasible, "ControllerResizeInfeasible"),
        (Self::NodePending, "NodeResizePending"),
        (Self::NodeInProgress, "NodeResizeInProgress"),
        (Self::NodeInfeasible, "NodeResizeInfeasible"),
    ];

    fn of(status: &PersistentVolumeClaimStatus) -> Option<Self> {
        let word = status.allocated_resource_statuses.as_ref()?.get(STORAGE)?;
        let found = Self::ALL.iter().find(|(_, name)| name == word);
        found.map(|(state, _)| *state)
    }

    fn set(self, status: &mut PersistentVolumeClaimStatus) {
        let all = status.allocated_resource_statuses.get_or_insert_default();
        let name = Self::ALL.iter().find(|(state, _)| *state == self);
        all.insert(
            STORAGE.to_owned(),
            name.map_or("", |(_, name)| name).to_owned(),
        );
    }
}

type Texts =
    std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// Bytes of storage in a list of resources.
fn storage(list: Option<&Texts>) -> Option<i64> {
    let text = list?.get(STORAGE)?;
    text.0.parse().ok().map(Quantity::units)
}

/// The size of a volume, in bytes.
pub fn capacity(volume: &PersistentVolume) -> i64 {
    let spec = volume.spec.as_ref();
    storage(spec.and_then(|spec| spec.capacity.as_ref())).unwrap_or(0)
}

fn has_condition(status: &PersistentVolumeClaimStatus, name: &str) -> bool {
    let mut all = status.conditions.iter().flatten();
    all.any(|one| one.type_ == name && one.status == "True")
}

/// Whether a claim is bound to a volume and asks for more than it has.
pub fn grows(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let status = claim.status.clone().unwrap_or_default();
    let reference = matching::reference(volume, claim);
    let has = storage(status.capacity.as_ref());
    status.phase.as_deref() == Some("Bound")
        && reference == Some(matching::Reference::Bound)
        && has.is_some_and(|has| matching::request(claim).units() > has)
}

/// Decides about a bound claim; `controller`: the driver's Controller grows volumes.
pub fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume, controller: bool) -> Plan {
    if !grows(claim, volume) {
        return Plan::Nothing;
    }
    let status = claim.status.clone().unwrap_or_default();
    let (wants, has) = (matching::request(claim).units(), capacity(volume));
    let allocated = storage(status.allocated_resources.as_ref());
    let under_way = allocated.unwrap_or(wants);
    let state = State::of(&status);
    let size = match state {
        Some(State::NodePending | State::NodeInProgress) if has >= wants || has >= under_way => {
            return Plan::Nothing;
        }
        Some(State::NodePending | State::NodeInProgress) => under_way,
        Some(State::NodeInfeasible) if has < wants || controller => under_way,
        Some(State::NodeInfeasible) => wants,
        // Refused for good: what is wanted now counts.
        Some(State::ControllerInProgress)
            if has < wants && has_condition(&status, "ControllerResizeError") =>
        {
            wants
        }
        Some(State::ControllerInProgress) => under_way,
        Some(State::ControllerInfeasible) if has < wants => wants,
        Some(State::ControllerInfeasible) => under_way,
        None if has < wants => wants,
        None if allocated.is_none() && has_condition(&status, "FileSystemResizePending") => {
            return Plan::Nothing;
        }
        None => under_way,
    };
    let slow = state == Some(State::ControllerInfeasible) && allocated == Some(size);
    Plan::Expand { size, slow }
}

/// Puts a condition of growth in the place of all others.
fn condition(status: &mut PersistentVolumeClaimStatus, name: Option<(&str, &str)>, now: Timestamp) {
    let all = status.conditions.get_or_insert_default();
    let known = all
        .iter()
        .find(|one| name.is_some_and(|(name, _)| one.type_ == name))
        .cloned();
    all.retain(|one| !CONDITIONS.contains(&one.type_.as_str()));
    if let Some((name, message)) = name {
        let since = known.and_then(|one| one.last_transition_time);
        all.push(PersistentVolumeClaimCondition {
            type_: name.to_owned(),
            status: "True".to_owned(),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
            last_transition_time: since.or(Some(Time(now))),
            ..Default::default()
        });
    }
    if all.is_empty() {
        status.conditions = None;
    }
}

/// The status while the driver is asked for a size.
pub fn in_progress(
    claim: &PersistentVolumeClaim,
    size: i64,
    now: Timestamp,
) -> PersistentVolumeClaimStatus {
    let mut status = claim.status.clone().unwrap_or_default();
    if storage(status.allocated_resources.as_ref()) != Some(size) {
        State::ControllerInProgress.set(&mut status);
        let allocated = status.allocated_resources.get_or_insert_default();
        allocated.insert(STORAGE.to_owned(), bytes(size));
    }
    if State::of(&status) != Some(State::ControllerInfeasible) {
        State::ControllerInProgress.set(&mut status);
    }
    // A refusal stands until the driver says otherwise: it says that a smaller size may follow.
    if !has_condition(&status, "ControllerResizeError") {
        condition(&mut status, Some(("Resizing", "")), now);
    }
    status
}

/// The status after the driver answered.
pub fn after(
    claim: &PersistentVolumeClaim,
    outcome: &Outcome,
    now: Timestamp,
) -> PersistentVolumeClaimStatus {
    let mut status = claim.status.clone().unwrap_or_default();
    match outcome {
        Outcome::Done { node: true, .. } => {
            State::NodePending.set(&mut status);
            condition(&mut status, Some(("FileSystemResizePending", PENDING)), now);
        }
        Outcome::Done { size, node: false } => {
            let capacity = status.capacity.get_or_insert_default();
            capacity.insert(STORAGE.to_owned(), bytes(*size));
            if let Some(all) = &mut status.allocated_resource_statuses {
                all.remove(STORAGE);
            }
            status.allocated_resource_statuses = status
                .allocated_resource_statuses
                .filter(|all| !all.is_empty());
            condition(&mut status, None, now);
        }
        Outcome::Failed { fault, infeasible } => {
            if *infeasible {
                State::ControllerInfeasible.set(&mut status);
            }
            condition(&mut status, Some(("ControllerResizeError", fault)), now);
        }
    }
    status
}

/// The status when it is not known what the driver made of it: no refusal stands any more, and this
/// size is to be finished first.
pub fn unsure(claim: &PersistentVolumeClaim, now: Timestamp) -> PersistentVolumeClaimStatus {
    let mut status = claim.status.clone().unwrap_or_default();
    condition(&mut status, Some(("Resizing", "")), now);
    status
}

/// Whether a refusal is of what was asked, rather than of the moment.
pub fn is_infeasible(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};

    fn shown(status: &PersistentVolumeClaimStatus) -> String {
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|one| one.type_.as_str())
            .collect();
        format!(
            "capacity {:?} allocated {:?} {:?} {conditions:?}",
            storage(status.capacity.as_ref()).unwrap_or(0) >> 30,
            storage(status.allocated_resources.as_ref()).unwrap_or(0) >> 30,
            State::of(status)
        )
    }

    /// One claim and one volume; what follows from each answer of the driver.
    fn run(input: &str) -> String {
        let volumes: Vec<PersistentVolume> = objects(input, "PersistentVolume");
        let now = Timestamp::UNIX_EPOCH;
        let mut out = Vec::new();
        for claim in objects::<PersistentVolumeClaim>(input, "PersistentVolumeClaim") {
            let name = claim.metadata.name.clone().unwrap();
            let bound = claim.spec.as_ref().unwrap().volume_name.clone();
            let volume = volumes
                .iter()
                .find(|volume| volume.metadata.name == bound)
                .unwrap();
            let plan = plan(&claim, volume, true);
            let Plan::Expand { size, slow } = plan else {
                out.push(format!("{name}: {plan:?}"));
                continue;
            };
            out.push(format!("{name}: to {} slow {slow}", size >> 30));
            let mut asked = claim.clone();
            asked.status = Some(in_progress(&claim, size, now));
            out.push(format!(
                "  asked: {}",
                shown(asked.status.as_ref().unwrap())
            ));
            for (what, outcome) in [
                ("done", Outcome::Done { size, node: false }),
                ("node", Outcome::Done { size, node: true }),
                (
                    "failed",
                    Outcome::Failed {
                        fault: "no".into(),
                        infeasible: false,
                    },
                ),
                (
                    "infeasible",
                    Outcome::Failed {
                        fault: "never".into(),
                        infeasible: true,
                    },
                ),
            ] {
                out.push(format!(
                    "  {what}: {}",
                    shown(&after(&asked, &outcome, now))
                ));
            }
        }
        out.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("csi_resize", run);
    }
}
