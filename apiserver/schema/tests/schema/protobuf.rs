//! Protobuf of every kind: what is written reads back, and another reader reads the same.

use std::sync::Arc;

use peapod_schema::Schema;
use peapod_schema::graph::Graph;
use peapod_schema::protobuf::{self, Shown};
use peapod_schema::resources;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use crate::values;

fn graph() -> Arc<Graph> {
    Arc::new(peapod_schema::builtin::graph(|text| Ok(text.to_owned())))
}

/// The types of all resources.
fn kinds() -> Vec<String> {
    let rows = resources::all().filter(|row| !row.resource.contains('/'));
    let name = |row: resources::Row| {
        let group = row.group.split('.').next().unwrap();
        let group = if group.is_empty() { "core" } else { group };
        format!("{group}.{}.{}", row.version, row.kind)
    };
    rows.map(name).collect()
}

fn typed(name: &str, mut value: Value) -> Value {
    let (group_version, kind) = name.rsplit_once('.').unwrap();
    value["apiVersion"] = group_version.replace('.', "/").into();
    value["kind"] = kind.into();
    value
}

/// JSON to protobuf, through `between`, and back.
fn there_and_back(schema: &Schema, value: &Value, between: impl Fn(&[u8]) -> Vec<u8>) -> Value {
    let json = value.to_string();
    let body = protobuf::encode(json.as_bytes(), schema, Shown::Object).unwrap();
    protobuf::decode(&between(&body), schema).unwrap().value
}

/// Rewrites the message in an envelope as another reader understands it.
fn reread<M: Message + Default>(body: &[u8]) -> Vec<u8> {
    use k8s_pb::apimachinery::pkg::runtime::Unknown;
    let mut unknown = Unknown::decode(&body[4..]).unwrap();
    let message = M::decode(unknown.raw.unwrap_or_default().as_slice()).unwrap();
    unknown.raw = Some(message.encode_to_vec());
    [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_reads_back(seed: u64) {
        let graph = graph();
        for name in kinds() {
            let schema = Schema::named(&graph, &name).unwrap();
            prop_assert!(protobuf::speaks(&schema), "{name}");
            let value = typed(&name, values::of(schema.root(), seed));
            prop_assert_eq!(&there_and_back(&schema, &value, <[u8]>::to_vec), &value, "{}", name);
        }
    }
}

/// Checks types against the messages of the same names.
macro_rules! others_read_the_same {
    ($($group:ident . $version:ident: $($kind:ident)*;)*) => {
        #[test]
        fn others_read_the_same() {
            let graph = graph();
            $($({
                let name = concat!(stringify!($group), ".", stringify!($version), ".", stringify!($kind));
                let schema = Schema::named(&graph, name).unwrap();
                for seed in 0..20 {
                    let value = typed(name, values::of(schema.root(), seed));
                    let read = there_and_back(&schema, &value, reread::<messages::$group::$version::$kind>);
                    assert_eq!(read, value, "{name}, seed {seed}");
                }
            })*)*
        }
    };
}

mod messages {
    pub use k8s_pb::api::*;
    pub use k8s_pb::apiextensions_apiserver::pkg::apis::apiextensions;
    pub use k8s_pb::apimachinery::pkg::apis::meta;
    pub use k8s_pb::kube_aggregator::pkg::apis::apiregistration;
}

others_read_the_same! {
    apidiscovery.v2: APIGroupDiscoveryList;
    admissionregistration.v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
    apiextensions.v1: CustomResourceDefinition;
    apiregistration.v1: APIService;
    apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    authentication.v1: SelfSubjectReview TokenRequest TokenReview;
    authorization.v1: SelfSubjectRulesReview SubjectAccessReview;
    autoscaling.v1: HorizontalPodAutoscaler Scale;
    autoscaling.v2: HorizontalPodAutoscaler;
    batch.v1: CronJob Job;
    certificates.v1: CertificateSigningRequest;
    coordination.v1: Lease;
    core.v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
        PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota
        Secret Service ServiceAccount;
    discovery.v1: EndpointSlice;
    events.v1: Event;
    flowcontrol.v1: FlowSchema PriorityLevelConfiguration;
    meta.v1: Status DeleteOptions APIResourceList APIGroupList;
    networking.v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
    node.v1: RuntimeClass;
    policy.v1: Eviction PodDisruptionBudget;
    rbac.v1: ClusterRole ClusterRoleBinding Role RoleBinding;
    resource.v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    scheduling.v1: PriorityClass;
    storage.v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass;
}

#[test]
fn a_list_and_the_metadata_alone() {
    let graph = graph();
    let schema = Schema::named(&graph, "core.v1.ConfigMap").unwrap();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}});
    let mut items = Vec::new();
    for shown in [Shown::Object, Shown::Metadata] {
        let message = protobuf::message(object.to_string().as_bytes(), &schema, shown).unwrap();
        let before = items.len();
        protobuf::append_item(&message, &mut items);
        assert_eq!(items.len() - before, protobuf::item_len(message.len()));
    }
    let meta = br#"{"resourceVersion":"7","remainingItemCount":3}"#;
    let mut body = protobuf::list_head("v1", "ConfigMapList", meta, &schema, items.len()).unwrap();
    body.extend_from_slice(&items);
    let list = Schema::named(&graph, "core.v1.ConfigMapList").unwrap();
    let read = protobuf::decode(&body, &list).unwrap().value;
    let expected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMapList",
        "metadata": {"resourceVersion": "7", "remainingItemCount": 3},
        "items": [{"metadata": {"name": "m"}, "data": {"k": "v"}}, {"metadata": {"name": "m"}}],
    });
    assert_eq!(read, expected);
}

#[test]
fn an_event_byte_for_byte() {
    // uint32 length, {1: "ADDED", 2: {1: body}}
    let frame = protobuf::watch_frame("ADDED", b"k8s\0");
    let mut expected = vec![0, 0, 0, 15, 0x0a, 5];
    expected.extend_from_slice(b"ADDED");
    expected.extend_from_slice(&[0x12, 6, 0x0a, 4]);
    expected.extend_from_slice(b"k8s\0");
    assert_eq!(frame, expected);
}

#[test]
fn what_is_not_of_the_shape_is_refused() {
    let graph = graph();
    let schema = Schema::named(&graph, "core.v1.Pod").unwrap();
    for json in [
        "",
        "[]",
        "{",
        r#"{"spec":{"containers":5}}"#,
        r#"{"metadata":{"name":[]}}"#,
    ] {
        let encoded = protobuf::encode(json.as_bytes(), &schema, Shown::Object);
        assert!(encoded.is_err(), "{json}");
    }
}
