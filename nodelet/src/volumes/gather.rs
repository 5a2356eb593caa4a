//! Asks the API for what a pod's volumes refer to, and resolves it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection,
    Volume as Declared, VolumeProjection,
};
use kube::{Api, Client};
use peapod_api::k8s_openapi;

use super::payload::{self, Choice, Payload};
use super::token::Tokens;
use super::{Content, Error, Volume, claim, empty_dir, host_path, place};
use crate::core::spec_of;
use crate::csi::layout::Layout;
use crate::csi::spec::Spec;
use crate::make::fields::Place;
use crate::objects::References;
use crate::runtime::FsMount;

/// Volumes of several sources.
const PROJECTED: &str = "projected";

/// Where answers come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The API, for what is not watched: tokens and PersistentVolumes.
    pub client: &'a Client,
    /// The ConfigMaps, Secrets and claims that the pod refers to, watched.
    pub references: &'a References,
    /// The pod's tokens.
    pub tokens: &'a Tokens,
    /// The pod's place.
    pub place: &'a Place,
    /// Where the pod's files are.
    pub dir: &'a Path,
    /// Where the node's folder is that stands for the kubelet's.
    pub layout: &'a Layout,
    /// Views of the images that are volumes, by the volume's name.
    pub images: &'a BTreeMap<String, Vec<FsMount>>,
}

/// A pod's volumes, resolved, and when they must be rendered again.
pub async fn gather(
    pod: &Pod,
    sources: Sources<'_>,
) -> Result<(Vec<Volume>, Option<Timestamp>), Error> {
    let mut volumes = Vec::new();
    let mut refresh_at = None;
    for declared in spec_of(pod).volumes.iter().flatten() {
        let content = resolve(pod, declared, sources, &mut refresh_at)
            .await
            .map_err(|reason| Error::set_up(&declared.name, reason))?;
        volumes.push(Volume {
            name: declared.name.clone(),
            content,
        });
    }
    Ok((volumes, refresh_at))
}

async fn resolve(
    pod: &Pod,
    declared: &Declared,
    sources: Sources<'_>,
    refresh_at: &mut Option<Timestamp>,
) -> Result<Content, String> {
    if let Some(source) = &declared.empty_dir {
        return Ok(Content::Empty(empty_dir::of(source)));
    }
    if let Some(source) = &declared.host_path {
        let mut host = host_path::of(source);
        host.path = sources.layout.real(&host.path);
        return Ok(Content::Host(host));
    }
    if let Some(source) = &declared.persistent_volume_claim {
        let read_only = source.read_only == Some(true);
        return claimed(&source.claim_name, read_only, sources).await;
    }
    if declared.ephemeral.is_some() {
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let name = format!("{pod_name}-{}", declared.name);
        return claimed(&name, false, sources).await;
    }
    if let Some(source) = &declared.projected {
        let payload = projected(pod, &declared.name, source, sources, refresh_at).await?;
        return Ok(Content::Files {
            kind: PROJECTED,
            payload,
            in_memory: true,
        });
    }
    if let Some(source) = &declared.csi {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, uid) = (text(&pod.metadata.namespace), text(&pod.metadata.uid));
        let spec = Spec::of_pod(source, &declared.name, &namespace, &uid);
        return Ok(Content::Csi(Box::new(spec)));
    }
    if declared.image.is_some() {
        let view = sources.images.get(&declared.name);
        let view = view.ok_or("its image is not present")?;
        return Ok(Content::Image(view.clone()));
    }
    files(pod, declared, sources)
}

fn files(pod: &Pod, declared: &Declared, sources: Sources) -> Result<Content, String> {
    let (kind, in_memory, payload) = if let Some(source) = &declared.config_map {
        let choice = Choice {
            items: source.items.as_deref(),
            default_mode: source.default_mode,
            optional: source.optional == Some(true),
        };
        let map = sources.references.config_map(&source.name);
        (
            "configmap",
            false,
            payload::config_map(&source.name, map.as_deref(), choice),
        )
    } else if let Some(source) = &declared.secret {
        let choice = Choice {
            items: source.items.as_deref(),
            default_mode: source.default_mode,
            optional: source.optional == Some(true),
        };
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = sources.references.secret(name);
        (
            "secret",
            true,
            payload::secret(name, secret.as_deref(), choice),
        )
    } else if let Some(source) = &declared.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        let payload = payload::downward(pod, items, source.default_mode, sources.place);
        ("downward-api", false, payload)
    } else {
        return Err("this node cannot mount volumes of its type".to_owned());
    };
    let payload = payload.map_err(|missing| missing.to_string())?;
    Ok(Content::Files {
        kind,
        payload,
        in_memory,
    })
}

