//! One look at the three kinds of containers that a PodSpec has.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, Lifecycle, Pod, PodSpec, Probe,
};
use peapod_api::k8s_openapi;

use super::event::{Hook, Kind, ProbeKind};

/// What the lifecycle reads of a container, whichever its kind.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Name in the pod.
    pub name: &'a str,
    /// Its kind.
    pub kind: Kind,
    /// `image`
    pub image: &'a str,
    /// `restartPolicy` of the container itself.
    pub restart_policy: Option<&'a str>,
    /// `restartPolicyRules`
    pub restart_rules: &'a [ContainerRestartRule],
    lifecycle: Option<&'a Lifecycle>,
    startup: Option<&'a Probe>,
    liveness: Option<&'a Probe>,
    readiness: Option<&'a Probe>,
}

impl<'a> View<'a> {
    fn of(container: &'a Container, kind: Kind) -> Self {
        let probed = kind != Kind::Init;
        Self {
            name: &container.name,
            kind,
            image: container.image.as_deref().unwrap_or_default(),
            restart_policy: container.restart_policy.as_deref(),
            restart_rules: container
                .restart_policy_rules
                .as_deref()
                .unwrap_or_default(),
            lifecycle: container.lifecycle.as_ref(),
            startup: container.startup_probe.as_ref().filter(|_| probed),
            liveness: container.liveness_probe.as_ref().filter(|_| probed),
            readiness: container.readiness_probe.as_ref().filter(|_| probed),
        }
    }

    fn ephemeral(container: &'a EphemeralContainer) -> Self {
        Self {
            name: &container.name,
            kind: Kind::Ephemeral,
            image: container.image.as_deref().unwrap_or_default(),
            restart_policy: Some("Never"),
            restart_rules: &[],
            lifecycle: None,
            startup: None,
            liveness: None,
            readiness: None,
        }
    }

    /// The probe of a kind.
    pub fn probe(&self, kind: ProbeKind) -> Option<&'a Probe> {
        match kind {
            ProbeKind::Startup => self.startup,
            ProbeKind::Liveness => self.liveness,
            ProbeKind::Readiness => self.readiness,
        }
    }

    /// Whether there is a hook.
    pub fn has_hook(&self, hook: Hook) -> bool {
        self.lifecycle.is_some_and(|lifecycle| match hook {
            Hook::PostStart => lifecycle.post_start.is_some(),
            Hook::PreStop => lifecycle.pre_stop.is_some(),
        })
    }

    /// `lifecycle.stopSignal`
    pub fn stop_signal(&self) -> Option<&'a str> {
        self.lifecycle?.stop_signal.as_deref()
    }
}

/// The containers of a pod in the order of their start: init, app, ephemeral.
pub fn view(pod: &Pod) -> impl Iterator<Item = View<'_>> {
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|s| s.init_containers.as_deref())
        .unwrap_or_default();
    let app = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let ephemeral = spec
        .and_then(|s| s.ephemeral_containers.as_deref())
        .unwrap_or_default();
    let init = init.iter().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        View::of(container, if sidecar { Kind::Sidecar } else { Kind::Init })
    });
    let app = app.iter().map(|container| View::of(container, Kind::App));
    init.chain(app).chain(ephemeral.iter().map(View::ephemeral))
}

/// The container of a name.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<View<'a>> {
    view(pod).find(|view| view.name == name)
}

/// The pod's spec; an absent one reads as an empty one.
pub fn of(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    match &pod.spec {
        Some(spec) => spec,
        None => EMPTY.get_or_init(PodSpec::default),
    }
}

/// How the pod is named in messages: `name_namespace(uid)`.
pub fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}

/// The container of a name in full; an ephemeral one as the container that it becomes.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let spec = of(pod);
    let mut plain = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    if let Some(found) = plain.find(|container| container.name == name) {
        return Some(Cow::Borrowed(found));
    }
    let mut ephemeral = spec.ephemeral_containers.iter().flatten();
    ephemeral
        .find(|container| container.name == name)
        .map(|found| Cow::Owned(promote(found)))
}

fn promote(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        name: container.name,
        resources: container.resources,
        security_context: container.security_context,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_devices: container.volume_devices,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
        ..Container::default()
    }
}
