//! Has the image of a container: by its pull policy, with its pod's credentials.

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine;
use k8s_openapi::api::core::v1::{Pod, Secret};
use peapod_api::k8s_openapi;
use serde::Deserialize;

use super::{Context, Entry};
use crate::core::{Event, ImageFault, ImageRef, Note, Severity, find_container, spec_of};
use crate::runtime::{self, Credential, FsMount, Image, ImageError, PullRequest, Quiet};

/// The policy of a container: as declared, or by its tag.
fn policy(declared: Option<&str>, image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let untagged = !last.contains(':') && !image.contains('@');
    match declared {
        Some("Always") => "Always",
        Some("Never") => "Never",
        Some("IfNotPresent") => "IfNotPresent",
        _ if untagged || last.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The machine's word for an image.
fn image_ref(image: &Image, asked: &str) -> ImageRef {
    let tagged = image.references.iter().find(|name| !name.contains('@'));
    let digest = image.references.iter().find(|name| name.contains('@'));
    ImageRef {
        name: tagged.cloned().unwrap_or_else(|| asked.to_owned()),
        id: digest.cloned().unwrap_or_else(|| image.id.clone()),
    }
}

/// Has the image of a container.
pub async fn ensure(context: &Context, entry: &Entry, name: &str) -> Event {
    let container = name.to_owned();
    match try_ensure(context, entry, name).await {
        Ok((image, pulled)) => Event::ImageReady {
            container,
            image,
            pulled: Some(pulled),
        },
        Err(fault) => Event::ImageFailed { container, fault },
    }
}

async fn try_ensure(
    context: &Context,
    entry: &Entry,
    name: &str,
) -> Result<(ImageRef, String), ImageFault> {
    let pod = entry.pod();
    let container = find_container(&pod, name);
    let declared = container
        .as_ref()
        .and_then(|c| c.image_pull_policy.as_deref());
    let image = container
        .as_ref()
        .and_then(|c| c.image.as_deref())
        .unwrap_or_default();
    let (found, message) = have(context, entry, &pod, Some(name), declared, image).await?;
    Ok((image_ref(&found, image), message))
}

/// Views of the images that are volumes of a pod, each with its image present.
pub async fn views(
    context: &Context,
    entry: &Entry,
) -> Result<BTreeMap<String, Vec<FsMount>>, String> {
    let pod = entry.pod();
    let mut views = BTreeMap::new();
    for volume in spec_of(&pod).volumes.iter().flatten() {
        let Some(source) = &volume.image else {
            continue;
        };
        // Mounted already: what is pulled again meanwhile is for other pods.
        if entry.located.lock().contains_key(&volume.name) {
            views.insert(volume.name.clone(), Vec::new());
            continue;
        }
        let of_volume = |why: &dyn std::fmt::Display| {
            format!(
                "MountVolume.SetUp failed for volume \"{}\" : {why}",
                volume.name
            )
        };
        let reference = source.reference.as_deref().unwrap_or_default();
        let policy = source.pull_policy.as_deref();
        let (image, _) = have(context, entry, &pod, None, policy, reference)
            .await
            .map_err(|fault| of_volume(&format!("{}: {}", fault.reason, fault.message)))?;
        let view = context
            .images
            .open_view(&image.id, &entry.uid, &volume.name)
            .await
            .map_err(|error| of_volume(&error))?;
        views.insert(volume.name.clone(), view);
    }
    Ok(views)
}

/// Has an image by its pull policy, for a container of a name or for a volume.
async fn have(
    context: &Context,
    entry: &Entry,
    pod: &Pod,
    name: Option<&str>,
    declared: Option<&str>,
    image: &str,
) -> Result<(Image, String), ImageFault> {
    let policy = policy(declared, image);
    if policy != "Always" {
        let found = context.images.get(image).await.map_err(|e| fault(&e))?;
        if let Some(found) = found {
            let message = format!("Container image \"{image}\" already present on machine");
            return Ok((found, message));
        }
        if policy == "Never" {
            return Err(ImageFault {
                reason: "ErrImageNeverPull",
                message: format!(
                    "Container image \"{image}\" is not present with pull policy of Never"
                ),
            });
        }
    }
    pull(context, entry, pod, name, image).await
}

async fn pull(
    context: &Context,
    entry: &Entry,
    pod: &Pod,
    name: Option<&str>,
    image: &str,
) -> Result<(Image, String), ImageFault> {
    let waiting = Instant::now();
    let Ok(_permit) = context.limits.pulls.acquire().await else {
        return Err(ImageFault {
            reason: "ErrImagePull",
            message: "shutting down".to_owned(),
        });
    };
    context.notes.about_pod(
        pod,
        Note {
            severity: Severity::Normal,
            reason: "Pulling".into(),
            message: format!("Pulling image \"{image}\""),
            container: name.map(str::to_owned),
        },
    );
    let request = PullRequest {
        reference: image.to_owned(),
        credentials: credentials(entry, pod, image).await,
    };
    let began = Instant::now();
    let pulled = context.images.pull(&request, &Quiet).await.map_err(|e| {
        let mut fault = fault(&e);
        fault.message = format!("Failed to pull image \"{image}\": {}", fault.message);
        fault
    })?;
    let message = format!(
        "Successfully pulled image \"{image}\" in {:.3}s ({:.3}s including waiting). \
         Image size: {} bytes.",
        began.elapsed().as_secs_f64(),
        waiting.elapsed().as_secs_f64(),
        pulled.size_bytes
    );
    Ok((pulled, message))
}

fn fault(error: &runtime::Error) -> ImageFault {
    let reason = match error {
        runtime::Error::Image(ImageError::InvalidReference { .. }) => "InvalidImageName",
        runtime::Error::Image(ImageError::Unavailable { .. }) => "RegistryUnavailable",
        _ => "ErrImagePull",
    };
    ImageFault {
        reason,
        message: error.to_string(),
    }
}

// === credentials ===

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Default, Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "registrytoken", alias = "registryToken")]
    registry_token: String,
}

