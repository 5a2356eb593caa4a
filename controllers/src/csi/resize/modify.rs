//! Claims that change their VolumeAttributesClass. [`changes`] and [`next`] decide.
//!
//! <https://kubernetes.io/docs/concepts/storage/volume-attributes-classes/>

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ModifyVolumeStatus, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
    PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_csi::v1::ControllerModifyVolumeRequest;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;

use super::{Resizer, core};
use crate::common::Key;
use crate::csi::attach::source;
use crate::csi::drivers::Reached;
use crate::csi::secret;
use crate::shell::events::Note;
use crate::shell::{Outcome, Result, write};
use crate::volume::matching;

const CONDITIONS: [&str; 2] = ["ModifyingVolume", "ModifyVolumeError"];

fn wanted(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim
        .spec
        .as_ref()?
        .volume_attributes_class_name
        .as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// Whether a bound claim's status does not show the class that it asks for.
pub fn changes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let Some(status) = &claim.status else {
        return false;
    };
    let current = status.current_volume_attributes_class_name.as_deref();
    status.phase.as_deref() == Some("Bound")
        && matching::reference(volume, claim) == Some(matching::Reference::Bound)
        && (wanted(claim).is_some_and(|wanted| current != Some(wanted))
            || status.modify_volume_status.is_some() && wanted(claim).is_some())
}

/// What is to be changed to: what is under way and whose outcome is not known, else what is
/// asked for. `None`: the volume has it, and only the status is behind.
fn next<'a>(claim: &'a PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'a str> {
    let status = claim.status.as_ref();
    let under_way = status.and_then(|status| status.modify_volume_status.as_ref());
    let failed = status.is_some_and(|status| {
        let mut all = status.conditions.iter().flatten();
        all.any(|one| one.type_ == "ModifyVolumeError")
    });
    let unsure = under_way.filter(|one| one.status == "InProgress" && !failed);
    let unsure = unsure.and_then(|one| one.target_volume_attributes_class_name.as_deref());
    let target = unsure.or_else(|| wanted(claim))?;
    let has = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let at_rest = under_way.is_none() || failed;
    (has != Some(target) || !at_rest).then_some(target)
}

/// A status that shows how far a change is; without a word it is at its end.
fn shown(
    claim: &PersistentVolumeClaim,
    target: &str,
    state: Option<(&str, &str)>,
    now: Timestamp,
) -> PersistentVolumeClaimStatus {
    let mut status = claim.status.clone().unwrap_or_default();
    let all = status.conditions.get_or_insert_default();
    all.retain(|one| !CONDITIONS.contains(&one.type_.as_str()));
    let condition = match state {
        Some(("InProgress", "")) => Some((CONDITIONS[0], String::new())),
        Some((_, fault)) if !fault.is_empty() => Some((CONDITIONS[1], fault.to_owned())),
        _ => None,
    };
    if let Some((name, message)) = condition {
        all.push(PersistentVolumeClaimCondition {
            type_: name.to_owned(),
            status: "True".to_owned(),
            message: Some(message).filter(|message| !message.is_empty()),
            last_transition_time: Some(Time(now)),
            ..Default::default()
        });
    }
    if all.is_empty() {
        status.conditions = None;
    }
    status.modify_volume_status = state.map(|(state, _)| ModifyVolumeStatus {
        status: state.to_owned(),
        target_volume_attributes_class_name: Some(target.to_owned()),
    });
    if state.is_none() {
        status.current_volume_attributes_class_name = Some(target.to_owned());
    }
    status
}

