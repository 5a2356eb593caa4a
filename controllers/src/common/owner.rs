//! Controller references: which object manages which, and who may adopt what.
//!
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/>

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use peapod_api::selector::Selector;

/// The reference to the managing controller, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this uid is the managing controller.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The reference that makes `owner` the managing controller, and holds a foreground deletion
/// of it until the dependent is gone.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a controller does about one object that it owns or could own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours.
    Own,
    /// Nobody's and our selector matches: take it.
    Adopt,
    /// Ours, but the selector matches no longer: let it go.
    Release,
    /// Not ours.
    Ignore,
}

/// Decides about one object. An owner that is being deleted neither adopts nor releases.
pub fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let matches = match &object.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&Default::default()),
    };
    let deleting = owner.deletion_timestamp.is_some();
    let uid = owner.uid.as_deref().unwrap_or_default();
    match controller_of(object) {
        Some(controller) if controller.uid != uid => Claim::Ignore,
        Some(_) if matches || deleting => Claim::Own,
        Some(_) => Claim::Release,
        None if !matches || deleting || object.deletion_timestamp.is_some() => Claim::Ignore,
        None if object.namespace != owner.namespace => Claim::Ignore,
        None => Claim::Adopt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn meta(uid: &str, app: &str, controller: Option<&str>, deleting: bool) -> ObjectMeta {
        let reference = |uid: &str| OwnerReference {
            uid: uid.into(),
            controller: Some(true),
            ..Default::default()
        };
        ObjectMeta {
            uid: Some(uid.into()),
            labels: Some([("app".to_owned(), app.to_owned())].into()),
            owner_references: controller.map(|uid| vec![reference(uid)]),
            deletion_timestamp: deleting.then(|| Time("2026-01-01T00:00:00Z".parse().unwrap())),
            ..Default::default()
        }
    }

    #[test]
    fn claims() {
        let selector: Selector = "app=web".parse().unwrap();
        let (alive, dying) = (meta("o", "", None, false), meta("o", "", None, true));
        for (owner, object, expected) in [
            (&alive, meta("p", "web", None, false), Claim::Adopt),
            (&alive, meta("p", "db", None, false), Claim::Ignore),
            (&alive, meta("p", "web", None, true), Claim::Ignore),
            (&alive, meta("p", "web", Some("o"), false), Claim::Own),
            (&alive, meta("p", "db", Some("o"), false), Claim::Release),
            (&alive, meta("p", "web", Some("x"), false), Claim::Ignore),
            (&dying, meta("p", "web", None, false), Claim::Ignore),
            (&dying, meta("p", "db", Some("o"), false), Claim::Own),
        ] {
            assert_eq!(claim(owner, &selector, &object), expected, "{object:?}");
        }
    }
}
