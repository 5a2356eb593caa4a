//! Carries out the machine's actions; each ends in the event that answers it.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use peapod_api::attach::{AttachRequest, DetachRequest};
use peapod_api::k8s_openapi;

use super::context::{PLACE_TIMEOUT, START_TIMEOUT};
use super::{Context, Entry, images, resize, signals, start};
use crate::core::{Action, Event, Hook, ImageRef, StartFault, StopSignal, find_container, spec_of};
use crate::csi::{mount, unmount};
use crate::make::sandbox;
use crate::node::facts;
use crate::runtime::ContainerId;
use crate::volumes::gather::{self, Sources};
use crate::volumes::place::{self, Group};
use crate::volumes::{Content, Error, Located, Volume};

/// Longest time for a request to the runtime that only passes something on.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out one action. Nothing comes back from what answers itself, or must be tried again
/// by the machine's own timers.
pub async fn carry_out(context: Arc<Context>, entry: Arc<Entry>, action: Action) -> Option<Event> {
    let (context, entry) = (context.as_ref(), entry.as_ref());
    match action {
        Action::SyncVolumes => {
            let done = limited(PLACE_TIMEOUT, "volumes", sync_volumes(context, entry));
            let done = entry.timing.of("volumes", "", done).await;
            Some(match done {
                Ok(refresh_at) => Event::VolumesReady { refresh_at },
                Err(message) => Event::VolumesFailed(message),
            })
        }
        Action::CreateSandbox => {
            let done = limited(PLACE_TIMEOUT, "namespaces", sandbox_ready(context, entry)).await;
            Some(match done {
                Ok((ips, fresh)) => Event::SandboxReady { ips, fresh },
                Err(message) => Event::SandboxFailed(message),
            })
        }
        Action::EnsureImage { container } => {
            let ensured = images::ensure(context, entry, &container);
            let ensured = entry.timing.of("image", &container, ensured).await;
            if let Event::ImageReady { image, .. } = &ensured {
                foresee(context, entry, &container, image).await;
            }
            Some(ensured)
        }
        Action::StartContainer {
            container,
            attempt,
            image,
        } => {
            let begun = start::start(context, entry, &container, attempt, &image);
            let late = StartFault::Create(format!("not started within {START_TIMEOUT:?}"));
            let timed = tokio::time::timeout(START_TIMEOUT, begun).await;
            Some(timed.unwrap_or(Event::StartFailed {
                container,
                fault: late,
            }))
        }
        Action::RunHook {
            container,
            id,
            hook,
        } => {
            let result = run_hook(context, entry, &container, &id, hook).await;
            Some(Event::HookDone { id, hook, result })
        }
        Action::Probe {
            container,
            id,
            kind,
        } => {
            let pod = entry.pod();
            let ip = pod_ip(context, entry);
            let probe = context
                .prober
                .probe(context, &pod, ip, &container, &id, kind);
            let outcome = probe.await;
            Some(Event::Probed { id, kind, outcome })
        }
        Action::Signal {
            container,
            id,
            signal,
        } => {
            let sent = send_signal(context, entry, &container, &id, signal);
            if let Err(error) = limited(SIGNAL_TIMEOUT, "signal", sent).await {
                tracing::warn!(%container, %id, %error, "cannot signal a container");
            }
            None
        }
        Action::JudgeResize => Some(Event::ResizeJudged(resize::judge(context, entry))),
        Action::Resize { containers, settle } => {
            Some(resize::apply(context, entry, containers, settle).await)
        }
        Action::RemoveContainer { id } => {
            if let Err(error) = context
                .runtime
                .remove_container(&ContainerId(id.clone()))
                .await
            {
                tracing::warn!(%id, %error, "cannot remove an old container");
            }
            None
        }
        Action::TearDown { purge } => {
            let done = limited(PLACE_TIMEOUT, "release", tear_down(context, entry, purge)).await;
            Some(match done {
                Ok(()) => Event::TornDown,
                Err(message) => Event::TearDownFailed(message),
            })
        }
        // The worker's own.
        Action::Finish | Action::Record(_) => None,
    }
}

/// Makes what a container needs of its image while the rest of its pod is being made.
async fn foresee(context: &Context, entry: &Entry, container: &str, image: &ImageRef) {
    let attempt = {
        let machine = entry.machine.lock();
        if machine.is_prepared() || machine.ends() {
            return;
        }
        machine.next_attempt_of(container)
    };
    let id = ContainerId::derive(&entry.uid, container, attempt);
    let preparing = context
        .runtime
        .prepare_container(&entry.uid, &id, &image.id);
    if let Err(error) = entry.timing.of("layer", container, preparing).await {
        tracing::debug!(%container, %error, "left to the container's start");
    }
    // What releases the pod may have been there before.
    if entry.machine.lock().ends()
        && let Err(error) = context.runtime.discard_prepared(&entry.uid).await
    {
        tracing::debug!(%container, %error, "left to the next sweep");
    }
}

