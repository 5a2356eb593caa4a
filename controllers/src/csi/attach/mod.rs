//! Which nodes have which volumes: VolumeAttachments come and go with the pods that need them.
//!
//! [`core`] decides for one volume; here it is given what there is to see. [`report`] tells nodes
//! what is attached to them. The driver is asked by [`super::attacher`].

pub mod core;
mod report;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use kube::api::ObjectMeta;
use parking_lot::Mutex;

use self::core::{Action, Observed, Place};
use crate::common::{Key, pods};
use crate::shell::context::{Informers, term};
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};
use crate::volume::matching;

const NAME: &str = "attachdetach";
const COMPONENT: &str = "attachdetach-controller";

struct Attacher {
    ctx: Context,
    /// Since when attachments are not wanted, by name.
    idle: Mutex<HashMap<String, Instant>>,
    /// Volume and node of which the pods were told that they wait for another node.
    told: Mutex<HashSet<(String, String)>>,
}

/// Wires the loop; its keys are volumes.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let all = ctx.informers.clone();
    let (of_pods, of_nodes, of_drivers, tell) = (all.clone(), all.clone(), all, ctx.clone());
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.volumes)
        .on(&ctx.informers.claims, |change| {
            let named = change
                .both()
                .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_ref());
            named.map(Key::cluster).collect::<Vec<_>>()
        })
        .on(&ctx.informers.pods, move |change| {
            volumes_of(&of_pods, change)
        })
        .on(&ctx.informers.attachments, move |change| {
            announce(&tell, change);
            let named = change.latest();
            named
                .and_then(|one| one.spec.source.persistent_volume_name.as_ref())
                .map(Key::cluster)
        })
        .on(&ctx.informers.nodes, move |change| {
            on_node(&of_nodes, change)
        })
        .on(&ctx.informers.csi_drivers, move |change| {
            let volumes = of_drivers.volumes.all();
            let name = change.key.name.clone();
            let of_driver = volumes
                .into_iter()
                .filter(move |volume| source(volume).is_some_and(|source| source.driver == name));
            of_driver
                .map(|volume| Key::of(&*volume))
                .collect::<Vec<_>>()
        })
        .run(
            tasks,
            Attacher {
                ctx: ctx.clone(),
                idle: Mutex::default(),
                told: Mutex::default(),
            },
        );
    report::start(ctx, tasks);
}

/// What of a volume is a driver's.
pub fn source(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    volume.spec.as_ref()?.csi.as_ref()
}

/// The volumes of a pod that came to a node, or whose use of them ended.
fn volumes_of(informers: &Informers, change: &Change<Pod>) -> Vec<Key> {
    let keeps = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(core::keeps_volumes);
    if keeps(&change.old) == keeps(&change.new) {
        return Vec::new();
    }
    let claims = change.latest().map(pods::claims).unwrap_or_default();
    let claims = claims
        .iter()
        .filter_map(|claim| informers.claims.get(claim));
    let named = claims.filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
    named.map(Key::cluster).collect()
}

/// The volumes attached to a node that changed in what decides about them, or is gone.
fn on_node(informers: &Informers, change: &Change<Node>) -> Vec<Key> {
    let seen = |node: &Option<Arc<Node>>| {
        let node = node.as_deref()?;
        let in_use = node
            .status
            .as_ref()
            .and_then(|status| status.volumes_in_use.clone());
        Some((in_use, Place::of(node, "")))
    };
    if seen(&change.old) == seen(&change.new) {
        return Vec::new();
    }
    let attachments = informers
        .attachments
        .indexed(&term::on_node(&change.key.name));
    let named = attachments
        .iter()
        .filter_map(|one| one.spec.source.persistent_volume_name.clone());
    named.map(Key::cluster).collect()
}