async fn credentials(entry: &Entry, pod: &Pod, image: &str) -> Vec<Credential> {
    let references = entry.references.lock().clone();
    let names = spec_of(pod).image_pull_secrets.iter().flatten();
    let names: Vec<_> = names.collect();
    if !names.is_empty() && references.settled().await.is_err() {
        tracing::warn!(pod = pod.metadata.name, "pulling without the pod's secrets");
    }
    let secrets = names
        .into_iter()
        .filter_map(|reference| references.secret(&reference.name));
    secrets
        .flat_map(|secret| of_secret(&secret, image))
        .collect()
}

/// The credentials in a secret that are meant for an image's registry, the most specific first.
fn of_secret(secret: &Secret, image: &str) -> Vec<Credential> {
    let data = secret.data.as_ref();
    let modern = data.and_then(|data| data.get(".dockerconfigjson"));
    let parsed = match (modern, data.and_then(|data| data.get(".dockercfg"))) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(&json.0).ok(),
        (None, Some(json)) => serde_json::from_slice(&json.0)
            .ok()
            .map(|auths| DockerConfig { auths }),
        (None, None) => None,
    };
    let mut matching: Vec<_> = parsed
        .into_iter()
        .flat_map(|config| config.auths)
        .filter(|(registry, _)| matches(registry, image))
        .collect();
    matching.sort_by_key(|(registry, _)| std::cmp::Reverse(registry.len()));
    matching
        .into_iter()
        .filter_map(|(_, auth)| credential(auth))
        .collect()
}

fn credential(auth: DockerAuth) -> Option<Credential> {
    if !auth.registry_token.is_empty() {
        return Some(Credential::Bearer(auth.registry_token));
    }
    if !auth.username.is_empty() {
        return Some(Credential::Basic {
            username: auth.username,
            password: auth.password,
        });
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.auth.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    })
}

/// Whether a registry of a docker config is the one of an image; a path narrows it.
fn matches(registry: &str, image: &str) -> bool {
    let bare = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let bare = bare
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .trim_end_matches("/v2");
    let hub = matches!(
        bare,
        "index.docker.io" | "docker.io" | "registry-1.docker.io"
    );
    let full = match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        _ => format!("docker.io/{image}"),
    };
    let prefix = if hub { "docker.io" } else { bare };
    full == prefix
        || full
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        let table = [
            (None, "nginx", "Always"),
            (None, "nginx:latest", "Always"),
            (None, "nginx:1.2", "IfNotPresent"),
            (None, "localhost:5000/nginx", "Always"),
            (None, "nginx@sha256:1", "IfNotPresent"),
            (Some("Never"), "nginx", "Never"),
        ];
        for (declared, image, expected) in table {
            assert_eq!(policy(declared, image), expected, "{image}");
        }
    }

    #[test]
    fn credentials_of_the_right_registry() {
        let auth = base64::engine::general_purpose::STANDARD.encode("me:pa:ss");
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
            "registry.example:5000": {"auth": auth},
            "registry.example:5000/team": {"username": "team", "password": "y"},
        }});
        let encoded = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret =
            serde_json::from_value(json!({"data": {".dockerconfigjson": encoded}})).unwrap();
        let users = |image: &str| -> Vec<String> {
            let found = of_secret(&secret, image)
                .into_iter()
                .map(|credential| match credential {
                    Credential::Basic { username, password } => format!("{username}:{password}"),
                    Credential::Bearer(token) => token,
                });
            found.collect()
        };
        assert_eq!(users("nginx"), ["hub:x"]);
        assert_eq!(
            users("registry.example:5000/team/app:1"),
            ["team:y", "me:pa:ss"]
        );
        assert_eq!(users("registry.example:5000/teams"), ["me:pa:ss"]);
        assert!(users("other.example/app").is_empty());
    }
}