/// Runs something that must come to an end.
async fn limited<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(format!(
            "{what} not done within {limit:?}; is the node's disk or runtime hung?"
        )),
    }
}

/// The address at which a pod's containers are asked.
pub fn pod_ip(context: &Context, entry: &Entry) -> Option<IpAddr> {
    let pod = entry.pod();
    let host_network = spec_of(&pod).host_network == Some(true);
    let ips = entry.machine.lock().ips().to_vec();
    let all = if host_network {
        &context.config.node_ips
    } else {
        &ips
    };
    all.first().copied()
}

async fn sync_volumes(context: &Context, entry: &Entry) -> Result<Option<Timestamp>, String> {
    let pod = entry.pod();
    let references = entry.references.lock().clone();
    references.settled().await.map_err(|e| e.to_string())?;
    let ips = entry.machine.lock().ips().to_vec();
    let place = context.place(&pod, &ips);
    let views = images::views(context, entry).await?;
    let dir = context.pod_dir(&entry.uid);
    let sources = Sources {
        dir: &dir,
        images: &views,
        client: &context.client,
        references: &references,
        tokens: &entry.tokens,
        place: &place,
        layout: &context.csi.drivers.layout,
    };
    let (volumes, refresh_at) = gather::gather(&pod, sources)
        .await
        .map_err(|e| e.to_string())?;
    let group = Group::of(&pod);
    let (mounted, again_at) = mount_volumes(context, entry, &pod, &volumes).await?;
    let stamp = Timestamp::now().as_nanosecond().to_string();
    let _permit = context.limits.places.acquire().await;
    let placed =
        tokio::task::spawn_blocking(move || place::place(&dir, &volumes, group, &stamp)).await;
    let located = placed
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    *entry.located.lock() = located.into_iter().chain(mounted).collect();
    Ok([refresh_at, again_at].into_iter().flatten().min())
}

/// Lets storage drivers put their volumes in place; where each is, and when to ask them again.
async fn mount_volumes(
    context: &Context,
    entry: &Entry,
    pod: &Pod,
    volumes: &[Volume],
) -> Result<(Vec<(String, Located)>, Option<Timestamp>), String> {
    let each = volumes.iter().filter_map(|volume| {
        let Content::Csi(spec) = &volume.content else {
            return None;
        };
        let for_pod = mount::For {
            pod,
            tokens: &entry.tokens,
            group: Group::of(pod),
        };
        Some(async move {
            let mounted = mount::mount(context, spec, for_pod).await;
            let named = mounted.map(|(located, again)| (volume.name.clone(), located, again));
            named.map_err(|reason| Error::set_up(&spec.name, reason).to_string())
        })
    });
    let mut again_at: Option<Timestamp> = None;
    let mut all = Vec::new();
    for mounted in futures::future::join_all(each).await {
        let (name, located, again) = mounted?;
        again_at = [again_at, again].into_iter().flatten().min();
        all.push((name, located));
    }
    Ok((all, again_at))
}

async fn sandbox_ready(context: &Context, entry: &Entry) -> Result<(Vec<IpAddr>, bool), String> {
    let pod = entry.pod();
    let mut spec = sandbox::sandbox(&pod, &context.config.cluster_dns.domain, &context.host());
    let before = entry.sandbox.lock().clone();
    let fresh = !before.as_ref().is_some_and(|sandbox| sandbox.alive);
    if before.is_some() && fresh {
        release_sandbox(context, entry).await?;
    }
    let kubelet = &context.config.kubelet;
    spec.resources.pids_limit = Some(kubelet.pids_of_pod(facts::pids_max()));
    if fresh {
        spec.runtime_handler = runtime_handler(context, &pod).await?;
    }
    let permit = context.limits.places.acquire().await;
    let making = context.runtime.create_sandbox(&spec);
    let made = entry.timing.of("namespaces", "", making).await;
    drop(permit);
    let made = made.map_err(|e| e.to_string())?;
    *entry.sandbox.lock() = Some(made.clone());
    let Some(netns) = made.netns else {
        return Ok((context.config.node_ips.clone(), fresh));
    };
    let request = AttachRequest {
        pod: sandbox::pod_ref(&pod),
        netns,
        interface: None,
        host_ports: sandbox::host_ports(&pod),
    };
    let attaching = context.network.attach(request);
    let reply = entry.timing.of("network", "", attaching).await;
    let reply = reply.map_err(|e| e.to_string())?;
    Ok((reply.ips, fresh))
}