async fn claimed(name: &str, read_only: bool, sources: Sources<'_>) -> Result<Content, String> {
    let claim = sources.references.claim(name);
    let volume = claim::bound_volume(name, claim.as_deref())?;
    let volumes: Api<PersistentVolume> = Api::all(sources.client.clone());
    let volume = volumes
        .get(&volume)
        .await
        .map_err(|e| format!("cannot read persistentvolume \"{volume}\": {e}"))?;
    let csi = claim.and_then(|claim| Spec::of_volume(&volume, &claim, read_only));
    match csi {
        Some(csi) => Ok(Content::Csi(Box::new(csi))),
        None => claim::of(&volume, read_only).map(Content::Claim),
    }
}

async fn projected(
    pod: &Pod,
    volume: &str,
    source: &ProjectedVolumeSource,
    sources: Sources<'_>,
    refresh_at: &mut Option<Timestamp>,
) -> Result<Payload, String> {
    let mut all = Payload::new();
    for part in source.sources.iter().flatten() {
        let files = match &part.service_account_token {
            Some(token) => {
                let mode = source.default_mode;
                let dir = place::dir_of(sources.dir, PROJECTED, volume);
                let (files, renew_at) = token_file(pod, &dir, token, mode, sources).await?;
                *refresh_at = Some(refresh_at.map_or(renew_at, |at| at.min(renew_at)));
                files
            }
            None => projection(pod, part, source.default_mode, sources)?,
        };
        all.extend(files);
    }
    Ok(all)
}

/// `dir` is the volume's, in which a token of an earlier run may stand.
async fn token_file(
    pod: &Pod,
    dir: &Path,
    projection: &ServiceAccountTokenProjection,
    default_mode: Option<i32>,
    sources: Sources<'_>,
) -> Result<(Payload, Timestamp), String> {
    let (token, renew_at) = sources
        .tokens
        .get(sources.client, pod, projection, || {
            payload::left(dir, &projection.path)
        })
        .await
        .map_err(|e| format!("failed to fetch token: {e}"))?;
    let user = projection.user.or_else(|| only_user(pod));
    let user = user.and_then(|user| u32::try_from(user).ok());
    let security = spec_of(pod).security_context.as_ref();
    let narrowed = user.is_some() || security.is_some_and(|s| s.fs_group.is_some());
    let mode = default_mode
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(0o644);
    let mode = if narrowed { 0o600 } else { mode };
    let files = payload::token(&projection.path, &token, mode, user).map_err(|m| m.to_string())?;
    Ok((files, renew_at))
}

/// The user that every container of the pod runs as, if there is one: then the token is its own.
fn only_user(pod: &Pod) -> Option<i64> {
    let spec = spec_of(pod);
    let shared = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut users = all.map(|container| {
        container
            .security_context
            .as_ref()
            .and_then(|s| s.run_as_user)
            .or(shared)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

fn projection(
    pod: &Pod,
    part: &VolumeProjection,
    default_mode: Option<i32>,
    sources: Sources,
) -> Result<Payload, String> {
    let choice = |items, optional: Option<bool>| Choice {
        items,
        default_mode,
        optional: optional == Some(true),
    };
    let files = if let Some(source) = &part.config_map {
        let map = sources.references.config_map(&source.name);
        let choice = choice(source.items.as_deref(), source.optional);
        payload::config_map(&source.name, map.as_deref(), choice)
    } else if let Some(source) = &part.secret {
        let secret = sources.references.secret(&source.name);
        let choice = choice(source.items.as_deref(), source.optional);
        payload::secret(&source.name, secret.as_deref(), choice)
    } else if let Some(source) = &part.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        payload::downward(pod, items, default_mode, sources.place)
    } else {
        return Err("this node cannot project a source of its type".to_owned());
    };
    files.map_err(|missing| missing.to_string())
}
