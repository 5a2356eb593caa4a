//! Volumes of the built-in class `local`: directories on the node that runs the pod.
//!
//! The controllers and the node agent share the life of such a volume, over the API only:
//!
//! 1. The scheduler chooses a node for the first pod of a claim, and notes it on the claim as
//!    [`SELECTED_NODE`].
//! 2. The controllers create a PersistentVolume of type `local` with a path under their
//!    configured directory, annotated with [`PROVISIONED_BY`] = [`PROVISIONER`] and [`NODE`],
//!    with a node affinity to that node and the finalizer [`FINALIZER`].
//! 3. The node agent of [`NODE`] makes the directory before it first mounts it, mode 0777, as
//!    `local` volumes of other making must exist beforehand.
//! 4. When the claim is gone and the reclaim policy is `Delete`, the controllers delete the
//!    PersistentVolume. The node agent of [`NODE`] sees it being deleted while it bears
//!    [`FINALIZER`], removes the directory with all that is in it, and then the finalizer. For
//!    a node that exists no more the controllers remove the finalizer.

/// The provisioner of the built-in class.
pub const PROVISIONER: &str = "peapod.dev/local";
/// The name of the built-in class.
pub const CLASS: &str = "local";
/// Finalizer of a PersistentVolume: its directory is still on the node.
pub const FINALIZER: &str = "peapod.dev/local-volume";
/// Annotation of a PersistentVolume: the name of the node that has its directory.
pub const NODE: &str = "peapod.dev/node";
/// Annotation of a PersistentVolume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation of a claim: the node that the scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Finalizer of a claim that pods may use.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Finalizer of a volume that a claim may be bound to.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