/// The OCI runtime that the pod's RuntimeClass names; `None` for the node's default.
async fn runtime_handler(context: &Context, pod: &Pod) -> Result<Option<String>, String> {
    let Some(class) = spec_of(pod).runtime_class_name.as_deref() else {
        return Ok(None);
    };
    let api: Api<RuntimeClass> = Api::all(context.client.clone());
    let found = api.get(class).await;
    let handler = found
        .map_err(|error| format!("RuntimeClass \"{class}\": {error}"))?
        .handler;
    match context.runtime.has_handler(&handler) {
        true => Ok(Some(handler)),
        false => Err(format!(
            "no runtime for \"{handler}\" is configured: RuntimeClass \"{class}\" needs a program \
             of this name on the node"
        )),
    }
}

/// Disconnects a pod and removes its namespaces.
async fn release_sandbox(context: &Context, entry: &Entry) -> Result<(), String> {
    let pod = sandbox::pod_ref(&entry.pod());
    context
        .network
        .detach(DetachRequest { pod })
        .await
        .map_err(|e| e.to_string())?;
    context
        .runtime
        .remove_sandbox(&entry.uid)
        .await
        .map_err(|e| e.to_string())?;
    *entry.sandbox.lock() = None;
    Ok(())
}

async fn tear_down(context: &Context, entry: &Entry, purge: bool) -> Result<(), String> {
    release_sandbox(context, entry).await?;
    context.devices.release(&entry.uid).await;
    let runtime = context.runtime.as_ref();
    context.cpus.release(runtime, &entry.uid).await;
    context.prober.counts.forget(&entry.uid);
    unmount::unmount_pod(context, &entry.uid).await?;
    let pod_dir = context.pod_dir(&entry.uid);
    let dirs = match purge {
        true => vec![pod_dir, context.log_dir(&entry.pod())],
        false => vec![pod_dir.join("volumes"), pod_dir.join("volume-subpaths")],
    };
    let removed =
        tokio::task::spawn_blocking(move || dirs.iter().try_for_each(|dir| place::remove(dir)));
    entry.located.lock().clear();
    removed
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    if spec_of(&entry.pod())
        .volumes
        .iter()
        .flatten()
        .any(|v| v.image.is_some())
    {
        let closed = context.images.close_views(&entry.uid).await;
        closed.map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn run_hook(
    context: &Context,
    entry: &Entry,
    name: &str,
    id: &str,
    hook: Hook,
) -> Result<(), String> {
    let pod = entry.pod();
    let container = find_container(&pod, name);
    let lifecycle = container.as_ref().and_then(|c| c.lifecycle.as_ref());
    let handler = lifecycle.and_then(|lifecycle| match hook {
        Hook::PostStart => lifecycle.post_start.as_ref(),
        Hook::PreStop => lifecycle.pre_stop.as_ref(),
    });
    let (Some(handler), Some(container)) = (handler, &container) else {
        return Ok(());
    };
    let ip = pod_ip(context, entry);
    context
        .prober
        .hook(context, container, ip, id, handler)
        .await
}

async fn send_signal(
    context: &Context,
    entry: &Entry,
    name: &str,
    id: &str,
    signal: StopSignal,
) -> Result<(), String> {
    let number = match signal {
        StopSignal::Kill => signals::KILL,
        StopSignal::Stop => stop_signal(context, entry, name).await,
    };
    let id = ContainerId(id.to_owned());
    context
        .runtime
        .signal_container(&id, number)
        .await
        .map_err(|e| e.to_string())
}

/// The stop signal that the container declares, or its image, or SIGTERM.
async fn stop_signal(context: &Context, entry: &Entry, name: &str) -> i32 {
    let pod = entry.pod();
    let Some(container) = find_container(&pod, name) else {
        return signals::TERM;
    };
    let declared = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.clone());
    let named = match declared {
        Some(declared) => Some(declared),
        None => {
            let reference = container.image.as_deref().unwrap_or_default();
            let image = context.images.get(reference).await.ok().flatten();
            image.and_then(|image| image.config.stop_signal)
        }
    };
    named
        .and_then(|name| signals::number(&name))
        .unwrap_or(signals::TERM)
}