/// Tells a volume's pods on a node that it came, or why it did not.
fn announce(ctx: &Context, change: &Change<VolumeAttachment>) {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return;
    };
    let Some(volume) = new.spec.source.persistent_volume_name.as_deref() else {
        return;
    };
    let attached =
        |one: &VolumeAttachment| one.status.as_ref().is_some_and(|status| status.attached);
    let fault =
        |one: &VolumeAttachment| one.status.as_ref()?.attach_error.as_ref()?.message.clone();
    let note = match (fault(old), fault(new)) {
        _ if attached(new) && !attached(old) => {
            let message = format!("AttachVolume.Attach succeeded for volume \"{volume}\" ");
            Note::normal("SuccessfulAttachVolume", message)
        }
        (before, Some(fault)) if before.as_ref() != Some(&fault) => {
            let message = format!("AttachVolume.Attach failed for volume \"{volume}\" : {fault}");
            Note::warning("FailedAttachVolume", message)
        }
        _ => return,
    };
    let Some(volume) = ctx.informers.volumes.get(&Key::cluster(volume)) else {
        return;
    };
    for pod in users(&ctx.informers, &volume) {
        if pods::node_name(&pod) == new.spec.node_name {
            ctx.events.record(COMPONENT, &*pod, note.clone());
        }
    }
}

/// The pods on nodes that use a volume.
fn users(informers: &Informers, volume: &PersistentVolume) -> Vec<Arc<Pod>> {
    let Some(reference) = matching::claim_ref(volume) else {
        return Vec::new();
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let key = Key::new(text(&reference.namespace), text(&reference.name));
    let bound = informers.claims.get(&key).is_some_and(|claim| {
        claim.metadata.uid == reference.uid
            && claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_ref())
                == volume.metadata.name.as_ref()
    });
    if !bound {
        return Vec::new();
    }
    let pods = informers.pods.indexed(&term::using_claim(&key));
    pods.into_iter()
        .filter(|pod| core::keeps_volumes(pod))
        .collect()
}

impl Controller for Attacher {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.ctx.informers;
        let mut attachments = informers.attachments.indexed(&term::of_volume(&key.name));
        attachments.retain(|one| core::is_own(one));
        let volume = match informers.volumes.get(key) {
            Some(volume) => volume,
            None if attachments.is_empty() => return Ok(Outcome::Done),
            None => match write::get::<PersistentVolume>(&self.ctx, key).await? {
                Some(volume) => Arc::new(volume),
                None => {
                    for one in &attachments {
                        write::delete::<VolumeAttachment>(&self.ctx, &one.metadata).await?;
                    }
                    return Ok(Outcome::Done);
                }
            },
        };
        let Some(source) = source(&volume) else {
            return Ok(Outcome::Done);
        };
        let users = match self.attaches(&source.driver) {
            true => users(informers, &volume),
            false => Vec::new(),
        };
        let wanted = by_node(&users);
        let idle = self.idle(&attachments, &wanted);
        let nodes = wanted
            .keys()
            .chain(attachments.iter().map(|one| &one.spec.node_name));
        let name = core::unique_name(&source.driver, &source.volume_handle);
        let places = nodes.filter_map(|node| {
            let found = informers.nodes.get(&Key::cluster(node))?;
            Some((node.clone(), Place::of(&found, &name)))
        });
        let actions = core::actions(&Observed {
            shared: core::is_shared(&volume),
            places: places.collect(),
            attachments: &attachments,
            wanted,
            idle,
        });
        let mut wait = None;
        for action in actions {
            if let Some(left) = self
                .carry_out(&volume, source, &users, &attachments, action)
                .await?
            {
                wait = Some(wait.map_or(left, |soonest: Duration| soonest.min(left)));
            }
        }
        Ok(Outcome::maybe(wait))
    }
}

fn by_node(users: &[Arc<Pod>]) -> BTreeMap<String, Vec<String>> {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in users {
        let names = wanted.entry(pods::node_name(pod).to_owned()).or_default();
        names.push(pod.metadata.name.clone().unwrap_or_default());
    }
    wanted
}

