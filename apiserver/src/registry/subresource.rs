//! Subresources: what hangs below an object, which kind it speaks, what may be done with it.

use crate::rest::target::Verb;

/// Where a kind keeps what `/scale` shows: paths into the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The desired count, as `spec.replicas`.
    pub spec_replicas: String,
    /// The observed count, as `status.replicas`.
    pub status_replicas: String,
    /// The selector, as `spec.selector`; a label selector or a plain map.
    pub selector: String,
}

/// A subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: the object, of which only the status is written.
    Status,
    /// `/approval` of a certificate request: the object, of which only the verdict is written.
    Approval,
    /// `/scale`: `autoscaling/v1 Scale`.
    Scale(ScalePaths),
    /// `/finalize` of a namespace: the object, of which only `spec.finalizers` is written.
    Finalize,
    /// `/binding` of a pod: gives it a node.
    Binding,
    /// `/eviction` of a pod: deletes it when its disruption budgets allow.
    Eviction,
    /// `/token` of a service account: a signed token.
    Token,
    /// `/ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `/resize` of a pod: what its containers request and may use.
    Resize,
    /// `/log` of a pod.
    Log,
    /// `/exec` of a pod.
    Exec,
    /// `/attach` of a pod.
    Attach,
    /// `/portforward` of a pod.
    PortForward,
    /// `/proxy`: HTTP passed on to what the object stands for; the kind of its options.
    Proxy(&'static str),
}

// === impl ScalePaths ===

impl Default for ScalePaths {
    fn default() -> Self {
        Self {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: "spec.selector".into(),
        }
    }
}

// === impl Subresource ===

impl Subresource {
    /// The path segment.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Approval => "approval",
            Self::Scale(_) => "scale",
            Self::Finalize => "finalize",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Token => "token",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy(_) => "proxy",
        }
    }

    /// What may be done.
    pub fn verbs(&self) -> &'static [Verb] {
        match self {
            Self::Status
            | Self::Approval
            | Self::Scale(_)
            | Self::EphemeralContainers
            | Self::Resize => &[Verb::Get, Verb::Patch, Verb::Update],
            Self::Proxy(_) => &[
                Verb::Create,
                Verb::Delete,
                Verb::Get,
                Verb::Patch,
                Verb::Update,
            ],
            Self::Finalize => &[Verb::Update],
            Self::Binding | Self::Eviction | Self::Token => &[Verb::Create],
            Self::Log => &[Verb::Get],
            Self::Exec | Self::Attach | Self::PortForward => &[Verb::Create, Verb::Get],
        }
    }

    /// Group, version and kind of what it speaks, where it is not the object's own kind.
    pub fn kind(&self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status
            | Self::Approval
            | Self::Finalize
            | Self::EphemeralContainers
            | Self::Resize
            | Self::Log => None,
            Self::Proxy(kind) => Some(("", "v1", kind)),
            Self::Scale(_) => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
        }
    }
}
