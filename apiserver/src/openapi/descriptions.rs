//! Descriptions of types and fields, from the documentation that the generated types carry.

use k8s_openapi::api;
use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use peapod_schema::openapi::Descriptions;
use serde_json::{Map, Value};

/// Descriptions of the built-in types. Large: made for one document, and dropped with it.
pub struct Described(Map<String, Value>);

macro_rules! roots {
    ($generator:ident: $($module:path { $($kind:ident),* $(,)? })*) => {$(
        {
            use $module as module;
            $($generator.subschema_for::<module::$kind>();)*
        }
    )*};
}

// === impl Described ===

impl Described {
    /// The descriptions of all types that built-in kinds are made of.
    pub fn all() -> Self {
        let mut generator = SchemaSettings::openapi3().into_generator();
        add_core(&mut generator);
        add_workloads(&mut generator);
        add_others(&mut generator);
        Self(generator.take_definitions(false))
    }
}

fn add_core(generator: &mut SchemaGenerator) {
    roots! { generator:
        api::core::v1 {
            Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret,
            Service, ServiceAccount,
        }
    }
}

fn add_workloads(generator: &mut SchemaGenerator) {
    roots! { generator:
        api::apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
        api::autoscaling::v1 { Scale }
        api::batch::v1 { CronJob, Job }
        api::policy::v1 { Eviction, PodDisruptionBudget }
    }
}

fn add_others(generator: &mut SchemaGenerator) {
    roots! { generator:
        api::authentication::v1 { SelfSubjectReview, TokenRequest, TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
            SubjectAccessReview,
        }
        api::coordination::v1 { Lease }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::networking::v1 { IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::rbac::v1 { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
        api::scheduling::v1 { PriorityClass }
        api::storage::v1 {
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
        }
    }
}

fn description(schema: &Value) -> Option<String> {
    Some(schema.get("description")?.as_str()?.to_owned())
}

impl Descriptions for Described {
    fn of_type(&self, name: &str) -> Option<String> {
        description(self.0.get(name)?)
    }

    fn of_field(&self, name: &str, field: &str) -> Option<String> {
        description(self.0.get(name)?.get("properties")?.get(field)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let all = Described::all();
        let spec = "io.k8s.api.core.v1.PodSpec";
        assert!(all.of_type(spec).is_some());
        let containers = all.of_field(spec, "containers").unwrap();
        assert!(containers.starts_with("List of containers"), "{containers}");
        assert!(all.of_field(spec, "nosuch").is_none());
    }
}