impl Resizer {
    /// Brings a claim's volume to the class of attributes that it asks for.
    pub(super) async fn modify(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        reached: &Reached,
    ) -> Result<Outcome> {
        let now = Timestamp::now();
        let Some(target) = next(claim, volume) else {
            let target = wanted(claim).unwrap_or_default();
            self.show(claim, &shown(claim, target, None, now)).await?;
            return Ok(Outcome::Done);
        };
        let class = self
            .ctx
            .informers
            .attributes_classes
            .get(&Key::cluster(target));
        let Some(class) = class else {
            self.show(claim, &shown(claim, target, Some(("Pending", "")), now))
                .await?;
            let message = format!("VAC \"{target}\" does not exist.");
            self.tell(claim, Note::warning("VolumeModifyFailed", message));
            // Its creation wakes the claim.
            return Ok(Outcome::Done);
        };
        if let Some(fault) = refuse(&class, reached) {
            self.show(
                claim,
                &shown(claim, target, Some(("Infeasible", &fault)), now),
            )
            .await?;
            self.tell(claim, Note::warning("VolumeModifyFailed", fault));
            return Ok(Outcome::Done);
        }
        let thing = (
            claim.metadata.uid.clone().unwrap_or_default(),
            target.to_owned(),
        );
        if let Some(wait) = self.modify_pauses.next(&thing, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let claim = &self
            .show(claim, &shown(claim, target, Some(("InProgress", "")), now))
            .await?;
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let message = format!(
            "external resizer is modifying volume {} with vac {target}",
            Key::of(claim).name
        );
        self.tell(claim, Note::normal("VolumeModify", message));
        let source = source(volume).cloned().unwrap_or_default();
        let secrets = secret(&self.ctx, source.controller_expand_secret_ref.as_ref()).await?;
        let request = ControllerModifyVolumeRequest {
            volume_id: source.volume_handle,
            secrets: secrets.unwrap_or_default(),
            mutable_parameters: class
                .parameters
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        };
        match reached.driver.call(request).await {
            Ok(_) => {
                self.modify_pauses.forget(&thing);
                let mut new = volume.clone();
                new.spec
                    .get_or_insert_default()
                    .volume_attributes_class_name = Some(target.to_owned());
                write::update(&self.ctx, volume, &new).await?;
                self.show(claim, &shown(claim, target, None, now)).await?;
                let message = format!(
                    "external resizer modified volume {} with vac {target} successfully",
                    Key::of(claim).name
                );
                self.tell(claim, Note::normal("VolumeModifySuccessful", message));
                Ok(Outcome::Done)
            }
            Err(error) => {
                let fault = format!(
                    "modify volume \"{name}\" by resizer \"{}\" failed: {}",
                    reached.driver.name(),
                    error.status()
                );
                if error.is_final() {
                    let state = if core::is_infeasible(error.code) {
                        "Infeasible"
                    } else {
                        "InProgress"
                    };
                    self.show(claim, &shown(claim, target, Some((state, &fault)), now))
                        .await?;
                }
                self.tell(claim, Note::warning("VolumeModifyFailed", fault));
                Ok(Outcome::After(
                    self.modify_pauses.pause(&thing, Instant::now()),
                ))
            }
        }
    }
}

/// Why a volume of the driver cannot have a class.
fn refuse(class: &VolumeAttributesClass, reached: &Reached) -> Option<String> {
    let driver = reached.driver.name();
    if class.driver_name != driver {
        return Some(format!(
            "VolumeAttributesClass is of driver {}, not {driver}",
            class.driver_name
        ));
    }
    let can = reached.abilities.can(Call::ModifyVolume);
    (!can).then(|| format!("CSI driver {driver} changes no attributes: controller MODIFY_VOLUME capability is not reported"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(wants: &str, status: Value) -> PersistentVolumeClaim {
        let mut status = status;
        status["phase"] = json!("Bound");
        let claim = json!({
            "metadata": {"uid": "u"},
            "spec": {"volumeAttributesClassName": wants},
            "status": status,
        });
        serde_json::from_value(claim).unwrap()
    }

    fn volume(has: Option<&str>) -> PersistentVolume {
        let spec = json!({"volumeAttributesClassName": has, "claimRef": {"uid": "u"}});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_change_whose_outcome_is_unknown_is_finished_first() {
        let under_way = |state: &str| json!({"modifyVolumeStatus": {"status": state, "targetVolumeAttributesClassName": "gold"}});
        let (none, gold) = (volume(None), volume(Some("gold")));
        let fresh = claim("gold", json!({}));
        assert!(changes(&fresh, &none));
        assert_eq!(next(&fresh, &none), Some("gold"));
        assert_eq!(next(&fresh, &gold), None, "made with it");
        let there = claim("gold", json!({"currentVolumeAttributesClassName": "gold"}));
        assert!(!changes(&there, &gold));
        assert_eq!(
            next(&claim("iron", under_way("InProgress")), &none),
            Some("gold")
        );
        assert_eq!(
            next(&claim("iron", under_way("Infeasible")), &none),
            Some("iron")
        );
        let mut refused = under_way("InProgress");
        refused["conditions"] = json!([{"type": "ModifyVolumeError", "status": "True"}]);
        assert_eq!(next(&claim("iron", refused), &none), Some("iron"));
    }

    #[test]
    fn the_status_tells_how_far_it_is() {
        let now = Timestamp::UNIX_EPOCH;
        let fresh = claim("gold", json!({}));
        let asked = shown(&fresh, "gold", Some(("InProgress", "")), now);
        assert_eq!(
            asked.conditions.as_ref().unwrap()[0].type_,
            "ModifyingVolume"
        );
        let mut then = fresh.clone();
        then.status = Some(asked);
        let failed = shown(&then, "gold", Some(("Infeasible", "no gold")), now);
        assert_eq!(
            failed.conditions.as_ref().unwrap()[0].type_,
            "ModifyVolumeError"
        );
        assert_eq!(failed.modify_volume_status.unwrap().status, "Infeasible");
        let done = shown(&then, "gold", None, now);
        assert!(done.conditions.is_none() && done.modify_volume_status.is_none());
        assert_eq!(
            done.current_volume_attributes_class_name.as_deref(),
            Some("gold")
        );
    }
}