impl Attacher {
    /// Whether volumes of a driver are attached at all.
    fn attaches(&self, driver: &str) -> bool {
        let driver = self.ctx.informers.csi_drivers.get(&Key::cluster(driver));
        driver.and_then(|driver| driver.spec.attach_required) != Some(false)
    }

    /// For how long each node's attachment has not been wanted.
    fn idle(
        &self,
        attachments: &[Arc<VolumeAttachment>],
        wanted: &BTreeMap<String, Vec<String>>,
    ) -> BTreeMap<String, Duration> {
        let mut since = self.idle.lock();
        let mut idle = BTreeMap::new();
        for one in attachments {
            let name = one.metadata.name.clone().unwrap_or_default();
            let node = &one.spec.node_name;
            if wanted.contains_key(node) || one.metadata.deletion_timestamp.is_some() {
                since.remove(&name);
            } else {
                let start = since.entry(name).or_insert_with(Instant::now);
                idle.insert(node.clone(), start.elapsed());
            }
        }
        idle
    }

    async fn carry_out(
        &self,
        volume: &PersistentVolume,
        source: &CSIPersistentVolumeSource,
        users: &[Arc<Pod>],
        attachments: &[Arc<VolumeAttachment>],
        action: Action,
    ) -> Result<Option<Duration>> {
        let name = volume.metadata.name.clone().unwrap_or_default();
        match action {
            Action::Attach(node) => {
                self.told.lock().remove(&(name.clone(), node.clone()));
                let attachment = attachment(source, name, node);
                match write::create(&self.ctx, &attachment).await {
                    Err(error) if error.is_already_exists() => {}
                    result => result.map(drop)?,
                }
            }
            Action::Detach(node) => {
                for one in attachments.iter().filter(|one| one.spec.node_name == node) {
                    write::delete::<VolumeAttachment>(&self.ctx, &one.metadata).await?;
                }
            }
            Action::Blocked { node, held_by } => {
                self.tell_blocked(&name, &node, &held_by, users, attachments)
            }
            Action::Wait(_, left) => return Ok(left),
        }
        Ok(None)
    }

    /// Tells a node's pods, once, that another node has their volume; not while it is on its way.
    fn tell_blocked(
        &self,
        volume: &str,
        node: &str,
        held_by: &[String],
        users: &[Arc<Pod>],
        attachments: &[Arc<VolumeAttachment>],
    ) {
        let going = |one: &Arc<VolumeAttachment>| one.metadata.deletion_timestamp.is_some();
        if attachments.iter().all(going)
            || !self
                .told
                .lock()
                .insert((volume.to_owned(), node.to_owned()))
        {
            return;
        }
        let others = users
            .iter()
            .filter(|pod| held_by.iter().any(|held| held == pods::node_name(pod)));
        let others: Vec<_> = others.filter_map(|pod| pod.metadata.name.clone()).collect();
        let why = match others.is_empty() {
            true => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
            false => format!("Volume is already used by pod(s) {}", others.join(", ")),
        };
        let message = format!("Multi-Attach error for volume \"{volume}\" {why}");
        for pod in users.iter().filter(|pod| pods::node_name(pod) == node) {
            let note = Note::warning("FailedAttachVolume", message.clone());
            self.ctx.events.record(COMPONENT, &**pod, note);
        }
    }
}

fn attachment(
    source: &CSIPersistentVolumeSource,
    volume: String,
    node: String,
) -> VolumeAttachment {
    VolumeAttachment {
        metadata: ObjectMeta {
            name: Some(core::attachment_name(
                &source.driver,
                &source.volume_handle,
                &node,
            )),
            ..Default::default()
        },
        spec: VolumeAttachmentSpec {
            attacher: source.driver.clone(),
            node_name: node,
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(volume),
                inline_volume_spec: None,
            },
        },
        status: None,
    }
}
